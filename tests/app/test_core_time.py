"""What time does to leases, over restarts, outages, stopped processes and clocks that are set."""

import asyncio

import pytest

from sparkbroker.broker.domain.lease.driver import DriverState
from sparkbroker.broker.domain.lease.lease import LeaseReason, LeaseState
from sparkbroker.broker.domain.lease.observation import Phase


def elapsed():
    return asyncio.get_running_loop().time()


async def watch(world, lease_id, updates=None):
    async for update in world.core.leases.watch(world.ann, lease_id, 0):
        if updates is not None:
            updates.append(update)


@pytest.mark.promise(3)
@pytest.mark.parametrize("restarts", [0, 1])
async def test_a_client_knows_before_the_broker_reclaims(broker, restarts):
    """It counts its ttl from when it sent the last renewal that was answered."""
    lease_id = await broker.ready(ttl=30)
    generation = (await broker.attach(lease_id)).attachment.generation
    for _ in range(5):
        await broker.passes(9)
        sent = elapsed()
        renewed = await broker.renew(lease_id, generation)
        assert renewed.ttl == 30
    for _ in range(restarts):
        await broker.crash()
        await broker.start()
    await broker.until(lambda: not broker.now(lease_id).live)
    assert elapsed() >= sent + renewed.ttl
    assert broker.now(lease_id).reason is LeaseReason.HOLDER_LOST
    assert elapsed() < sent + renewed.ttl * (1 + restarts) + 10


@pytest.mark.promise(4)
async def test_an_outage_expires_nothing(broker):
    ready = await broker.ready(cores=1)
    generation = (await broker.attach(ready)).attachment.generation
    unattended = await broker.ready(cores=1, unattended_ttl=60)
    queued = await broker.lease(cores=4, acquire_timeout=100, wait_ttl=60)
    await broker.crash()
    broker.clock.jump(86_400)
    await broker.start()
    await broker.passes(20)
    for lease_id in (ready, unattended, queued):
        assert broker.now(lease_id).live
    await broker.renew(ready, generation)


@pytest.mark.promise(4)
async def test_a_holder_that_was_alive_keeps_its_lease_over_restarts(broker):
    lease_id = await broker.ready(ttl=30)
    generation = (await broker.attach(lease_id)).attachment.generation
    for _ in range(5):
        for _ in range(10):
            await broker.passes(10)
            await broker.renew(lease_id, generation)
        await broker.crash()
        broker.clock.jump(3600)
        await broker.start()
        await broker.passes(15)
    await broker.renew(lease_id, generation)
    assert broker.now(lease_id).state is LeaseState.READY


@pytest.mark.promise(4)
async def test_two_restarts_in_a_row_expire_nothing(broker):
    lease_id = await broker.ready(ttl=30)
    generation = (await broker.attach(lease_id)).attachment.generation
    for _ in range(10):
        await broker.passes(10)
        await broker.renew(lease_id, generation)
    for _ in range(2):
        await broker.crash()
        await broker.start()
        await broker.passes(1)
    await broker.renew(lease_id, generation)


@pytest.mark.promise(4)
async def test_a_broker_that_crashes_all_the_time_still_frees_a_dead_holders_lease(broker):
    lease_id = await broker.ready(ttl=30)
    await broker.attach(lease_id)
    for _ in range(10):
        await broker.passes(20)
        if broker.now(lease_id).live:
            await broker.crash()
            await broker.start()
    assert not broker.now(lease_id).live
    lease = await broker.state(lease_id, LeaseState.EXPIRED)
    assert lease.reason is LeaseReason.HOLDER_LOST


@pytest.mark.promise(4)
@pytest.mark.parametrize("served", [0.5, 4.0, 6.0])
async def test_an_idle_broker_that_is_killed_soon_after_each_start_comes_on_all_the_same(broker, served):
    """It frees what a dead holder had after about as much serving as one that isn't killed, and an outage is no serving."""
    lease_id = await broker.ready(ttl=30)
    await broker.attach(lease_id)
    rounds = 0
    while broker.now(lease_id).attachments:
        await broker.crash()
        broker.clock.jump(3600)
        await broker.start()
        await broker.passes(served)
        rounds += 1
        assert rounds * served <= 2 * (30 + served)
    assert rounds * served >= 30
    broker.check()


async def test_an_idle_broker_stores_its_clock_seldom(broker):
    await broker.ready(unattended_ttl=86_400)
    await broker.passes(30)
    before = broker.store.commits
    await broker.passes(3600)
    assert broker.store.commits - before <= 3600 / 5
    await broker.crash()
    await broker.start()
    await broker.passes(20)
    assert broker.store.commits <= 25


@pytest.mark.promise(4)
@pytest.mark.parametrize("seconds", [30, 86_400])
async def test_a_stopped_process_ages_nothing(broker, seconds):
    lease_id = await broker.ready(ttl=10, unattended_ttl=10)
    generation = (await broker.attach(lease_id)).attachment.generation
    queued = await broker.lease(cores=4, acquire_timeout=10, wait_ttl=10)
    broker.clock.jump(seconds)
    await broker.passes(5)
    await broker.renew(lease_id, generation)
    assert broker.now(queued).state is LeaseState.QUEUED
    assert broker.core.authority.serving.now() < 30


@pytest.mark.promise(4)
@pytest.mark.parametrize("seconds", [-3600, 3600])
async def test_the_wall_clock_is_no_deadline(broker, seconds):
    lease_id = await broker.ready(ttl=30, max_duration=300)
    generation = (await broker.attach(lease_id)).attachment.generation
    queued = await broker.lease(cores=4, acquire_timeout=100)
    broker.clock.set_wall(seconds)
    await broker.passes(20)
    await broker.renew(lease_id, generation)
    assert broker.now(queued).state is LeaseState.QUEUED
    await broker.crash()
    await broker.start()
    await broker.passes(20)
    await broker.renew(lease_id, generation)
    await broker.passes(25)
    await broker.renew(lease_id, generation)
    while broker.now(queued).live:
        await broker.passes(5)
        await broker.renew(lease_id, generation)
    assert broker.now(queued).reason is LeaseReason.ACQUIRE_TIMEOUT
    assert 100 <= elapsed() < 115
    begun = elapsed()
    await broker.state(lease_id, LeaseState.EXPIRED)
    assert elapsed() - begun < 40, "its heartbeat still counts"


async def test_nobody_waits(broker):
    await broker.ready(cores=4, ttl=3600, unattended_ttl=7200)
    lease_id = await broker.lease(wait_ttl=60)
    lease = await broker.state(lease_id, LeaseState.EXPIRED)
    assert lease.reason is LeaseReason.NOBODY_WAITED
    assert 60 <= elapsed() < 62
    assert "1 min" in lease.message


async def test_who_watches_waits_and_who_stops_watching_has_the_whole_wait_ttl(broker):
    await broker.ready(cores=4, unattended_ttl=86_400)
    lease_id = await broker.lease(wait_ttl=60)
    watching = broker.spawn(watch(broker, lease_id))
    await broker.passes(60 * 4 + 55)
    assert broker.now(lease_id).state is LeaseState.QUEUED
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await broker.passes(55)
    assert broker.now(lease_id).state is LeaseState.QUEUED, "its watcher may come back within wait_ttl"
    await broker.passes(10)
    assert broker.now(lease_id).reason is LeaseReason.NOBODY_WAITED


@pytest.mark.promise(4)
async def test_who_watched_may_come_back_after_restarts(broker):
    await broker.ready(cores=4, unattended_ttl=86_400)
    lease_id = await broker.lease(wait_ttl=60)
    for _ in range(4):
        watching = broker.spawn(watch(broker, lease_id))
        await broker.passes(40)
        await broker.crash()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await broker.start()
        await broker.passes(10)
        assert broker.now(lease_id).state is LeaseState.QUEUED


async def test_renewing_without_a_generation_waits_on(broker):
    await broker.ready(cores=4, unattended_ttl=86_400)
    lease_id = await broker.lease(wait_ttl=60)
    for _ in range(5):
        await broker.passes(50)
        assert (await broker.renew(lease_id, 0)).ttl == 60
    assert broker.now(lease_id).state is LeaseState.QUEUED


async def test_ready_and_unattended(broker):
    lease_id = await broker.ready(unattended_ttl=60)
    lease = await broker.state(lease_id, LeaseState.EXPIRED)
    assert lease.reason is LeaseReason.UNATTENDED
    assert 60 <= elapsed() < 63


@pytest.mark.parametrize("state", [LeaseState.QUEUED, LeaseState.PROVISIONING])
async def test_not_acquired_in_time(broker, state):
    if state is LeaseState.QUEUED:
        await broker.ready(cores=4)
    broker.machine.automatic = False
    lease_id = await broker.lease(acquire_timeout=30)
    await broker.passes(10)
    assert broker.now(lease_id).state is state
    lease = await broker.state(lease_id, LeaseState.RELEASING, LeaseState.EXPIRED)
    assert lease.reason is LeaseReason.ACQUIRE_TIMEOUT
    assert lease.message.endswith("in the queue" if state is LeaseState.QUEUED else "while its driver started")
    assert 30 <= elapsed() < 31
    broker.check()


async def test_max_duration_with_notice(broker):
    lease_id = await broker.ready(max_duration=600, ttl=60)
    generation = (await broker.attach(lease_id)).attachment.generation
    begun, noticed = elapsed(), 0.0
    while broker.now(lease_id).live:
        notice = (await broker.renew(lease_id, generation)).notice
        if notice and not noticed:
            noticed = elapsed()
        await broker.passes(5)
    assert 535 <= noticed - begun <= 550
    lease = await broker.state(lease_id, LeaseState.EXPIRED)
    assert lease.reason is LeaseReason.MAX_DURATION
    assert 600 <= elapsed() - begun < 610
    kinds = [e.type for e in broker.stored_events(lease_id)]
    assert kinds.count("NOTICE") == 1


async def test_a_lease_that_is_kept_when_its_holder_is_lost(broker):
    lease_id = await broker.ready(keep_when_holder_lost=True, ttl=10, unattended_ttl=60)
    lost = (await broker.attach(lease_id)).attachment
    await broker.until(lambda: not broker.now(lease_id).attachments)
    assert broker.now(lease_id).state is LeaseState.READY
    await broker.until(lambda: broker.machine.ended_sessions)
    assert broker.machine.ended_sessions[0][1] == lost.session_id
    generation = (await broker.attach(lease_id)).attachment.generation
    await broker.connection(lease_id, generation)
    assert len(broker.machine.created) == 1
    assert broker.driver(lease_id).state is DriverState.READY
    await broker.until(lambda: not broker.now(lease_id).live)
    assert broker.now(lease_id).reason is LeaseReason.UNATTENDED


async def test_an_attachment_lost_while_waiting_leaves_the_lease_to_wait(broker):
    await broker.ready(cores=4, unattended_ttl=3600)
    lease_id = await broker.lease(ttl=10, wait_ttl=60)
    await broker.attach(lease_id)
    await broker.passes(15)
    lease = broker.now(lease_id)
    assert lease.state is LeaseState.QUEUED
    assert lease.attachments == ()
    await broker.passes(60)
    assert broker.now(lease_id).reason is LeaseReason.NOBODY_WAITED


async def test_a_lease_that_is_queued_again_waits_anew(broker):
    broker.machine.automatic = False
    lease_id = await broker.lease(wait_ttl=400)
    await broker.until(broker.machine.living)
    await broker.passes(60)
    broker.machine.set(broker.driver(lease_id).id, Phase.EXITED)
    await broker.until(lambda: broker.now(lease_id).attempt == 2)
    assert broker.now(lease_id).wait_deadline >= broker.core.authority.serving.now() + 395


async def test_deadlines_stay_few_over_many_cycles(broker):
    expirer = broker.core.expirer
    for _ in range(60):
        ids = await asyncio.gather(*[broker.lease(mode="LOCAL", wait_ttl=604800) for _ in range(60)])
        await asyncio.gather(*[broker.release(lease_id) for lease_id in ids])
    assert len(expirer._heap) < 2500
    assert repr(expirer) == "<Expirer [0 deadlines]>"


async def test_renewals_reach_the_store_once_under_a_leadership(broker):
    lease_id = await broker.ready(ttl=3600)
    generation = (await broker.attach(lease_id)).attachment.generation
    for expected in (0, 1):
        before = broker.stored(lease_id).revision
        for _ in range(20):
            await broker.renew(lease_id, generation)
        await broker.settled()
        assert (broker.stored(lease_id).revision > before) == expected
        await broker.crash()
        await broker.start()
    # What wasn't stored doesn't get into the way of later changes.
    await broker.renew(lease_id, generation)
    await broker.release(lease_id, generation)
    await broker.state(lease_id, LeaseState.RELEASED)
