"""Whatever happens in whatever order: what is charged never exceeds what is configured, and nothing leaks."""

import asyncio
import random

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparkbroker.broker.app.views import OnExisting
from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.errors import BrokerError, ProvisionerFailed
from sparkbroker.broker.domain.lease.lease import LeaseMode, LeaseSharing, LeaseState
from sparkbroker.broker.domain.lease.observation import Phase

GIB = 1 << 30


async def ignoring(coroutine):
    try:
        return await coroutine
    except BrokerError:
        return None


def act(world, chance, number):
    """One thing that a client or the world does."""
    leases = list(world.core.authority.leases.values())
    lease = chance.choice(leases) if leases else None
    living = sorted(world.machine.living())
    match chance.randrange(14):
        case 0 | 1 | 2 | 3:
            mode = chance.choice([LeaseMode.LOCAL, LeaseMode.CONNECT, LeaseMode.CONNECT])
            sharing = chance.choice(list(LeaseSharing)) if mode is LeaseMode.CONNECT else None
            world.spawn(ignoring(world.acquire(
                cores=chance.choice([1, 1, 2, 3, 4]), mode=mode, sharing=sharing,
                key=chance.choice(["", "a", "b"]), on_existing=chance.choice(list(OnExisting)),
                wait_ttl=chance.choice([5, 300]), ttl=chance.choice([3, 60]), unattended_ttl=chance.choice([5, 300]),
                acquire_timeout=chance.choice([None, 10]), max_duration=chance.choice([None, 30]),
            )))  # fmt: skip
        case 4 | 5 if lease:
            world.spawn(ignoring(world.attach(lease.id)))
        case 6 if lease:
            world.spawn(ignoring(world.renew(lease.id, lease.generation)))
        case 7 if lease:
            world.spawn(ignoring(world.release(lease.id, chance.choice([0, lease.generation]))))
        case 8 if lease:
            world.spawn(ignoring(world.connection(lease.id, lease.generation)))
        case 9 if living:
            world.machine.set(chance.choice(living), chance.choice([Phase.EXITED, Phase.ABSENT, Phase.READY]))
        case 10:
            world.machine.failures.append(
                ProvisionerFailed("no luck", retryable=chance.random() < 0.5, misconfigured=chance.random() < 0.3)
            )
        case 11:
            world.machine.doubts += [ProvisionerFailed("it can't be seen", retryable=True)] * chance.randrange(5)
        case 12 if living:
            (world.stubborn.add if chance.random() < 0.5 else world.stubborn.discard)(chance.choice(living))
        case 13:
            method = chance.choice(["create", "created", "observe", "delete", "end_session", "endpoint"])
            if world.hanging(method, ""):
                world.unhang(method)
            else:
                world.hang(method)


@pytest.mark.promise(1, 5, 6, 8)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_any_interleaving_with_crashes(virtual, seed):
    async def scenario(world):
        chance = random.Random(seed)
        world.start_timeout = 20.0
        await world.start()
        for number in range(120):
            act(world, chance, number)
            if chance.random() < 0.6:
                await asyncio.sleep(chance.choice([0, 0, 0.1, 1, 5]))
            world.check()
            if chance.random() < 0.04:
                await world.crash(lose=chance.random() < 0.5)
                world.machine.automatic = chance.random() < 0.8
                await world.start(inventory=chance.random() < 0.5)
                world.check()
        await quiet(world)

    virtual.run(scenario)


async def quiet(world):
    """Everything is allowed to end, and then nothing is left."""
    for method in list(world._gates):
        world.unhang(method)
    world.stubborn.clear()
    world.machine.failures.clear()
    world.machine.doubts.clear()
    world.machine.automatic = True
    await world.core.inventory.complete.wait()
    for lease in list(world.core.authority.leases.values()):
        await world.release(lease.id)
    await world.until(lambda: all(lease.terminal for lease in world.core.authority.leases.values()), "all ended")
    await world.until(lambda: not world.machine.living(), "all gone")
    await world.until(lambda: not len(world.core.authority.ledger), "all free")
    await world.passes(70)
    world.check()
    authority, reconciler = world.core.authority, world.core.reconciler
    assert repr(reconciler) == "<Reconciler <WorkQueue [0 ready, 0 active, 0 delayed]>>"
    assert not reconciler._queue._failures
    assert not reconciler._queue._again
    assert not world.core.session_ends._waiters
    assert not authority.keys
    assert not authority.live_of
    assert not authority.commits._waiters
    assert len(authority.ended) == len(authority.leases)
    assert repr(world.core.admitter) == "<Admitter of <Admission [0 queued in 0 queues, 0 reserved]>>"
    assert repr(world.core.expirer) == "<Expirer [0 deadlines]>"


@pytest.mark.promise(1)
async def test_configuration_lowered_below_what_is_charged_admits_nothing_until_it_fits(world):
    await world.start()
    running = [await world.ready(cores=1) for _ in range(4)]
    await world.crash()
    world.capacity = Resources.of(cores=2, memory=64 * GIB)
    await world.start()
    waiting = await world.lease(cores=1)
    for lease_id in running[:2]:
        await world.release(lease_id)
        await world.state(lease_id, LeaseState.RELEASED)
        await world.passes(3)
        assert world.now(waiting).state is LeaseState.QUEUED
    assert all(world.now(lease_id).state is LeaseState.READY for lease_id in running[2:]), "what runs is left alone"
    await world.release(running[2])
    await world.state(waiting, LeaseState.READY)
    world.check()


@pytest.mark.promise(1)
async def test_a_lease_that_no_longer_fits_at_all_lets_others_pass(world):
    await world.start()
    large = await world.ready(cores=4, key="blocker")
    waiting = await world.lease(cores=4)
    await world.crash()
    world.capacity = Resources.of(cores=2, memory=64 * GIB)
    await world.start()
    small = await world.lease(cores=2)
    await world.release(large)
    await world.state(small, LeaseState.READY)
    assert world.now(waiting).state is LeaseState.QUEUED


@pytest.mark.promise(13)
async def test_a_large_lease_is_not_starved(broker):
    small = [await broker.ready(cores=1) for _ in range(4)]
    large = await broker.lease(cores=4)
    passed = 0
    while broker.now(large).state is LeaseState.QUEUED:
        small += [await broker.lease(cores=1) for _ in range(4)]
        oldest = small.pop(0)
        await broker.release(oldest)
        await broker.passes(1)
        passed += 1
        assert passed < 60
        broker.check()
    await broker.state(large, LeaseState.READY)


async def test_many_cycles_leave_nothing_behind(broker):
    for _ in range(30):
        ids = await asyncio.gather(*[broker.lease(cores=1) for _ in range(8)])
        for lease_id in ids:
            await broker.release(lease_id)
    broker.check()
    await quiet(broker)
    assert all(len(drivers) <= 1 for drivers in broker.core.authority.drivers_of.values())


def shows(world, lease_id, cores):
    """Of the lease's driver this many cores exist from now on."""
    driver = world.driver(lease_id)
    seen = world.machine.drivers[driver.id]
    takes = Resources.of(cores=cores, memory=seen.resources["memory"])
    world.machine.add(msgspec.structs.replace(seen, resources=takes))


def charged(world):
    return world.core.authority.ledger.pool_used("local")["cpu"] / 1000


@pytest.mark.promise(1)
async def test_what_exists_beside_a_driver_for_a_while_is_charged_for_that_while(broker):
    lease_id = await broker.ready(cores=1)
    shows(broker, lease_id, 4)  # executors that are leaving, beside their successors
    await broker.until(lambda: charged(broker) == 4)
    waiting = await broker.lease(cores=3)
    assert broker.now(waiting).state is LeaseState.QUEUED
    shows(broker, lease_id, 1)
    await broker.state(waiting, LeaseState.READY)
    assert charged(broker) == 4
    assert broker.stored_charge(lease_id)["cpu"] == 1000
    revision, looks = broker.core.authority.commits.revision, broker.called("observe")
    await broker.until(lambda: broker.called("observe") > looks + 6)
    assert broker.core.authority.commits.revision == revision, "a look that changes nothing is not written"


@pytest.mark.promise(5)
async def test_a_driver_of_which_little_is_left_is_charged_until_it_is_gone(broker):
    lease_id = await broker.ready(cores=3)
    driver = broker.driver(lease_id)
    broker.stubborn.add(driver.id)
    shows(broker, lease_id, 4)
    await broker.until(lambda: charged(broker) == 4)
    await broker.release(lease_id)
    waiting = await broker.lease(cores=2)
    for cores in (2, 0):
        shows(broker, lease_id, cores)
        await broker.until(lambda: charged(broker) == 3)
        looks = broker.called("observe", driver.id)
        await broker.until(lambda looks=looks: broker.called("observe", driver.id) > looks + 5)
        assert charged(broker) == 3
    assert broker.now(waiting).state is LeaseState.QUEUED
    broker.machine.set(driver.id, Phase.ABSENT)
    await broker.state(waiting, LeaseState.READY)
    assert charged(broker) == 2


@pytest.mark.promise(1)
async def test_an_inventory_lowers_no_charge(world):
    """What it shows may be older than what the reconciler has seen of a driver."""
    await world.start()
    lease_id = await world.ready(cores=1)
    shows(world, lease_id, 4)
    await world.until(lambda: charged(world) == 4)
    await world.crash(lose=False)
    shows(world, lease_id, 1)
    world.hang("observe")
    await world.start()
    looks = world.called("inventory")
    await world.until(lambda: world.called("inventory") > looks)
    assert charged(world) == 4
    world.unhang("observe")
    await world.until(lambda: charged(world) == 1)
    world.check()
