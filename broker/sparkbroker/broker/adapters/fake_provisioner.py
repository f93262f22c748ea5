"""A provisioner without processes, for fast tests. It keeps the port's contract; the test decides what the world does.

The world outlives provisioners as machines outlive brokers: make a new provisioner over the same world to restart.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

import msgspec

from sparkbroker.broker.adapters.changes import Changes
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.lease.driver import DriverExit
from sparkbroker.broker.domain.units import DriverId
from sparkbroker.broker.ports.clock import Clock
from sparkbroker.broker.ports.provisioner import (
    ClientAccess,
    ConnectEndpoint,
    DriverRequest,
    Handle,
    LogChunk,
    Observation,
    Phase,
)

MACHINE: Final = Resources.of(cores=64, memory=256 << 30)
_GONE: Final = frozenset({Phase.ABSENT, Phase.EXITED})
_CHUNK: Final = 64 * 1024


class FakeWorld:
    """What exists. ``automatic``: drivers become READY, and end when asked, at once; else by ``step`` and ``set``.

    ``created`` counts real creations by id: more than 1 is a second driver. ``failures`` are raised by the next creates,
    ``doubts`` by the next observations; ``ended_sessions`` are recorded; ``logs`` hold what ``write_log`` wrote, and
    ``executor_logs`` those of executors, by name.
    """

    def __init__(self, *, automatic: bool = True, capacity: Resources = MACHINE) -> None:
        self.automatic = automatic
        self.capacity = capacity
        self.drivers: dict[DriverId, Observation] = {}
        self.created: dict[DriverId, int] = {}
        self.failures: list[ProvisionerFailed] = []
        self.doubts: list[ProvisionerFailed] = []
        self.ended_sessions: list[tuple[DriverId, str]] = []
        self.logs: dict[DriverId, bytes] = {}
        self.executor_logs: dict[DriverId, dict[str, bytes]] = {}
        self.listeners: list[Callable[[DriverId], None]] = []

    def __repr__(self) -> str:
        phases = ", ".join(f"{driver_id} {seen.phase}" for driver_id, seen in self.drivers.items())
        return f"<FakeWorld [{phases}]>"

    def living(self) -> set[DriverId]:
        """What takes capacity in truth."""
        return {driver_id for driver_id, seen in self.drivers.items() if seen.phase not in _GONE}

    def add(self, seen: Observation) -> None:
        """Something that nobody recorded."""
        self.drivers[seen.driver_id] = seen
        self._tell(seen.driver_id)

    def set(self, driver_id: DriverId, phase: Phase, *, exit: DriverExit | None = None, now: float = 0.0) -> None:
        """Let a driver be in this phase. ABSENT removes it."""
        if phase is Phase.ABSENT:
            self.drivers.pop(driver_id, None)
            self._tell(driver_id)
            return
        changes: dict[str, object] = {"phase": phase, "exit": exit}
        if phase in (Phase.PORT_OPEN, Phase.READY):
            changes["port_open"] = now
        if phase is Phase.READY:
            changes["ready"] = now
        if phase is Phase.EXITED:
            changes["resources"] = Resources()
            changes["exit"] = exit or DriverExit(exit_code=1)
        self.drivers[driver_id] = msgspec.structs.replace(self.drivers[driver_id], **changes)
        self._tell(driver_id)

    def write_log(self, driver_id: DriverId, data: bytes) -> None:
        """Append to the driver's log."""
        self.logs[driver_id] = self.logs.get(driver_id, b"") + data
        self._tell(driver_id)

    def _tell(self, driver_id: DriverId) -> None:
        for listener in list(self.listeners):
            listener(driver_id)


class FakeProvisioner:
    """See the module. ``embedded``: ``close`` ends the drivers."""

    name = "local"
    always_confirms = ""

    def __init__(self, world: FakeWorld, clock: Clock, *, embedded: bool = False) -> None:
        self._world = world
        self._clock = clock
        self._embedded = embedded
        self._changes = Changes()
        world.listeners.append(self._changes.note)

    def __repr__(self) -> str:
        return f"<FakeProvisioner over {self._world!r}>"

    async def start(self) -> None:
        pass

    def capacity(self) -> dict[str, Resources]:
        return {"local": self._world.capacity}

    def unusable(self, profile: Profile) -> str:
        return ""

    async def inventory(self) -> list[Observation]:
        await asyncio.sleep(0)
        return list(self._world.drivers.values())

    async def create(self, request: DriverRequest) -> Observation:
        await asyncio.sleep(0)
        world = self._world
        existing = world.drivers.get(request.driver_id)
        if existing is not None:
            if existing.profile_fingerprint != request.profile_fingerprint:
                message = f"driver {request.driver_id} exists with the fingerprint {existing.profile_fingerprint}"
                raise ProvisionerFailed(message, retryable=False)
            return existing
        if world.failures:
            raise world.failures.pop(0)
        world.created[request.driver_id] = world.created.get(request.driver_id, 0) + 1
        now = self._clock.wall()
        world.drivers[request.driver_id] = Observation(
            driver_id=request.driver_id,
            phase=Phase.STARTING,
            handle={"number": len(world.created)},
            resources=request.target,
            profile_fingerprint=request.profile_fingerprint,
            process_started=now,
        )
        world.write_log(request.driver_id, b"started\n")
        if world.automatic:
            world.set(request.driver_id, Phase.READY, now=now)
        return world.drivers[request.driver_id]

    async def observe(self, driver_id: DriverId, handle: Handle, profile: Profile) -> Observation:
        await asyncio.sleep(0)
        if self._world.doubts:
            raise self._world.doubts.pop(0)
        return self._world.drivers.get(driver_id, Observation(driver_id=driver_id, phase=Phase.ABSENT))

    async def delete(self, driver_id: DriverId, handle: Handle, *, force: bool) -> None:
        await asyncio.sleep(0)
        seen = self._world.drivers.get(driver_id)
        if seen is not None and seen.phase not in _GONE:
            end_now = self._world.automatic or force
            self._world.set(driver_id, Phase.ABSENT if end_now else Phase.STOPPING)

    async def abandon(self, driver_id: DriverId, handle: Handle) -> str:
        await asyncio.sleep(0)
        if driver_id not in self._world.living():
            return "nothing of it was left"
        self._world.set(driver_id, Phase.ABSENT)
        return f"forgot {driver_id}"

    async def forget(self, driver_id: DriverId) -> None:
        await asyncio.sleep(0)
        if driver_id in self._world.living():
            raise ProvisionerFailed(f"driver {driver_id} still lives: it can't be forgotten", retryable=True)
        self._world.drivers.pop(driver_id, None)
        self._world.logs.pop(driver_id, None)

    async def endpoint(self, driver_id: DriverId, handle: Handle, profile: Profile) -> ConnectEndpoint:
        await asyncio.sleep(0)
        seen = self._world.drivers.get(driver_id)
        if seen is None or seen.phase is not Phase.READY:
            raise ProvisionerFailed(f"driver {driver_id} is not ready", retryable=True)
        headers = {"authorization": f"Bearer token-of-{driver_id}"}
        return ConnectEndpoint(
            endpoint="sc://127.0.0.1:1/", headers=headers, user_id="sparkbroker", spark_version="0.0.0"
        )

    async def client_access(self, request: DriverRequest, handle: Handle) -> ClientAccess:
        raise ProvisionerFailed("the mode CLIENT needs a profile of the provisioner kubernetes", retryable=False)

    async def end_session(self, driver_id: DriverId, handle: Handle, profile: Profile, session_id: str) -> None:
        await asyncio.sleep(0)
        if driver_id in self._world.living():
            self._world.ended_sessions.append((driver_id, session_id))

    async def logs(
        self,
        driver_id: DriverId,
        handle: Handle,
        *,
        offset: int,
        tail_lines: int,
        follow: bool,
        executors: Mapping[str, int] | None = None,
    ) -> AsyncIterator[LogChunk]:
        said = self._world.executor_logs.get(driver_id, {}) if executors is not None else {}
        for source, log in said.items():
            begin = executors.get(source, 0) if executors else 0
            if log[begin:]:
                yield LogChunk(log[begin:], len(log), source)
        if tail_lines and not offset:
            lines = self._world.logs.get(driver_id, b"").splitlines(keepends=True)
            offset = sum(map(len, lines[:-tail_lines]))
        while True:
            gone = driver_id not in self._world.living()
            data = self._world.logs.get(driver_id, b"")[offset : offset + _CHUNK]
            if data:
                offset += len(data)
                yield LogChunk(data, offset)
            elif gone or not follow:
                return
            else:
                await self._until_told()

    async def _until_told(self) -> None:
        told = asyncio.Event()

        def tell(_: DriverId) -> None:
            told.set()

        self._world.listeners.append(tell)
        try:
            await told.wait()
        finally:
            self._world.listeners.remove(tell)

    async def wait_for_change(self) -> set[DriverId]:
        return await self._changes.wait()

    async def close(self) -> None:
        if self._changes.note in self._world.listeners:
            self._world.listeners.remove(self._changes.note)
        if self._embedded:
            for driver_id in self._world.living():
                self._world.set(driver_id, Phase.ABSENT)
