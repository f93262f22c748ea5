"""What the evidence about a driver means. Pure.

The evidence must be gathered in this order: who lives, then the records. The shim records the ending after everything
else of the driver has ended and while it still lives itself, so when nothing lives the record is final.
"""

import signal
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from sparkbroker.broker.adapters.local_provisioner import _procfs
from sparkbroker.broker.adapters.local_provisioner._folder import Ending, Intent, Process, Readiness, Stop
from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.lease.driver import DriverExit
from sparkbroker.broker.domain.units import DriverId
from sparkbroker.broker.ports.provisioner import Handle, Observation, Phase

EXIT_ON_OUT_OF_MEMORY: Final = 3
"""The status with which -XX:+ExitOnOutOfMemoryError ends a JVM."""
_OUT_OF_MEMORY_TEXT: Final = "java.lang.OutOfMemoryError"


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """``alive``: how many of its processes are known to live; ``driver_alive``: whether the driver itself does.

    ``marked`` are the resources that an orphan's own mark tells. ``log_tail`` only matters once nothing lives.
    """

    intent: Intent | None = None
    process: Process | None = None
    readiness: Readiness | None = None
    stop: Stop | None = None
    ending: Ending | None = None
    alive: int = 0
    driver_alive: bool = False
    marked: Resources = Resources()
    log_tail: tuple[str, ...] = ()


def observation(driver_id: DriverId, evidence: Evidence) -> Observation:
    """The driver as it is."""
    phase, message = _phase(evidence)
    intent, process, readiness = evidence.intent, evidence.process, evidence.readiness
    if not is_current(readiness, process):
        readiness = None
    exists = phase is not Phase.ABSENT
    return Observation(
        driver_id=driver_id,
        phase=phase,
        handle=_handle(process, readiness) if exists else {},
        resources=(intent.target if intent else evidence.marked) if evidence.alive else Resources(),
        profile_fingerprint=intent.fingerprint if intent else "",
        process_started=process.started if process else None,
        port_open=readiness.port_open if readiness else None,
        ready=readiness.ready if readiness else None,
        exit=_exit(evidence) if phase is Phase.EXITED else None,
        message=message,
    )


def is_current(readiness: Readiness | None, process: Process | None) -> bool:
    """Whether the port recorded is that of the driver recorded."""
    return (
        readiness is not None
        and process is not None
        and (readiness.driver_pid, readiness.driver_start) == (process.driver_pid, process.driver_start)
    )


def _phase(evidence: Evidence) -> tuple[Phase, str]:
    if not evidence.alive:
        return _phase_of_the_dead(evidence)
    if evidence.stop is not None:
        return Phase.STOPPING, ""
    if evidence.intent is None:
        return Phase.STOPPING, "processes of a driver whose folder is gone: it can't be served, only ended"
    process, readiness = evidence.process, evidence.readiness
    if process is None or not process.driver_pid:
        return Phase.STARTING, ""
    if not evidence.driver_alive:
        return Phase.STOPPING, f"the driver has ended; {evidence.alive} of its processes still exist"
    if readiness is None or not is_current(readiness, process):
        return Phase.STARTING, ""
    return (Phase.PORT_OPEN if readiness.ready is None else Phase.READY), ""


def _phase_of_the_dead(evidence: Evidence) -> tuple[Phase, str]:
    if evidence.intent is None or evidence.process is None or evidence.stop is not None:
        return Phase.ABSENT, ""
    if evidence.ending is None:
        return Phase.EXITED, "it ended unseen: its shim was killed, or the machine restarted"
    return Phase.EXITED, ""


def _exit(evidence: Evidence) -> DriverExit:
    ending, tail = evidence.ending, evidence.log_tail
    if ending is None:
        return DriverExit(log_tail=tail)
    code, killer = _split(ending.status)
    by_kernel = killer == "SIGKILL" and ending.oom_kills > 0
    by_itself = code == EXIT_ON_OUT_OF_MEMORY and any(_OUT_OF_MEMORY_TEXT in line for line in tail)
    return DriverExit(exit_code=code, signal=killer, out_of_memory=by_kernel or by_itself, log_tail=tail)


def _split(status: int) -> tuple[int | None, str]:
    """Exit status or signal name of a wait status."""
    number = status & 0x7F
    if not number:
        return status >> 8, ""
    try:
        return None, signal.Signals(number).name
    except ValueError:
        return None, f"SIG{number}"


def _handle(process: Process | None, readiness: Readiness | None) -> Handle:
    handle: Handle = {}
    if process is not None:
        handle = {"pid": process.pid, "start": process.start, "boot_id": process.boot_id}
        if process.driver_pid:
            handle["driver_pid"] = process.driver_pid
    if readiness is not None:
        handle["port"] = readiness.port
    return handle


def unreadable(driver_id: DriverId, marked: Iterable[Mapping[str, str]], why: str) -> Observation:
    """A driver that runs and whose records say nothing: as its processes' own marks tell. It can only be ended."""
    charges = [_procfs.charge(variables) for variables in marked if variables.get(_procfs.DRIVER_MARK) == driver_id]
    resources = Resources(next(filter(None, charges), {}))
    return Observation(driver_id=driver_id, phase=Phase.STOPPING, resources=resources, message=why)
