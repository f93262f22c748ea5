"""A whole broker but for its transport, over a world without processes, in virtual time.

The loop's clock jumps to the next timer as soon as nothing is left to do: ticks, backoffs and call limits take no
time, always come in the same order, and a wait for what nobody will do is an error at once.
"""

import asyncio
import selectors
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from sparkbroker.broker.adapters.fake_provisioner import FakeProvisioner, FakeWorld
from sparkbroker.broker.adapters.memory_store import MemoryDatabase, MemoryStore
from sparkbroker.broker.app import records
from sparkbroker.broker.app.allowance import Allowance
from sparkbroker.broker.app.catalogue import Catalogue
from sparkbroker.broker.app.janitor import Retention
from sparkbroker.broker.app.views import Acquired, Attached, LeaseView, OnExisting
from sparkbroker.broker.core import Core
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.asking.request import SizeRequest, SpecRequest
from sparkbroker.broker.domain.capacity.queue import Queue
from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.lease.driver import Driver
from sparkbroker.broker.domain.lease.event import LeaseEvent
from sparkbroker.broker.domain.lease.lease import ContainerSize, Lease, LeaseSpec, LeaseState
from sparkbroker.broker.domain.lease.observation import Handle, Observation, Phase
from sparkbroker.broker.domain.units import DriverId, LeaseId, Principal, WallTime
from sparkbroker.broker.ports.authenticator import Caller, Role
from sparkbroker.broker.ports.metrics import Metrics, NoMetrics
from sparkbroker.broker.ports.provisioner import ConnectEndpoint, DriverRequest
from sparkbroker.broker.ports.store import RowKind

GIB = 1 << 30
NOBODY = DriverId("")
PATIENCE = 600.0
"""Virtual seconds that ``until`` waits."""


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            # A thread may still report (no test here has one); nothing else ever will.
            if ready := super().select(2.0):
                return ready
            raise RuntimeError("deadlock: nothing is left to do, and something waits")
        self.now += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time stands still while anything runs, and jumps to the next timer when nothing does."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def pytest_asyncio_loop_factories() -> dict[str, type[asyncio.AbstractEventLoop]]:
    """Every asynchronous test in this folder runs in virtual time."""
    return {"virtual": VirtualLoop}


class HandClock:
    """The loop's time, and jumps. ``jump``: the machine slept or the process was stopped; ``set_wall``: somebody set
    the clock."""

    def __init__(self) -> None:
        self._jumped = 0.0
        self._wall = 1_700_000_000.0

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time() + self._jumped

    def wall(self) -> WallTime:
        return WallTime(self._wall + self.monotonic())

    def jump(self, seconds: float) -> None:
        self._jumped += seconds

    def set_wall(self, seconds: float) -> None:
        self._wall += seconds


class WatchedProvisioner(FakeProvisioner):
    """Notes what a broker must never do, and hangs where a test says so."""

    def __init__(self, world: "World") -> None:
        super().__init__(world.machine, world.clock)
        self._harness = world

    async def _call(self, method: str, driver_id: DriverId = NOBODY) -> None:
        harness = self._harness
        harness.calls.append((method, driver_id))
        while (gate := harness.hanging(method, driver_id)) is not None:
            await gate.wait()

    async def inventory(self) -> list[Observation]:
        await self._call("inventory")
        if self._harness.inventory_failures:
            raise self._harness.inventory_failures.pop(0)
        return await super().inventory()

    async def create(self, request: DriverRequest) -> Observation:
        await self._call("create", request.driver_id)
        self._harness.check_create(request)
        seen = await super().create(request)
        await self._call("created", request.driver_id)
        return seen

    async def observe(self, driver_id: DriverId, handle: Handle, profile: Profile) -> Observation:
        await self._call("observe", driver_id)
        if driver_id in self._harness.doubtful:
            raise self._harness.doubtful[driver_id]
        return await super().observe(driver_id, handle, profile)

    async def delete(self, driver_id: DriverId, handle: Handle, *, force: bool) -> None:
        await self._call("force" if force else "delete", driver_id)
        if driver_id in self._harness.undeletable:
            raise self._harness.undeletable[driver_id]
        if driver_id in self._harness.stubborn:
            if self._world.drivers[driver_id].phase is not Phase.STOPPING:
                self._world.set(driver_id, Phase.STOPPING)
            return
        seen = self._world.drivers.get(driver_id)
        if force or seen is None or seen.phase is not Phase.STOPPING:
            await super().delete(driver_id, handle, force=force)

    async def end_session(self, driver_id: DriverId, handle: Handle, profile: Profile, session_id: str) -> None:
        await self._call("end_session", driver_id)
        await super().end_session(driver_id, handle, profile, session_id)

    async def endpoint(self, driver_id: DriverId, handle: Handle, profile: Profile) -> ConnectEndpoint:
        await self._call("endpoint", driver_id)
        return await super().endpoint(driver_id, handle, profile)

    async def abandon(self, driver_id: DriverId, handle: Handle) -> str:
        await self._call("abandon", driver_id)
        if driver_id in self._harness.unabandonable:
            raise self._harness.unabandonable[driver_id]
        return await super().abandon(driver_id, handle)

    async def forget(self, driver_id: DriverId) -> None:
        await self._call("forget", driver_id)
        self._harness.check_forget(driver_id)
        if driver_id in self._harness.unforgettable:
            raise self._harness.unforgettable[driver_id]
        await super().forget(driver_id)


class World:
    """What outlives a broker (``database``, ``machine``), and one broker at a time over it (``core``)."""

    ann = Caller(Principal("ann"))
    bob = Caller(Principal("bob"))
    ops = Caller(Principal("ops"), frozenset({Role.USER, Role.OPERATOR}))

    def __init__(self) -> None:
        self.clock = HandClock()
        self.database = MemoryDatabase()
        self.machine = FakeWorld()
        self.capacity = Resources.of(cores=4, memory=64 * GIB)
        self.quotas: dict[str, Queue] | None = None
        self.max_attempts = 2
        self.start_timeout = 120.0
        self.retention = Retention()
        self.allowance = Allowance()
        self.metrics: Metrics = NoMetrics()
        self.calls: list[tuple[str, DriverId]] = []
        self.doubtful: dict[DriverId, Exception] = {}
        self.stubborn: set[DriverId] = set()
        self.undeletable: dict[DriverId, Exception] = {}
        self.unforgettable: dict[DriverId, Exception] = {}
        self.unabandonable: dict[DriverId, Exception] = {}
        self.inventory_failures: list[Exception] = []
        self.wrong: list[str] = []
        """What must never happen and did."""
        self.core: Core
        self.store: MemoryStore
        self._gates: dict[str, tuple[asyncio.Event, set[DriverId] | None]] = {}
        self._running: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[Any]] = []

    # -- a broker's life

    async def start(self, *, inventory: bool = True, begin: Callable[[Core], None] | None = None) -> Core:
        """Recover and run a broker; wait for its first inventory."""
        self.store = MemoryStore(self.database)
        self.core = Core(
            catalogue=self._catalogue(),
            store=self.store,
            provisioners={"local": WatchedProvisioner(self)},
            clock=self.clock,
            metrics=self.metrics,
            retention=self.retention,
            allowance=self.allowance,
        )
        if begin is not None:
            begin(self.core)
        await self.core.recover()
        self._running = asyncio.create_task(self.core.run())
        if inventory:
            await self.core.inventory.complete.wait()
            await self.settled()
        return self.core

    async def crash(self, *, lose: bool = True) -> None:
        """End the broker as SIGKILL would. ``lose``: with what is being committed; else that has reached the disk."""
        if lose:
            self.store.pause()
        await self._end()

    async def stop(self) -> None:
        """End it in an orderly way."""
        assert self._running is not None
        self.core.stop()
        running, self._running = self._running, None
        await running
        await self.core.close()

    async def ended(self) -> BaseException | None:
        """Wait for the broker to end by itself; return why."""
        assert self._running is not None
        await asyncio.wait([self._running])
        running, self._running = self._running, None
        return running.exception()

    async def _end(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        for provisioner in self.core._provisioners.values():
            self.machine.listeners.remove(provisioner._changes.note)  # type: ignore[attr-defined]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._running is not None:
            await self._end()

    def _catalogue(self) -> Catalogue:
        spec = LeaseSpec(profile="default", queue="default", driver=ContainerSize(cores=1, memory=GIB))
        profile = Profile(
            name="default", defaults=spec, max_attempts=self.max_attempts, start_timeout=self.start_timeout
        )
        return Catalogue(
            profiles={"default": profile},
            queues=self.quotas or {"default": Queue(name="default", nominal=self.capacity)},
            pools={"local": self.capacity},
            default_profile="default",
            default_queue="default",
        )

    # -- use

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run it beside the test."""
        task = asyncio.create_task(coroutine)
        self._tasks.append(task)
        return task

    async def acquire(
        self,
        caller: Caller = ann,
        *,
        cores: int = 1,
        key: str = "",
        request_id: str | None = None,
        on_existing: OnExisting = OnExisting.FAIL,
        **spec: Any,
    ) -> Acquired:
        request = SpecRequest(driver=SizeRequest(cores=cores), **spec)
        request_id = str(uuid.uuid4()) if request_id is None else request_id
        return await self.core.leases.acquire(
            caller, request_id=request_id, key=key, on_existing=on_existing, request=request
        )

    async def lease(self, **spec: Any) -> LeaseId:
        """Acquire one; its id."""
        return (await self.acquire(**spec)).view.lease.id

    async def ready(self, **spec: Any) -> LeaseId:
        """Acquire one and wait until it is READY."""
        lease_id = await self.lease(**spec)
        await self.state(lease_id, LeaseState.READY)
        return lease_id

    async def attach(
        self, lease_id: LeaseId, caller: Caller = ann, *, request_id: str | None = None, holder: str = "me"
    ) -> Attached:
        request_id = str(uuid.uuid4()) if request_id is None else request_id
        return await self.core.leases.attach(caller, lease_id, request_id=request_id, holder=holder)

    async def renew(self, lease_id: LeaseId, generation: int, caller: Caller = ann) -> Any:
        return await self.core.leases.renew(caller, lease_id, generation)  # type: ignore[arg-type]

    async def release(self, lease_id: LeaseId, generation: int = 0, caller: Caller = ann) -> LeaseView:
        return await self.core.leases.release(caller, lease_id, generation, "")  # type: ignore[arg-type]

    async def connection(self, lease_id: LeaseId, generation: int, caller: Caller = ann) -> Any:
        return await self.core.leases.connection(caller, lease_id, generation)  # type: ignore[arg-type]

    def now(self, lease_id: LeaseId) -> Lease:
        """The lease in memory."""
        return self.core.authority.leases[lease_id]

    def driver(self, lease_id: LeaseId) -> Driver:
        """The lease's newest driver."""
        authority = self.core.authority
        return authority.drivers[authority.drivers_of[lease_id][-1]]

    # -- waiting

    async def until(self, condition: Callable[[], Any], what: str = "") -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE
        while not condition():
            if self._running is not None and self._running.done():
                await self._running
                raise AssertionError("the broker has ended")
            assert loop.time() < end, f"not within {PATIENCE} virtual seconds: {what}; {self.core!r} {self.machine!r}"
            await asyncio.sleep(0.05)

    async def state(self, lease_id: LeaseId, *states: LeaseState) -> Lease:
        """Wait until the lease is in one of these states, and that is committed."""
        await self.until(lambda: self.now(lease_id).state in states, f"{lease_id} is one of {states}")
        await self.settled()
        return self.now(lease_id)

    async def settled(self) -> None:
        """Wait until everything is committed."""
        await self.core.authority.commits.settle(self.core.authority.commits.revision)

    async def passes(self, seconds: float) -> None:
        """Time goes by, for everybody."""
        await asyncio.sleep(seconds)

    # -- the world's doings

    def hang(self, method: str, *driver_ids: DriverId) -> None:
        """Let these calls not return until ``unhang``; without ids, everyone's. ``created``: after the creation."""
        self._gates[method] = (asyncio.Event(), set(driver_ids) or None)

    def unhang(self, method: str) -> None:
        self._gates.pop(method)[0].set()

    def hanging(self, method: str, driver_id: DriverId) -> asyncio.Event | None:
        gate, driver_ids = self._gates.get(method, (None, None))
        return gate if driver_ids is None or driver_id in driver_ids else None

    def called(self, method: str, driver_id: DriverId | None = None) -> int:
        return sum(1 for name, of in self.calls if name == method and driver_id in (None, of))

    # -- what must always hold

    def check_create(self, request: DriverRequest) -> None:
        """Before anything is made (promises 1, 6 and 8)."""
        row = self.database.rows.get((RowKind.DRIVER, request.driver_id))
        if row is None:
            self.wrong.append(f"{request.driver_id} is made without recorded intent")
            return
        lease_id = records.decode_driver(row).lease_id
        others = [d for d in self.machine.living() if d != request.driver_id and self._lease_of(d) == lease_id]
        if others:
            self.wrong.append(f"{request.driver_id} is made while {others} of lease {lease_id} live")
        self.check_capacity(request)

    def check_capacity(self, request: DriverRequest | None = None) -> None:
        """What lives in truth (and what is about to) never exceeds the capacity."""
        living = [self.machine.drivers[d].resources for d in self.machine.living()]
        if request is not None and request.driver_id not in self.machine.living():
            living.append(request.target)
        total = Resources()
        for each in living:
            total += each
        if not total.fits(self.capacity):
            self.wrong.append(f"{total} run on {self.capacity}")

    def check_forget(self, driver_id: DriverId) -> None:
        if (RowKind.DRIVER, driver_id) in self.database.rows:
            self.wrong.append(f"{driver_id} is forgotten while its row is kept")

    def _lease_of(self, driver_id: DriverId) -> LeaseId | None:
        row = self.database.rows.get((RowKind.DRIVER, driver_id))
        return None if row is None else records.decode_driver(row).lease_id

    def check(self) -> None:
        """Everything that holds at every moment of a broker's life."""
        authority = self.core.authority
        authority.ledger.check()
        self.check_capacity()
        assert not self.wrong, self.wrong
        charged = authority.ledger.pool_used("local")
        for driver_id in self.machine.living():
            assert driver_id in authority.ledger or not self.core.inventory.complete.is_set(), f"{driver_id} is free"
        for driver in authority.drivers.values():
            charge = authority.ledger.get(driver.id)
            assert (charge.amount if charge else Resources()) == driver.charge, driver
        for lease in authority.leases.values():
            assert lease.spec is authority.specs.of(lease.spec_id), "equal specs are one"
            if lease.key and lease.live:
                assert authority.keys[lease.principal, lease.key] == lease.id
        assert charged.fits(self.capacity), f"{charged} are charged of {self.capacity}"

    # -- what is stored

    def stored(self, lease_id: LeaseId) -> Lease | None:
        row = self.database.rows.get((RowKind.LEASE, lease_id))
        return None if row is None else records.decode_lease(row, self._stored_spec)

    def _stored_spec(self, spec_id: str) -> LeaseSpec:
        return records.decode_spec(self.database.rows[RowKind.SPEC, spec_id])

    def stored_charge(self, lease_id: LeaseId) -> Resources:
        """Of its newest driver."""
        return records.decode_driver(self.database.rows[RowKind.DRIVER, self.driver(lease_id).id]).charge

    def stored_events(self, lease_id: LeaseId | None = None) -> list[LeaseEvent]:
        return [records.decode_event(e) for e in self.database.events if lease_id in (None, e.subject)]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Nothing runs yet: change what the broker is configured with, then ``start`` it."""
    world = World()
    yield world
    await world.close()
    assert not world.wrong, world.wrong


@pytest.fixture
async def broker(world: World) -> AsyncIterator[World]:
    """The world with a broker that has made its first inventory."""
    await world.start()
    yield world
    if world._running is not None and not world._running.done():
        world.check()


@pytest.fixture
def virtual() -> SimpleNamespace:
    """For synchronous tests (hypothesis): ``run`` runs a scenario over a new world, in virtual time."""

    def run(scenario: Callable[[World], Awaitable[None]]) -> None:
        async def main() -> None:
            world = World()
            try:
                await scenario(world)
            finally:
                await world.close()
            assert not world.wrong, world.wrong

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(main())

    return SimpleNamespace(run=run)


def seen(driver_id: str, phase: Phase, cores: int = 1) -> Observation:
    """Something that runs and that nobody recorded."""
    return Observation(
        driver_id=DriverId(driver_id),
        phase=phase,
        resources=Resources.of(cores=cores, memory=GIB),
        handle={"number": 1},
    )


@pytest.fixture
def stray() -> Callable[..., Observation]:
    return seen
