"""Drivers: recorded before they are made, charged until they are confirmed gone, and never silently replaced."""

import asyncio

import msgspec
import pytest

from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.errors import LeaseEnded, ProvisionerFailed
from sparkbroker.broker.domain.lease.driver import DriverExit, DriverState
from sparkbroker.broker.domain.lease.filter import parse_filter
from sparkbroker.broker.domain.lease.lease import LeaseReason, LeaseState
from sparkbroker.broker.domain.lease.observation import Executors, Phase

DOUBT = ProvisionerFailed("it can't be seen now", retryable=True)


@pytest.mark.promise(6)
async def test_a_driver_is_made_only_after_its_intent_is_committed(broker):
    broker.store.pause()
    acquiring = broker.spawn(broker.acquire())
    await broker.passes(5)
    assert not broker.called("create")
    broker.store.resume()
    lease_id = (await acquiring).view.lease.id
    broker.store.pause()
    await broker.passes(5)
    broker.store.resume()
    await broker.state(lease_id, LeaseState.READY)
    assert broker.called("create") == 1


@pytest.mark.promise(6)
async def test_a_crash_before_the_commit_leaves_nothing(broker):
    broker.store.pause()
    broker.spawn(broker.acquire(request_id=""))
    await broker.passes(1)
    await broker.crash(lose=True)
    await broker.start()
    await broker.passes(5)
    assert not broker.core.authority.leases
    assert not broker.called("create")


@pytest.mark.promise(6, 8)
@pytest.mark.parametrize("released", [False, True])
async def test_a_crash_between_a_creation_and_its_record(broker, released):
    broker.hang("created")
    lease_id = await broker.lease()
    await broker.until(lambda: broker.called("created"))
    (driver_id,) = broker.machine.living()
    await broker.crash()
    broker.unhang("created")
    await broker.start()
    if released:
        await broker.release(lease_id)
        await broker.state(lease_id, LeaseState.RELEASED)
        assert not broker.machine.living()
    else:
        await broker.state(lease_id, LeaseState.READY)
        assert broker.machine.living() == {driver_id}, "it was adopted"
    assert broker.machine.created == {driver_id: 1}
    broker.check()


@pytest.mark.promise(6)
async def test_what_runs_without_a_record_is_charged_and_ended(world, stray):
    world.machine.add(stray("dstray", Phase.READY, cores=3))
    world.stubborn.add("dstray")
    await world.start()
    assert world.core.authority.ledger.pool_used("local")["cpu"] == 3000
    lease_id = await world.lease(cores=2)
    await world.passes(30)
    assert world.now(lease_id).state is LeaseState.QUEUED
    assert world.called("force", "dstray"), "asked first, and then without mercy"
    world.machine.set("dstray", Phase.ABSENT)
    await world.state(lease_id, LeaseState.READY)
    assert "dstray" not in world.core.authority.drivers
    world.check()


@pytest.mark.promise(6)
async def test_records_of_what_has_ended_are_forgotten_and_a_failure_of_that_ends_nothing(world, stray):
    world.machine.add(stray("dold", Phase.EXITED))
    world.machine.add(stray("dbad", Phase.EXITED))
    world.unforgettable["dold"] = ProvisionerFailed("read-only", retryable=False)
    await world.start()
    await world.until(lambda: "dbad" not in world.machine.drivers)
    await world.ready()
    world.check()


@pytest.mark.promise(1, 6)
async def test_a_driver_that_comes_back_is_charged_and_ended(broker):
    """A creation that was given up took effect after the driver had been seen to be absent."""
    lease_id = await broker.ready()
    driver = broker.driver(lease_id)
    running = broker.machine.drivers[driver.id]
    await broker.release(lease_id)
    await broker.state(lease_id, LeaseState.RELEASED)
    broker.stubborn.add(driver.id)
    broker.machine.add(running)
    await broker.until(lambda: driver.id in broker.core.authority.ledger)
    broker.check()
    await broker.crash()
    await broker.start()
    assert driver.id in broker.core.authority.ledger
    broker.machine.set(driver.id, Phase.ABSENT)
    await broker.until(lambda: driver.id not in broker.core.authority.ledger)
    assert broker.now(lease_id).state is LeaseState.RELEASED


@pytest.mark.promise(1)
async def test_a_driver_that_is_larger_than_it_should_be_is_charged_for_what_it_takes(world):
    await world.start()
    lease_id = await world.ready(cores=1)
    driver = world.driver(lease_id)
    await world.crash()
    seen = world.machine.drivers[driver.id]
    bigger = Resources.of(cores=4, memory=seen.resources["memory"])
    world.machine.drivers[driver.id] = type(seen)(
        driver_id=seen.driver_id, phase=seen.phase, handle=seen.handle, resources=bigger
    )
    world.hang("observe")  # the inventory alone has to tell
    await world.start()
    other = await world.lease(cores=1)
    await world.passes(5)
    assert world.core.authority.ledger.pool_used("local")["cpu"] == 4000
    assert world.now(other).state is LeaseState.QUEUED
    world.unhang("observe")


@pytest.mark.promise(5)
async def test_capacity_is_free_only_when_the_driver_is_confirmed_gone(broker):
    first = await broker.ready(cores=4)
    driver = broker.driver(first)
    broker.stubborn.add(driver.id)
    second = await broker.lease(cores=1)
    await broker.release(first)
    await broker.until(lambda: broker.called("delete", driver.id) > 3)
    assert broker.now(first).state is LeaseState.RELEASING
    assert broker.now(second).state is LeaseState.QUEUED
    await broker.until(lambda: broker.called("force", driver.id) > 3)
    assert broker.now(second).state is LeaseState.QUEUED, "a forced end that is accepted isn't an end either"
    broker.doubtful[driver.id] = DOUBT
    broker.machine.set(driver.id, Phase.ABSENT)
    await broker.passes(120)
    assert broker.now(second).state is LeaseState.QUEUED, "nor is not to be seen"
    broker.doubtful.clear()
    await broker.state(first, LeaseState.RELEASED)
    await broker.state(second, LeaseState.READY)


@pytest.mark.promise(5)
async def test_capacity_stays_charged_over_a_crash_while_a_driver_leaves(broker):
    first = await broker.ready(cores=4)
    driver = broker.driver(first)
    broker.stubborn.add(driver.id)
    second = await broker.lease(cores=1)
    await broker.release(first)
    await broker.crash()
    await broker.start()
    await broker.passes(30)
    assert broker.now(second).state is LeaseState.QUEUED
    broker.machine.set(driver.id, Phase.EXITED)
    await broker.state(first, LeaseState.RELEASED)
    await broker.state(second, LeaseState.READY)


@pytest.mark.promise(7)
@pytest.mark.parametrize("doubt", ["fails", "hangs", "starting", "port", "stopping"])
async def test_a_doubt_is_no_death(broker, doubt):
    lease_id = await broker.ready(sharing=None)
    attached = await broker.attach(lease_id)
    driver = broker.driver(lease_id)
    phases = {"starting": Phase.STARTING, "port": Phase.PORT_OPEN, "stopping": Phase.STOPPING}
    match doubt:
        case "fails":
            broker.doubtful[driver.id] = DOUBT
        case "hangs":
            broker.hang("observe", driver.id)
        case _:
            broker.machine.set(driver.id, phases[doubt])
    seen = broker.called("observe", driver.id)
    for _ in range(60):
        await broker.passes(10)
        await broker.renew(lease_id, attached.attachment.generation)
    assert broker.called("observe", driver.id) > seen + 5, "it was looked at all the time"
    assert broker.now(lease_id).state is LeaseState.READY
    assert broker.driver(lease_id).state is DriverState.READY


@pytest.mark.promise(9)
@pytest.mark.parametrize(
    ("exit", "reason", "words"),
    [
        (DriverExit(exit_code=137, signal="SIGKILL"), LeaseReason.DRIVER_LOST, "SIGKILL"),
        (DriverExit(exit_code=3, log_tail=("last words",)), LeaseReason.DRIVER_LOST, "exit status 3"),
        (DriverExit(exit_code=3, out_of_memory=True), LeaseReason.OUT_OF_MEMORY, "out of memory"),
        (None, LeaseReason.DRIVER_LOST, "disappeared"),
    ],
)
async def test_a_lost_session_is_reported_as_lost_and_never_replaced(broker, exit, reason, words):
    lease_id = await broker.ready()
    attached = await broker.attach(lease_id)
    driver = broker.driver(lease_id)
    broker.machine.set(driver.id, Phase.EXITED if exit else Phase.ABSENT, exit=exit)
    lease = await broker.state(lease_id, LeaseState.FAILED)
    assert lease.reason is reason
    assert words in lease.message
    assert lease.exit == exit
    assert [e.state for e in broker.stored_events(lease_id)][-2:] == [LeaseState.RELEASING, LeaseState.FAILED]
    with pytest.raises(LeaseEnded, match=words):
        await broker.renew(lease_id, attached.attachment.generation)
    with pytest.raises(LeaseEnded, match=words):
        await broker.connection(lease_id, attached.attachment.generation)
    await broker.passes(60)
    assert len(broker.machine.created) == 1, "no fresh one in its place"


@pytest.mark.promise(9)
async def test_a_session_lost_while_no_broker_ran_is_reported(broker):
    lease_id = await broker.ready()
    driver = broker.driver(lease_id)
    await broker.crash()
    broker.machine.set(driver.id, Phase.EXITED, exit=DriverExit(exit_code=1, signal="SIGSEGV"))
    await broker.start()
    lease = await broker.state(lease_id, LeaseState.FAILED)
    assert "SIGSEGV" in lease.message
    assert len(broker.machine.created) == 1


@pytest.mark.promise(8)
async def test_a_further_attempt_begins_only_when_the_driver_before_is_gone(broker):
    broker.machine.automatic = False
    lease_id = await broker.lease(cores=4)
    await broker.until(broker.machine.living)
    first = broker.driver(lease_id)
    broker.stubborn.add(first.id)
    broker.doubtful[first.id] = ProvisionerFailed("it can't start", retryable=False)
    lease = await broker.state(lease_id, LeaseState.PROVISIONING)
    await broker.until(lambda: broker.now(lease_id).reason is LeaseReason.RETRYING)
    broker.doubtful.clear()
    lease = broker.now(lease_id)
    assert lease.state is LeaseState.PROVISIONING
    assert "attempt 2 of 2 follows" in lease.message
    await broker.passes(30)
    assert len(broker.machine.created) == 1, "never two"
    broker.machine.automatic = True
    broker.machine.set(first.id, Phase.EXITED)
    lease = await broker.state(lease_id, LeaseState.READY)
    assert lease.attempt == 2
    assert broker.driver(lease_id).id != first.id
    assert broker.core.authority.drivers[first.id].state is DriverState.GONE
    broker.check()


async def test_attempts_are_limited(world):
    world.max_attempts = 3
    world.machine.failures = [ProvisionerFailed("no luck", retryable=False) for _ in range(3)]
    await world.start()
    lease_id = await world.lease()
    lease = await world.state(lease_id, LeaseState.FAILED)
    assert lease.reason is LeaseReason.START_FAILED
    assert lease.attempt == 3
    assert lease.message == "no luck"
    assert world.called("create") == 3
    states = [e.state for e in world.stored_events(lease_id)]
    assert states.count(LeaseState.QUEUED) == 3
    world.check()


async def test_bytes_that_are_no_text_fail_no_commit(world):
    """What a driver, its path or its log says may hold any bytes, and other leases are committed with it."""
    stray = "\udcff"
    shown = "\\udcff"
    await world.start()
    first, second, third = [await world.ready() for _ in range(3)]
    for lease_id in (first, second, third):
        driver = world.driver(lease_id)
        seen = world.machine.drivers[driver.id]
        world.machine.drivers[driver.id] = msgspec.structs.replace(seen, handle={"path" + stray: stray}, message=stray)
    world.machine.set(world.driver(first).id, Phase.EXITED, exit=DriverExit(exit_code=1, log_tail=(stray,)))
    world.undeletable[world.driver(second).id] = ProvisionerFailed(stray, retryable=True)
    await world.release(second)
    lease = await world.state(first, LeaseState.FAILED)
    assert lease.exit.log_tail == (shown,)
    assert shown in lease.message
    await world.until(lambda: shown in world.now(second).full_message)
    world.undeletable.clear()
    await world.state(second, LeaseState.RELEASED)
    await world.until(lambda: shown in world.now(third).message)
    await world.release(third)
    await world.state(third, LeaseState.RELEASED)
    assert world.driver(third).handle == {"path" + shown: shown}
    await world.crash()
    await world.start()
    world.check()


async def test_what_a_further_attempt_would_repeat_is_not_tried_again(broker):
    broker.machine.failures = [ProvisionerFailed("no such package", retryable=False, misconfigured=True)]
    lease = await broker.state(await broker.lease(), LeaseState.FAILED)
    assert lease.reason is LeaseReason.MISCONFIGURED
    assert broker.called("create") == 1


async def test_a_call_that_may_succeed_is_repeated_within_the_attempt(broker):
    broker.machine.failures = [ProvisionerFailed("busy", retryable=True) for _ in range(4)]
    lease = await broker.state(await broker.lease(), LeaseState.READY)
    assert lease.attempt == 1
    assert broker.called("create") == 5


@pytest.mark.parametrize("hangs", ["create", "observe"])
async def test_a_driver_whose_calls_hang_is_given_up_at_its_start_deadline(broker, hangs):
    broker.machine.automatic = False
    broker.hang(hangs)
    lease_id = await broker.lease()
    first = broker.driver(lease_id)
    await broker.until(
        lambda: broker.now(lease_id).attempt == 2 or broker.driver(lease_id).state is DriverState.STOPPING
    )
    broker.machine.automatic = True
    broker.unhang(hangs)
    if first.id in broker.machine.living():
        broker.machine.set(first.id, Phase.READY)
    lease = await broker.state(lease_id, LeaseState.READY)
    assert lease.attempt == 2


async def test_a_driver_that_is_not_ready_in_time_is_given_up(broker):
    broker.machine.automatic = False
    lease_id = await broker.lease()
    await broker.until(lambda: broker.now(lease_id).state is LeaseState.FAILED)
    lease = broker.now(lease_id)
    assert lease.reason is LeaseReason.START_FAILED
    assert "not ready in time: its port did not open" in lease.message
    assert not broker.machine.living()


async def test_a_driver_that_ends_while_it_starts_tells_why(world):
    world.max_attempts = 1
    world.machine.automatic = False
    await world.start()
    lease_id = await world.lease()
    await world.until(world.machine.living)
    driver = world.driver(lease_id)
    world.machine.set(driver.id, Phase.EXITED, exit=DriverExit(exit_code=1, log_tail=("bad conf",)))
    lease = await world.state(lease_id, LeaseState.FAILED)
    assert "ended while it started: exit status 1" in lease.message
    assert lease.exit.log_tail == ("bad conf",)


@pytest.mark.parametrize("where", ["create", "created", "observe"])
async def test_released_while_its_driver_is_being_made(broker, where):
    broker.machine.automatic = False
    broker.hang(where)
    lease_id = await broker.lease()
    await broker.until(lambda: broker.called(where))
    await broker.release(lease_id)
    assert broker.now(lease_id).state is LeaseState.RELEASING
    broker.check()
    broker.machine.automatic = True
    broker.unhang(where)
    await broker.state(lease_id, LeaseState.RELEASED)
    assert not broker.machine.living()
    broker.check()


async def test_released_before_the_intent_is_committed_makes_nothing(broker):
    broker.store.pause()
    broker.spawn(broker.acquire())
    await broker.passes(1)
    (lease_id,) = broker.core.authority.leases
    assert broker.now(lease_id).state is LeaseState.PROVISIONING
    broker.spawn(broker.release(lease_id))
    await broker.passes(1)
    broker.store.resume()
    await broker.state(lease_id, LeaseState.RELEASED)
    assert not broker.called("create")
    broker.check()


@pytest.mark.promise(13)
@pytest.mark.parametrize("method", ["create", "observe", "delete", "end_session"])
async def test_many_hanging_calls_delay_no_other_lease(world, method):
    world.capacity = Resources.of(cores=100, memory=1 << 40)
    await world.start()
    stuck = [await world.ready() for _ in range(40)] if method != "create" else []
    ids = [world.driver(lease_id).id for lease_id in stuck]
    if method == "create":
        world.hang("create")
        stuck = [await world.lease() for _ in range(40)]
        ids = [world.driver(lease_id).id for lease_id in stuck]
        world.unhang("create")
    world.hang(method, *ids)
    for lease_id in stuck:
        match method:
            case "observe":
                world.core.reconciler.enqueue(world.driver(lease_id).id)
            case "delete":
                await world.release(lease_id)
            case "end_session":
                await world.attach(lease_id)
                await world.attach(lease_id)
    await world.until(lambda: all(world.called(method, driver_id) for driver_id in ids))
    begun = asyncio.get_running_loop().time()
    other = await world.ready()
    await world.release(other)
    await world.state(other, LeaseState.RELEASED)
    assert asyncio.get_running_loop().time() - begun < 10
    world.unhang(method)


async def test_a_bug_about_one_driver_ends_nothing_else(broker):
    lease_id = await broker.ready()
    driver = broker.driver(lease_id)
    broker.doubtful[driver.id] = RuntimeError("a bug")
    broker.core.reconciler.enqueue(driver.id)
    await broker.until(lambda: broker.called("observe", driver.id) > 5)
    await broker.ready()
    broker.doubtful.clear()
    await broker.release(lease_id)
    await broker.state(lease_id, LeaseState.RELEASED)


async def test_phase_timings_are_kept(broker):
    broker.machine.automatic = False
    lease_id = await broker.lease()
    await broker.until(broker.machine.living)
    driver = broker.driver(lease_id)
    await broker.passes(2)
    broker.machine.set(driver.id, Phase.PORT_OPEN, now=broker.clock.wall())
    await broker.passes(2)
    broker.machine.set(driver.id, Phase.READY, now=broker.clock.wall())
    await broker.state(lease_id, LeaseState.READY)
    timings = broker.stored(lease_id).timings
    assert timings.queued <= timings.admitted <= timings.process_started < timings.port_open <= timings.ready


async def test_executors_are_read_with_a_ready_lease_and_change_nothing_that_is_stored(broker):
    lease_id = await broker.ready()
    driver = broker.driver(lease_id)
    assert (await broker.core.leases.get(broker.ann, lease_id)).executors is None
    before = broker.stored(lease_id), broker.stored_events(lease_id), broker.core.authority.commits.revision
    for running in (0, 1, 2, 1, 0, 1):
        pending = 2 - running
        seen = Executors(wanted=2, running=running, pending=pending, message="unschedulable" if pending else "")
        broker.machine.add(msgspec.structs.replace(broker.machine.drivers[driver.id], executors=seen))
        await broker.until(lambda seen=seen: broker.core.authority.executors.get(driver.id) == seen)
        assert (await broker.core.leases.get(broker.ann, lease_id)).executors == seen
    page = await broker.core.leases.list(broker.ann, parse_filter(""), descending=False, after=None, limit=10)
    assert [view.executors for view in page.views] == [seen]
    assert (broker.stored(lease_id), broker.stored_events(lease_id), broker.core.authority.commits.revision) == before
    await broker.release(lease_id)
    await broker.state(lease_id, LeaseState.RELEASED)
    assert (await broker.core.leases.get(broker.ann, lease_id)).executors is None
    assert not broker.core.authority.executors
