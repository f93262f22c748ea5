"""One driver as the provisioner sees it: its folder, its processes, and the steps that bring it up or down."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from sparkbroker.broker.adapters import spark_connect
from sparkbroker.broker.adapters.local_provisioner import _logfile, _procfs
from sparkbroker.broker.adapters.local_provisioner._conf import LOOPBACK
from sparkbroker.broker.adapters.local_provisioner._folder import (
    Ending,
    Folder,
    Intent,
    Process,
    Readiness,
    Stop,
)
from sparkbroker.broker.adapters.local_provisioner._ports import PortFinder
from sparkbroker.broker.adapters.local_provisioner._verdict import Evidence, is_current, observation
from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.lease.log_tail import log_tail
from sparkbroker.broker.domain.units import DriverId
from sparkbroker.broker.ports.clock import Clock
from sparkbroker.broker.ports.provisioner import Observation, Phase

USER_ID: Final = "sparkbroker"
PROBE_TIMEOUT: Final = 5.0
LEFTOVER_GRACE: Final = 2.0
"""What a dead driver leaves behind is its shim's to end, and after this ours."""
_TAIL_LOOK: Final = 1000
"""Lines at the end of its log among which the cause is looked for."""
_TAIL_BYTES: Final = 64 * 1024
_LONGEST_TAIL: Final = 16 << 20
_KILL_ROUNDS: Final = 5


class LocalDriver:
    """Not safe across threads; every step can be repeated, and the files and processes decide what it finds."""

    def __init__(
        self,
        driver_id: DriverId,
        path: Path,
        *,
        owner: str,
        token: str,
        clock: Clock,
        changed: Callable[[DriverId], None],
    ) -> None:
        self.id = driver_id
        self.folder = Folder(path)
        self.token = token
        self.child: subprocess.Popen[bytes] | None = None
        self.pipe: int | None = None
        self.lock = asyncio.Lock()
        self.settled = False
        """It is up, or gone."""
        self.kill_at: float | None = None
        self._owner = owner
        self._clock = clock
        self._changed = changed
        self.trouble = ""
        self._watched: dict[int, int] = {}
        self._ports = PortFinder(clock)

    def __repr__(self) -> str:
        return f"<LocalDriver {self.id} [{len(self._watched)} processes watched]>"

    def evidence(self, *, thorough: bool = False, unmarked: bool = False) -> Evidence:
        """What there is. ``thorough`` counts every process; else only as far as the phase needs it. ``unmarked``: just
        now no process carried its mark."""
        process = self.folder.read(Process)
        alive, driver_alive = self._living(process, thorough=thorough, unmarked=unmarked)
        if process is None:  # the shim may have recorded itself meanwhile
            process = self.folder.read(Process)
        intent = self.folder.read(Intent)
        return Evidence(
            intent=intent,
            process=process,
            readiness=self.folder.read(Readiness),
            stop=self.folder.read(Stop),
            ending=self.folder.read(Ending),
            alive=alive,
            driver_alive=driver_alive,
            marked=self._marked() if intent is None and alive else Resources(),
            log_tail=() if alive else self.log_tail(),
        )

    def _living(self, process: Process | None, *, thorough: bool, unmarked: bool) -> tuple[int, bool]:
        """How many of its processes live, at least, and whether the driver is one of them.

        With its shim dead only the mark tells its processes, and without one it gets none any more: each inherits it.
        """
        if process is None:
            if unmarked and self.child is None:
                return 0, False
            waiting = self.child is not None and self.child.poll() is None
            return (1, False) if waiting and not thorough else (len(self.members(None)), False)
        if process.boot_id != _procfs.boot_id():
            return 0, False
        shim = _procfs.is_alive(process.pid, process.start)
        driver = bool(process.driver_pid) and _procfs.is_alive(process.driver_pid, process.driver_start)
        if (shim or driver) and not thorough:
            self._watch(process, shim=shim, driver=driver)
            return shim + driver, driver
        if unmarked and not shim and not driver:
            return 0, False
        return len(self.members(process)), driver

    def members(self, process: Process | None) -> list[_procfs.ProcessStat]:
        """Its processes that live."""
        session, start = (process.pid, process.start) if process is not None else (0, 0)
        return _procfs.members(self._owner, self.id, session, start)

    def _marked(self) -> Resources:
        """What an orphan says that it was charged for."""
        for stat in self.members(None):
            if found := _procfs.charge(_procfs.environment(stat.pid)):
                return Resources(found)
        return Resources()

    @property
    def was_stopped(self) -> bool:
        """Whether anybody has asked it to end."""
        return self.folder.read(Stop) is not None

    def look(self, *, unmarked: bool = False) -> Observation:
        """Its state now. If nothing of it lives any more its scratch folder goes, before that is said."""
        evidence = self.evidence(unmarked=unmarked)
        result = observation(self.id, evidence)
        if result.phase is Phase.PORT_OPEN and self.trouble:
            result = msgspec.structs.replace(result, message=self.trouble)
        self.settled = result.phase in (Phase.READY, Phase.EXITED, Phase.ABSENT)
        if not evidence.alive:
            self.kill_at = None
            self.let_go()
            if evidence.intent is not None:
                shutil.rmtree(evidence.intent.scratch, ignore_errors=True)
        elif self.kill_at is None:
            self.kill_at = self._end_of_patience(evidence)
        return result

    def _end_of_patience(self, evidence: Evidence) -> float | None:
        """When what lives has to be killed: None if it is as it should be."""
        if evidence.stop is not None:
            return self._clock.monotonic()  # asked by an earlier broker: it has had its time
        if evidence.process is not None and evidence.process.driver_pid and not evidence.driver_alive:
            return self._clock.monotonic() + LEFTOVER_GRACE
        return None

    def log_tail(self) -> tuple[str, ...]:
        """Its last lines and the cause that they lead back to, without its token."""
        path = str(self.folder.log)
        begin = _logfile.tail_offset(path, _TAIL_LOOK, _TAIL_BYTES)
        data, _ = _logfile.read(path, begin, _TAIL_BYTES)
        text = data.decode(errors="replace").replace(self.token, "*" * len(self.token)).replace("\0", "")
        return log_tail(text)

    def server(self, port: int) -> spark_connect.Server:
        """How its Connect server is called."""
        headers = {"authorization": f"Bearer {self.token}"}
        return spark_connect.Server(target=f"{LOOPBACK}:{port}", headers=headers, user_id=USER_ID)

    async def advance(self, budget: float) -> None:
        """Find its port, then call it. Ends after about ``budget`` seconds, at the latest after the probe's timeout."""
        process = self.folder.read(Process)
        if process is None or not _procfs.is_alive(process.driver_pid, process.driver_start):
            return
        if self.folder.read(Stop) is not None:
            return
        readiness = self.folder.read(Readiness)
        if readiness is None or not is_current(readiness, process):
            port = await self._ports.find(process.driver_pid, budget)
            if port is None:
                return
            readiness = self._record(process, port)
        if readiness.ready is None:
            await self._call(readiness)

    def _record(self, process: Process, port: int) -> Readiness:
        readiness = Readiness(
            driver_pid=process.driver_pid,
            driver_start=process.driver_start,
            port=port,
            port_open=self._clock.wall(),
        )
        self.folder.write(readiness)
        self._changed(self.id)
        return readiness

    async def _call(self, readiness: Readiness) -> None:
        try:
            await spark_connect.probe(self.server(readiness.port), PROBE_TIMEOUT)
        except spark_connect.ConnectCallFailed as error:
            self.trouble = f"its port {readiness.port} is open; a Connect call with its token fails: {error}"
            return
        self.trouble = ""
        ui_url = _logfile.find_ui(str(self.folder.log))
        self.folder.write(msgspec.structs.replace(readiness, ready=self._clock.wall(), ui_url=ui_url))
        self.folder.arguments.unlink(missing_ok=True)
        self.settled = True
        self._changed(self.id)

    def launched(self, child: subprocess.Popen[bytes], pipe: int, plan: bytes, *, keep_pipe: bool) -> None:
        """Its shim exists and waits at the other end of ``pipe``: say go."""
        self.child = child
        self.settled = False
        try:
            written = 0
            while written < len(plan):
                written += os.write(pipe, plan[written:])
        finally:
            if keep_pipe:
                self.pipe = pipe
            else:
                os.close(pipe)
        self._watch_pid(child.pid)

    @property
    def surely_alive(self) -> bool:
        """A process of it is watched, and hasn't ended; False says nothing."""
        return bool(self._watched)

    def lives(self) -> bool:
        """Whether anything of it does."""
        return self.evidence().alive > 0

    def log_size(self) -> int:
        return _logfile.size(str(self.folder.log))

    def tail_offset(self, lines: int) -> int:
        """Where the last lines of its log begin, as far as they are looked for."""
        return _logfile.tail_offset(str(self.folder.log), lines, _LONGEST_TAIL)

    def read_log(self, offset: int, size: int) -> tuple[bytes, int]:
        """A piece of its log, its token starred out, also where it crosses the piece's borders."""
        before = min(offset, len(self.token) - 1)
        data, end = _logfile.read(str(self.folder.log), offset - before, before + size + len(self.token) - 1)
        begin = end - len(data)
        data = data.replace(self.token.encode(), b"*" * len(self.token))
        skip = max(0, offset - begin)
        data = data[skip : skip + size]
        return data, max(begin, offset) + len(data)

    def stop(self, *, force: bool, grace: float) -> None:
        """Ask it to end: the driver by SIGTERM; everything of it by SIGKILL with ``force``, or after ``grace``."""
        stop = self.folder.read(Stop)
        if self.folder.path.exists() and (stop is None or force > stop.forced):
            self.folder.write(Stop(asked=self._clock.wall(), forced=force))
        process = self.folder.read(Process)
        if force or process is None or not self._terminate(process):
            self.kill_at = self._clock.monotonic()
            self.kill()
        elif self.kill_at is None:
            self.kill_at = self._clock.monotonic() + grace
        self.settled = False

    def _terminate(self, process: Process) -> bool:
        """Whether the driver lives, and so was asked."""
        stat = _procfs.read_stat(process.driver_pid) if process.driver_pid else None
        if stat is None or stat.start != process.driver_start or process.boot_id != _procfs.boot_id():
            return False
        return _procfs.send_signal(stat, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to everything of it; the shim last, which may still record the end. Rounds: processes fork."""
        process = self.folder.read(Process)
        for _ in range(_KILL_ROUNDS):
            found = self.members(process)
            if not found:
                return
            shim = process.pid if process is not None else 0
            for stat in sorted(found, key=lambda stat: stat.pid == shim):
                _procfs.send_signal(stat, signal.SIGKILL)

    def kill_if_due(self, now: float) -> None:
        """The end of its grace."""
        if self.kill_at is not None and now >= self.kill_at:
            self.kill()

    def _watch(self, process: Process, *, shim: bool, driver: bool) -> None:
        """Learn of the end of these processes at once."""
        wanted = [process.pid] * shim + [process.driver_pid] * driver
        for pid in wanted:
            if pid not in self._watched:
                self._watch_pid(pid)

    def _watch_pid(self, pid: int) -> None:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            self._changed(self.id)
            return
        self._watched[pid] = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._ended, pid)

    def _ended(self, pid: int) -> None:
        self._unwatch(pid)
        self.reap()
        self._changed(self.id)

    def _unwatch(self, pid: int) -> None:
        descriptor = self._watched.pop(pid)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)

    def reap(self) -> None:
        """Take the status of a shim that was our child: the driver's own is in its record."""
        if self.child is not None and self.child.poll() is not None:
            self.child = None

    def let_go(self) -> None:
        """Give back what the kernel lends us for it. An embedded broker's driver ends by this."""
        for pid in list(self._watched):
            self._unwatch(pid)
        if self.pipe is not None:
            os.close(self.pipe)
            self.pipe = None
        self.reap()

    def disown(self) -> None:
        """A child that outlives us: its status is its next parent's, and Popen need not complain."""
        self.reap()
        if self.child is not None:
            self.child.returncode = 0
            self.child = None
