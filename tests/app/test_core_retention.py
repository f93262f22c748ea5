"""What is kept, for how long, and in which order it is forgotten; lists of what is kept."""

import asyncio
import uuid

import pytest

from sparkbroker.broker.app import authority as authority_module
from sparkbroker.broker.app.janitor import Retention
from sparkbroker.broker.domain.driver import DriverState
from sparkbroker.broker.domain.errors import NotFound, ProvisionerFailed
from sparkbroker.broker.domain.filter import parse_filter
from sparkbroker.broker.domain.lease import LeaseMode, LeaseState
from sparkbroker.broker.domain.observation import Phase
from sparkbroker.broker.domain.units import Seconds
from sparkbroker.broker.ports.store import RowKind


async def ended(world, **spec):
    lease_id = await world.ready(**spec)
    await world.release(lease_id)
    await world.state(lease_id, LeaseState.RELEASED)
    return lease_id


async def test_the_oldest_are_forgotten_beyond_a_count(world):
    world.retention = Retention(terminal_count=2)
    await world.start()
    live = await world.ready()
    ids = [await ended(world) for _ in range(5)]
    await world.until(lambda: len(world.core.authority.leases) == 3)
    await world.settled()
    assert set(world.core.authority.leases) == {live, *ids[-2:]}
    assert {row.id for row in world.database.rows.values() if row.kind is RowKind.LEASE} == {live, *ids[-2:]}
    assert sum(row.kind is RowKind.DRIVER for row in world.database.rows.values()) == 3
    with pytest.raises(NotFound, match="no longer kept"):
        await world.core.leases.get(world.ann, ids[0])
    await world.crash()
    await world.start()
    assert list(world.core.authority.ended) == ids[-2:], "in the order in which they ended"
    world.check()


async def test_the_old_are_forgotten_and_their_logs_after_their_rows(world):
    world.retention = Retention(terminal_age=Seconds(100.0))
    await world.start()
    lease_id = await ended(world)
    driver = world.driver(lease_id)
    await world.passes(90)
    assert lease_id in world.core.authority.leases
    world.machine.logs[driver.id] = b"last words"
    world.store.pause()
    await world.passes(20)
    assert not world.called("forget")
    world.store.resume()
    await world.until(lambda: world.called("forget", driver.id))  # that the row is gone is checked by the world
    await world.until(lambda: driver.id not in world.machine.logs)


async def test_a_log_that_cannot_be_removed_ends_nothing(world):
    world.retention = Retention(terminal_count=0)
    await world.start()
    lease_id = await world.ready()
    world.unforgettable[world.driver(lease_id).id] = ProvisionerFailed("read-only", retryable=False)
    await world.release(lease_id)
    await world.until(lambda: world.called("forget"))
    await ended(world)
    world.check()


async def test_a_log_whose_removal_hangs_delays_only_other_removals(world):
    world.retention = Retention(terminal_count=0)
    await world.start()
    world.hang("forget")
    await ended(world)
    await world.until(lambda: world.called("forget"))
    await ended(world)
    await world.until(lambda: world.called("forget") > 1)
    world.unhang("forget")


async def test_rows_of_a_driver_that_came_back_are_kept_until_it_is_gone(world):
    world.retention = Retention(terminal_age=Seconds(200.0))
    await world.start()
    lease_id = await world.ready()
    driver = world.driver(lease_id)
    running = world.machine.drivers[driver.id]
    await world.release(lease_id)
    await world.state(lease_id, LeaseState.RELEASED)
    world.stubborn.add(driver.id)
    world.machine.add(running)
    await world.until(lambda: world.driver(lease_id).state is DriverState.STOPPING)
    await world.passes(250)
    world.check()
    assert driver.id in world.core.authority.ledger
    world.machine.set(driver.id, Phase.ABSENT)
    await world.until(lambda: lease_id not in world.core.authority.leases)
    assert not len(world.core.authority.ledger)


async def test_events_are_compacted_and_live_leases_kept(world):
    world.retention = Retention(event_count=20)
    await world.start()
    lease_id = await world.ready(mode=LeaseMode.LOCAL)
    for _ in range(100):
        await world.attach(lease_id)
    await world.passes(3)
    assert len(world.database.events) <= 22
    assert world.now(lease_id).state is LeaseState.READY


async def test_answers_are_kept_for_a_time_and_up_to_a_number(world, monkeypatch):
    world.retention = Retention(request_age=Seconds(50.0))
    monkeypatch.setattr(authority_module, "REQUEST_LIMIT", 10)
    await world.start()
    for _ in range(30):
        lease_id = await world.lease(mode=LeaseMode.LOCAL, request_id=str(uuid.uuid4()))
        await world.release(lease_id)
    assert len(world.core.authority.requests) == len(world.database.requests) == 10
    await world.passes(30)
    await world.lease(mode=LeaseMode.LOCAL)
    await world.passes(30)
    assert len(world.core.authority.requests) == len(world.database.requests) == 1
    await world.crash()
    await world.start()
    assert len(world.core.authority.requests) == 1


async def test_profiles_that_nothing_refers_to_are_dropped_at_the_next_start(world):
    world.retention = Retention(terminal_count=0)
    await world.start()
    await ended(world, mode=LeaseMode.LOCAL)
    await world.until(lambda: not world.core.authority.leases)
    await world.stop()
    await world.start()
    await world.until(lambda: not [row for row in world.database.rows.values() if row.kind is RowKind.PROFILE])
    await world.ready()


# -- lists


async def pages(world, caller, text="", *, descending, limit):
    found, after = [], None
    while True:
        page = await world.core.leases.list(caller, parse_filter(text), descending=descending, after=after, limit=limit)
        assert len(page.views) <= limit
        found += [view.lease.id for view in page.views]
        after = page.next_after
        if after is None:
            return found


async def test_lists_are_complete_and_in_order_page_by_page(broker):
    ids = []
    for number in range(23):
        ids.append(await broker.lease(mode=LeaseMode.LOCAL, labels={"odd": str(number % 2)}))
        if number % 3:
            await broker.passes(1)
    foreign = await broker.lease(caller=broker.bob, mode=LeaseMode.LOCAL)
    for descending in (False, True):
        whole = await pages(broker, broker.ann, descending=descending, limit=1000)
        assert sorted(whole) == sorted(ids)
        times = [broker.now(lease_id).timings.queued for lease_id in whole]
        assert times == sorted(times, reverse=descending)
        for limit in (1, 2, 7, 23):
            assert await pages(broker, broker.ann, descending=descending, limit=limit) == whole
    assert len(await pages(broker, broker.ann, 'labels.odd="1"', descending=True, limit=5)) == 11
    assert len(await pages(broker, broker.ann, "state=READY", descending=True, limit=5)) == 4
    assert await pages(broker, broker.bob, descending=True, limit=5) == [foreign]
    assert len(await pages(broker, broker.ops, descending=True, limit=5)) == 24
    with pytest.raises(NotFound):
        await broker.core.leases.get(broker.bob, ids[0])
    assert (await broker.core.leases.get(broker.ops, ids[0])).lease.id == ids[0]


async def test_pages_stay_in_step_while_leases_come_and_go(broker):
    ids = []
    for _ in range(10):
        ids.append(await broker.lease(mode=LeaseMode.LOCAL))
        await broker.passes(1)
    first = await broker.core.leases.list(broker.ann, parse_filter(""), descending=True, after=None, limit=4)
    await asyncio.gather(*[broker.lease(mode=LeaseMode.LOCAL) for _ in range(5)])
    rest = await broker.core.leases.list(
        broker.ann, parse_filter(""), descending=True, after=first.next_after, limit=100
    )
    assert [view.lease.id for view in (*first.views, *rest.views)] == ids[::-1]


async def test_queues_and_profiles_are_listed(broker):
    await broker.ready(cores=3)
    await broker.lease(cores=2)
    (queue,) = broker.core.leases.queues(broker.ann)
    assert (queue.admitted, queue.queued, queue.used["cpu"], queue.nominal["cpu"]) == (1, 1, 3000, 4000)
    assert "core" in queue.blocking_message
    (profile,) = broker.core.leases.profiles(broker.ann)
    assert profile.profile.name == "default"
    assert profile.unusable == ""


async def test_logs_of_each_attempt(broker):
    broker.machine.failures = []
    lease_id = await broker.ready()
    driver = broker.driver(lease_id)
    broker.machine.write_log(driver.id, b"hello\n")
    chunks = [
        chunk.data
        async for chunk in broker.core.leases.logs(
            broker.ann, lease_id, offset=0, tail_lines=0, follow=False, attempt=0
        )
    ]
    assert b"".join(chunks).endswith(b"hello\n")
    broker.machine.executor_logs[driver.id] = {"exec-1": b"one\ntwo\n", "exec-2": b"three\n"}
    everyone = [
        (chunk.source, chunk.data)
        async for chunk in broker.core.leases.logs(
            broker.ann, lease_id, offset=8, tail_lines=0, follow=False, attempt=0, executors={"exec-1": 4, "exec-2": 6}
        )
    ]
    assert everyone == [("exec-1", b"two\n"), ("", b"hello\n")]
