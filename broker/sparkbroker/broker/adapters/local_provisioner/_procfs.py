"""Processes as Linux shows them, and how to end exactly those that are meant.

The shim runs this file too, without the package around it: only the standard library's quickest modules here.

A process is known by its pid, its start time and the machine's boot: a pid alone may be somebody else's by now.
Membership of a driver: its environment carries the driver's marker, or it is in the session of a shim that is known to
live. A worker that left the session is found by the marker, one that dropped its environment by the session.
"""

# The shim runs this file, and pathlib would double its start.
# ruff: noqa: PTH123, PTH208

import os
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DRIVER_MARK = "SPARKBROKER_DRIVER_ID"
OWNER_MARK = "SPARKBROKER_OWNER"
CHARGE_MARK = "SPARKBROKER_CHARGE"
_LONGEST_ENVIRON = 1 << 20
_KERNEL_THREAD = 0x00200000
_LOOKS_AT_EMPTY = 3
_BETWEEN_LOOKS = 0.001


class ProcessStat:
    """What /proc/PID/stat says; ``start`` is in clock ticks since the boot."""

    __slots__ = ("kernel", "pid", "session", "start", "state")

    def __init__(self, pid: int, state: str, session: int, start: int, *, kernel: bool) -> None:
        self.kernel = kernel
        self.pid = pid
        self.state = state
        self.session = session
        self.start = start


def boot_id() -> str:
    """Of this boot of the machine."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def read_stat(pid: int) -> ProcessStat | None:
    """None if there is no such process, or only what is left of a dead one: a zombie is dead."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    state = fields[0].decode()
    if state in "ZXx":
        return None
    return ProcessStat(pid, state, int(fields[3]), int(fields[19]), kernel=bool(int(fields[6]) & _KERNEL_THREAD))


def is_alive(pid: int, start: int) -> bool:
    """Whether the process of this pid is still the one that started then."""
    stat = read_stat(pid)
    return stat is not None and stat.start == start


def environment(pid: int) -> dict[str, str]:
    """Of a process of ours, as it was started. Empty if it is gone or somebody else's."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            entries = file.read(_LONGEST_ENVIRON).split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return {}
    pairs = (entry.partition(b"=") for entry in entries if b"=" in entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def charge(variables: "Mapping[str, str]") -> dict[str, int]:
    """What a process's own mark says that its driver takes. Empty: nothing, or nothing that can be read."""
    pairs = (part.partition("=") for part in variables.get(CHARGE_MARK, "").split(",") if part)
    try:
        return {name: int(amount) for name, _, amount in pairs}
    except ValueError:
        return {}


def all_processes() -> list[ProcessStat]:
    """Every process that is alive now."""
    found = (read_stat(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [stat for stat in found if stat is not None]


def environments(processes: list[ProcessStat]) -> dict[int, dict[str, str]]:
    """By pid. A process that is just being executed shows an empty environment for a moment: it is read again."""
    result = {stat.pid: environment(stat.pid) for stat in processes}
    for _ in range(_LOOKS_AT_EMPTY):
        empty = [
            stat for stat in processes if not result[stat.pid] and not stat.kernel and is_alive(stat.pid, stat.start)
        ]
        if not empty:
            break
        time.sleep(_BETWEEN_LOOKS)
        result.update((stat.pid, environment(stat.pid)) for stat in empty)
    return result


def owned(owner: str) -> dict[int, dict[str, str]]:
    """The environments, by pid, of all processes that carry this owner's mark."""
    found = environments(all_processes())
    return {pid: variables for pid, variables in found.items() if variables.get(OWNER_MARK) == owner}


def members(owner: str, driver_id: str, session: int, leader_start: int) -> list[ProcessStat]:
    """The driver's processes that are alive, its shim included.

    The session counts only while its leader is the driver's own shim: later its number may be taken anew.
    """
    leader = read_stat(session) if session else None
    session_is_ours = leader is not None and leader.start == leader_start
    result: list[ProcessStat] = []
    others: list[ProcessStat] = []
    for stat in all_processes():
        (result if session_is_ours and stat.session == session else others).append(stat)
    found = environments(others)
    marks = {DRIVER_MARK: driver_id, OWNER_MARK: owner}
    return result + [stat for stat in others if marks.items() <= found[stat.pid].items()]


def send_signal(process: ProcessStat, number: int) -> bool:
    """Signal exactly this process. False: it is gone."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if not is_alive(process.pid, process.start):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since the boot; 0 if it doesn't tell."""
    try:
        with open("/proc/vmstat", "rb") as file:
            for line in file:
                if line.startswith(b"oom_kill "):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0
