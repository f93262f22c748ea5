"""What is kept, for how long, and in which order it is forgotten; lists of what is kept."""

import asyncio
import json
import uuid

import msgspec
import pytest

from sparkbroker.broker.app import event_log
from sparkbroker.broker.app.allowance import Allowance
from sparkbroker.broker.app.janitor import Retention
from sparkbroker.broker.domain.errors import Compacted, InvalidField, NotFound, ProvisionerFailed, TooMany
from sparkbroker.broker.domain.lease.driver import DriverState
from sparkbroker.broker.domain.lease.filter import parse_filter
from sparkbroker.broker.domain.lease.lease import LeaseMode, LeaseState
from sparkbroker.broker.domain.lease.observation import Phase
from sparkbroker.broker.domain.units import Seconds
from sparkbroker.broker.ports.metrics import NoMetrics
from sparkbroker.broker.ports.store import RowKind


class Counted(NoMetrics):
    """Counts refusals for a limit."""

    def __init__(self):
        self.limits = {}

    def limited(self, limit):
        self.limits[limit] = self.limits.get(limit, 0) + 1


async def ended(world, caller=None, **spec):
    caller = caller or world.ann
    lease_id = await world.ready(caller=caller, **spec)
    await world.release(lease_id, caller=caller)
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
    assert list(world.core.authority.ended.of(world.ann.principal)) == ids[-2:], "in the order in which they ended"
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


async def test_leases_that_have_ended_are_kept_for_their_time_of_serving_whatever_the_wall_clock_does(world):
    world.retention = Retention(terminal_age=Seconds(50.0))
    await world.start()
    await world.ready(mode=LeaseMode.LOCAL, unattended_ttl=86_400)  # while one is live, the clock is stored
    lease_id = await ended(world)
    for change in (8 * 86_400, -20 * 86_400):
        world.clock.set_wall(change)
        await world.passes(20)
        assert lease_id in world.core.authority.leases
    await world.crash()
    world.clock.jump(86_400)
    await world.start()
    assert lease_id in world.core.authority.leases, "an outage ages nothing"
    await world.passes(20)
    assert lease_id not in world.core.authority.leases


async def test_leases_that_an_earlier_version_ended_are_as_old_as_they_say(world):
    world.retention = Retention(terminal_age=Seconds(50.0))
    await world.start()
    old, young = [await ended(world) for _ in range(2)]
    await world.crash()
    for lease_id, seconds in ((old, 40), (young, 20)):
        key = next(key for key, row in world.database.rows.items() if row.id == lease_id)
        stored = json.loads(world.database.rows[key].body)
        del stored["ended"]
        stored["timings"]["ended"] -= seconds
        world.database.rows[key] = msgspec.structs.replace(world.database.rows[key], body=json.dumps(stored).encode())
    await world.start()
    await world.passes(20)
    assert list(world.core.authority.ended.of(world.ann.principal)) == [young]


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


async def test_events_are_bounded_by_their_bytes_too_and_a_watch_is_told(world, monkeypatch):
    monkeypatch.setattr(event_log, "STRETCH", 2_000)
    world.retention = Retention(event_bytes=50_000)
    await world.start()
    lease_id = await world.ready(mode=LeaseMode.LOCAL, labels={f"l{n}": "x" * 250 for n in range(10)})
    for _ in range(3):
        for _ in range(30):
            await world.attach(lease_id)
        assert sum(len(event.body) for event in world.database.events) > 60_000
        await world.crash()  # what was there counts after a start, too
        await world.start()
        await world.passes(3)
        assert 40_000 < sum(len(event.body) for event in world.database.events) <= 50_000
    with pytest.raises(Compacted):
        await anext(world.core.leases.watch(world.ann, lease_id, 1))
    assert world.now(lease_id).state is LeaseState.READY


async def request(world, caller=None, **spec):
    """A request whose lease ends at once; its id."""
    request_id = str(uuid.uuid4())
    caller = caller or world.ann
    lease_id = await world.lease(caller=caller, mode=LeaseMode.LOCAL, request_id=request_id, **spec)
    await world.release(lease_id, caller=caller)
    return request_id


async def test_answers_are_kept_for_their_time_of_serving_whatever_the_wall_clock_does(world):
    world.retention = Retention(request_age=Seconds(50.0))
    await world.start()
    await world.ready(mode=LeaseMode.LOCAL, unattended_ttl=86_400, request_id="")
    first = await request(world)
    for change in (86_400, -2 * 86_400):
        world.clock.set_wall(change)
        await world.passes(20)
        assert len(world.database.requests) == 1
    assert (await world.acquire(mode=LeaseMode.LOCAL, request_id=first)).view.lease.terminal
    await world.crash()
    world.clock.jump(86_400)
    await world.start()
    assert len(world.core.authority.requests) == 1, "an outage ages nothing"
    await world.passes(20)
    assert len(world.core.authority.requests) == len(world.database.requests) == 0


@pytest.mark.promise(8)
async def test_who_makes_too_many_requests_is_refused_and_nothing_that_was_promised_is_forgotten(world):
    world.retention = Retention(request_age=Seconds(50.0))
    world.allowance = Allowance(requests=10)
    world.metrics = counted = Counted()
    await world.start()
    foreign = await request(world, world.bob)
    first = await request(world)
    await world.passes(20)
    for _ in range(9):
        await request(world)
    for _ in range(3):
        before = len(world.core.authority.leases)
        with pytest.raises(
            TooMany, match=r"10 remembered requests .*requests_per_principal\): try again in [23][0-9] s"
        ) as caught:
            await request(world)
        assert 25 < (caught.value.retry_after or 0) <= 33
        assert len(world.core.authority.leases) == before, "nothing is done"
        await world.stop()
        await world.start()
    assert counted.limits == {"requests_per_principal": 3}
    for caller, request_id in ((world.bob, foreign), (world.ann, first)):
        again = await world.acquire(caller, mode=LeaseMode.LOCAL, request_id=request_id)
        assert again.view.lease.terminal, "the first one's answer"
    lease_id = await world.ready(caller=world.bob, mode=LeaseMode.LOCAL)
    await world.attach(lease_id, world.bob)
    await world.lease(mode=LeaseMode.LOCAL, request_id="")
    await world.passes(caught.value.retry_after)
    await request(world)
    world.check()


async def test_an_answer_of_an_earlier_version_is_kept_for_its_whole_time(world):
    world.retention = Retention(request_age=Seconds(50.0))
    await world.start()
    first = await request(world, key="k" * 100)
    await world.stop()
    ((key, record),) = world.database.requests.items()
    old = msgspec.json.decode(record.body)
    del old["served"]
    assert old["fingerprint"].endswith("k" * 100)
    world.database.requests[key] = msgspec.structs.replace(record, body=msgspec.json.encode(old))
    await world.start()
    await world.passes(45)
    assert (await world.acquire(mode=LeaseMode.LOCAL, request_id=first, key="k" * 100)).view.lease.terminal
    await world.passes(10)
    assert not world.database.requests


async def test_who_ends_many_leases_ends_nobody_elses_history(world):
    world.retention = Retention(terminal_count=10)
    await world.start()
    mine = [await ended(world, caller=world.bob, mode=LeaseMode.LOCAL) for _ in range(5)]
    for _ in range(40):
        await request(world)
    await world.until(lambda: len(world.core.authority.leases) == 10)
    assert list(world.core.authority.ended.of(world.bob.principal)) == mine
    await world.crash()
    await world.start()
    assert list(world.core.authority.ended.of(world.bob.principal)) == mine
    world.check()


async def test_what_has_ended_is_bounded_by_its_bytes_too(world):
    size = 20_000
    world.retention = Retention(terminal_bytes=3 * size)
    await world.start()
    small = await ended(world, caller=world.bob, mode=LeaseMode.LOCAL)
    for number in range(10):
        await request(world, labels={f"l{n}": f"{number} " + "x" * 250 for n in range(60)})
    await world.until(lambda: world.core.authority.ended.size <= 3 * size)
    await world.settled()
    assert small in world.core.authority.leases
    kept = [row for row in world.database.rows.values() if row.kind is RowKind.SPEC]
    assert 2 <= len(kept) <= 4
    assert sum(len(row.body) for row in world.database.rows.values()) < 4 * size
    world.check()


async def test_equal_specs_are_kept_once_and_as_long_as_a_lease_has_them(world):
    def specs():
        return [row for row in world.database.rows.values() if row.kind is RowKind.SPEC]

    world.retention = Retention(terminal_count=1)
    await world.start()
    first = await ended(world, mode=LeaseMode.LOCAL, labels={"a": "b"})
    second = await world.ready(mode=LeaseMode.LOCAL, labels={"a": "b"})
    await ended(world, mode=LeaseMode.LOCAL)
    await world.until(lambda: first not in world.core.authority.leases)
    await world.settled()
    assert len(specs()) == 2
    await world.crash()
    await world.start()
    world.check()
    await world.release(second)
    await world.until(lambda: len(world.core.authority.leases) == 1)
    await world.settled()
    assert [msgspec.json.decode(row.body)["labels"] for row in specs()] == [{"a": "b"}]
    again = await world.ready(mode=LeaseMode.LOCAL)
    assert world.stored(again) == world.now(again)
    world.check()


async def test_a_lease_of_an_earlier_version_holds_its_spec_itself(world):
    await world.start()
    ids = [await world.ready(mode=LeaseMode.LOCAL, labels={"a": "b"}) for _ in range(2)]
    before = [world.now(lease_id) for lease_id in ids]
    await world.crash(lose=False)
    for lease in before:
        row = world.database.rows[RowKind.LEASE, lease.id]
        inline = msgspec.json.encode(msgspec.structs.replace(lease, spec_id=""))
        old = {key: value for key, value in msgspec.json.decode(inline).items() if key != "spec_id"}
        world.database.rows[RowKind.LEASE, lease.id] = msgspec.structs.replace(row, body=msgspec.json.encode(old))
    for key in [key for key in world.database.rows if key[0] is RowKind.SPEC]:
        del world.database.rows[key]
    for _ in range(2):
        await world.start()
        assert [world.now(lease_id).spec for lease_id in ids] == [lease.spec for lease in before]
        world.check()
        await world.stop()
    await world.start()
    await world.release(ids[0])
    assert world.stored(ids[0]) == world.now(ids[0])


async def test_a_spec_is_bounded_and_so_are_all_of_a_principals(world):
    world.allowance = Allowance(spec_bytes=10_000, live_spec_bytes=20_000)
    world.metrics = counted = Counted()
    await world.start()
    with pytest.raises(
        InvalidField, match=r"spec: takes 1[0-9]{4} bytes .*it may take 10000 \(leases.max_spec_bytes\)"
    ):
        await world.lease(labels={f"l{n}": "x" * 250 for n in range(50)})

    def labels(number):
        return {f"l{n}": f"{number} " + "x" * 240 for n in range(30)}

    first = await world.lease(mode=LeaseMode.LOCAL, labels=labels(0))
    for _ in range(2):
        await world.lease(mode=LeaseMode.LOCAL, labels=labels(1))
    with pytest.raises(TooMany, match=r"the specs of ann's live leases would take 2[0-9]{4} bytes with this one"):
        await world.lease(mode=LeaseMode.LOCAL, labels=labels(2))
    await world.lease(caller=world.bob, mode=LeaseMode.LOCAL, labels=labels(2))
    assert counted.limits == {"spec_bytes": 1, "live_spec_bytes_per_principal": 1}
    await world.release(first)
    await world.lease(mode=LeaseMode.LOCAL, labels=labels(2))
    world.check()


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
