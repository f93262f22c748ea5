"""Watches: what is told is exactly what is stored, in its order, over any interleaving."""

import asyncio
import random
from contextlib import aclosing
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparkbroker.broker.app import events, watching
from sparkbroker.broker.domain.errors import Compacted, InvalidField, NotFound
from sparkbroker.broker.domain.lease.filter import parse_filter
from sparkbroker.broker.domain.lease.lease import LeaseMode, LeaseState
from sparkbroker.broker.domain.lease.observation import Phase
from sparkbroker.broker.domain.units import LeaseId, Principal, Revision

ALL = parse_filter("")


class Follower:
    """Follows one lease (or all), is cut off now and then, and resumes from the last revision that it was told."""

    def __init__(self, world, lease_id, chance, selection=ALL):
        self.world, self.lease_id, self.chance, self.selection = world, lease_id, chance, selection
        self.last, self.told, self.resumed = 0, [], 0
        self.snapshot = None
        self.ended = False

    async def run(self):
        while not self.ended:
            self.ended = await self.once()
            self.resumed += 1

    async def once(self):
        leases, ann = self.world.core.leases, self.world.ann
        if self.lease_id is None:
            updates = leases.watch_all(ann, self.selection, self.last)
        else:
            updates = leases.watch(ann, self.lease_id, self.last)
        async with aclosing(updates):
            async for update in updates:
                self.note(update)
                if self.chance.random() < 0.3:
                    await asyncio.sleep(self.chance.random() * 3)  # it can't keep up
                if self.last and self.chance.random() < 0.15:
                    return False
        return True

    def note(self, update):
        assert update.revision >= self.last
        self.last = update.revision
        if update.snapshot is not None:
            assert self.snapshot is None
            self.snapshot = update.snapshot.lease
        if update.event is not None:
            assert update.event.revision == update.revision
            self.told.append(update.event)


@pytest.mark.promise(14)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), backlog=st.sampled_from([1, 3, 256]), page=st.sampled_from([1, 2, 500]))
def test_nothing_is_lost_repeated_or_reordered(virtual, seed, backlog, page):
    async def scenario(world):
        chance = random.Random(seed)
        await world.start()
        follower_of_all = Follower(world, None, chance)
        follower_of_some = Follower(world, None, chance, parse_filter("key=k1 AND labels.team!=x"))
        follower_of_none = Follower(world, None, chance, parse_filter("key=nothing"))
        everything = [world.spawn(each.run()) for each in (follower_of_all, follower_of_some, follower_of_none)]
        await asyncio.sleep(0.1)
        first = world.core.authority.commits.durable
        followers: list[Follower] = []
        ids: list[LeaseId] = []
        for _ in range(chance.randrange(3, 12)):
            mode = chance.choice([LeaseMode.LOCAL, LeaseMode.CONNECT])
            key = f"k{len(ids)}" if chance.random() < 0.5 else ""
            ids.append(await world.lease(mode=mode, cores=chance.choice([1, 2, 4]), wait_ttl=86400, key=key))
            for _ in range(2):
                followers.append(Follower(world, ids[-1], chance))
                world.spawn(followers[-1].run())
            for _ in range(chance.randrange(4)):
                lease = world.now(chance.choice(ids))
                if lease.live:
                    await world.attach(lease.id)
            await asyncio.sleep(chance.random())
        for lease_id in ids:
            await world.release(lease_id)
            await asyncio.sleep(chance.random())
        for lease_id in ids:
            await world.until(lambda lease_id=lease_id: world.now(lease_id).terminal)
        await world.until(lambda: all(follower.ended for follower in followers))
        await world.until(
            lambda: (
                follower_of_all.told
                and follower_of_all.told[-1].state is LeaseState.RELEASED
                and follower_of_all.last >= world.stored_events()[-1].revision
            )
        )
        for follower in followers:
            assert follower.snapshot is not None
            stored = [e.told for e in world.stored_events(follower.lease_id) if e.revision > follower.snapshot.revision]
            assert follower.told == stored
        await world.until(lambda: follower_of_none.last >= world.stored_events()[-1].revision)
        await world.until(lambda: follower_of_some.last >= world.stored_events()[-1].revision)
        assert follower_of_all.told == [e.told for e in world.stored_events() if e.revision > first]
        assert follower_of_some.told == [e.told for e in world.stored_events() if e.revision > first and e.key == "k1"]
        assert not follower_of_none.told
        for each in everything:
            each.cancel()
        await asyncio.gather(*everything, return_exceptions=True)
        assert repr(world.core.events) == "<Events [0 watches of leases, 0 of all]>"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "BACKLOG", backlog)
        patch.setattr(watching, "PAGE", page)
        virtual.run(scenario)


TEXT = st.sampled_from(["", "a", "b"])
FIELDS = st.sampled_from(["key", "principal", "queue", "profile", "labels.team", "labels.env", "state"])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    terms=st.lists(st.tuples(FIELDS, st.sampled_from(["=", "!="]), TEXT), max_size=4),
    principal=st.sampled_from([None, "a", "b"]),
    event=st.fixed_dictionaries(dict.fromkeys(("principal", "queue", "profile", "key"), TEXT)),
    labels=st.dictionaries(st.sampled_from(["team", "env"]), TEXT),
)
def test_whoever_wants_an_event_is_found_by_it(virtual, terms, principal, event, labels):
    text = " AND ".join(
        f'{field}{operator}"{value}"' if field != "state" else "state=READY" for field, operator, value in terms
    )
    interest = events.Interest(principal=principal, selection=parse_filter(text))
    event = SimpleNamespace(**event, labels=labels, lease_id="l", told="what is told of it")

    async def scenario(_):
        told = events.Events()
        subscription = told.subscribe(Principal("a"), interest)
        told.committed([event], Revision(1))
        assert subscription.take() == ([event.told] if interest.wants(event) else [])
        told.unsubscribe(interest, subscription)
        assert repr(told) == "<Events [0 watches of leases, 0 of all]>"

    virtual.run(scenario)


@pytest.mark.parametrize("resumed", [True, False])
async def test_what_a_client_does_not_take_is_small_however_large_its_labels_are(broker, resumed):
    """Both of what is in memory and of what is read from the store: thousands of watches may hold it."""
    labels = {f"l{number}": "x" * 256 for number in range(60)}
    await broker.ready(mode=LeaseMode.LOCAL)
    begin = broker.core.authority.commits.revision if resumed else Revision(0)
    if resumed:
        lease_id = await broker.ready(labels=labels, mode=LeaseMode.LOCAL)
    watch = broker.core.leases.watch_all(broker.ann, parse_filter("labels.l1=" + "x" * 256), begin)
    async with aclosing(watch):
        await anext(watch)
        if not resumed:
            lease_id = await broker.ready(labels=labels, mode=LeaseMode.LOCAL)
        for _ in range(2):
            event = (await anext(watch)).event
            assert (event.lease_id, event.principal, event.labels) == (lease_id, "ann", {})


async def test_a_watch_that_nothing_concerns_is_not_woken_and_learns_the_revision_all_the_same(broker, monkeypatch):
    woken, told = [], []
    wake = events.Subscription.wake

    def noted(subscription):
        woken.append(subscription)
        wake(subscription)

    monkeypatch.setattr(events.Subscription, "wake", noted)

    async def follow(selection, caller):
        async for update in broker.core.leases.watch_all(caller, parse_filter(selection), 0):
            told.append(update)  # noqa: PERF401 - seen as they come

    for selection in ("key=nothing", "labels.team=x", "queue=another", "profile!=default AND key=nothing"):
        broker.spawn(follow(selection, broker.ann))
    broker.spawn(follow("", broker.bob))
    await broker.passes(0.1)
    assert len(told) == 5
    for _ in range(3):
        await broker.lease(mode=LeaseMode.LOCAL)
        await broker.passes(1)
    assert not woken
    assert len(told) == 5
    await broker.passes(watching.QUIET)
    assert len(told) == 10
    assert {update.revision for update in told[5:]} == {broker.core.authority.commits.durable}
    assert {update.event for update in told} == {None}
    await broker.passes(3 * watching.QUIET)
    assert len(told) == 10, "nothing has changed since"


@pytest.mark.promise(14)
async def test_a_watch_resumes_over_a_crash(broker):
    lease_id = await broker.ready()
    last = 0
    async for update in broker.core.leases.watch(broker.ann, lease_id, 0):
        last = update.revision
        break
    await broker.crash()
    await broker.start()
    await broker.attach(lease_id)
    await broker.release(lease_id)
    told = [update.event async for update in broker.core.leases.watch(broker.ann, lease_id, last)]
    assert told == [e.told for e in broker.stored_events(lease_id) if e.revision > last]
    assert told[-1].state is LeaseState.RELEASED


@pytest.mark.promise(14)
@pytest.mark.parametrize("of", ["one", "all"])
async def test_what_was_compacted_is_said(world, of):
    world.retention = type(world.retention)(event_count=10)
    await world.start()
    lease_id = await world.ready(mode=LeaseMode.LOCAL)
    early = world.now(lease_id).revision
    for _ in range(20):
        await world.attach(lease_id)
    await world.until(lambda: world.database.compacted_through > early)
    leases = world.core.leases
    updates = leases.watch(world.ann, lease_id, early) if of == "one" else leases.watch_all(world.ann, ALL, early)
    with pytest.raises(Compacted):
        await anext(updates)
    through = world.database.compacted_through
    updates = leases.watch(world.ann, lease_id, through) if of == "one" else leases.watch_all(world.ann, ALL, through)
    await anext(updates)
    await updates.aclose()
    # Who falls behind while it is compacted is told so too.
    slow = leases.watch(world.ann, lease_id, 0) if of == "one" else leases.watch_all(world.ann, ALL, 0)
    await anext(slow)
    for _ in range(events.BACKLOG + 50):
        await world.attach(lease_id)
    before = world.core.authority.commits.revision - 20
    await world.until(lambda: world.database.compacted_through > before)
    with pytest.raises(Compacted):
        _ = [update async for update in slow]


async def test_a_revision_of_the_future_is_refused(broker):
    lease_id = await broker.ready()
    future = broker.core.authority.commits.revision + 1
    with pytest.raises(InvalidField):
        await anext(broker.core.leases.watch(broker.ann, lease_id, future))
    with pytest.raises(InvalidField):
        await anext(broker.core.leases.watch_all(broker.ann, ALL, future))


async def test_watching_what_has_ended(broker):
    lease_id = await broker.ready()
    await broker.release(lease_id)
    lease = await broker.state(lease_id, LeaseState.RELEASED)
    updates = [update async for update in broker.core.leases.watch(broker.ann, lease_id, 0)]
    assert [update.snapshot.lease for update in updates] == [lease]
    assert [update async for update in broker.core.leases.watch(broker.ann, lease_id, lease.revision)] == []


async def test_a_watch_sees_what_the_caller_may_see(broker):
    mine, theirs = await broker.lease(mode=LeaseMode.LOCAL), await broker.lease(caller=broker.bob, mode=LeaseMode.LOCAL)
    with pytest.raises(NotFound):
        broker.core.leases.watch(broker.bob, mine, 0)
    told: dict[str, set[str]] = {}
    for name, caller in (("ann", broker.ann), ("bob", broker.bob), ("ops", broker.ops)):
        told[name] = set()

        async def follow(name=name, caller=caller):
            async for update in broker.core.leases.watch_all(caller, ALL, 1):
                told[name] |= {update.event.lease_id} if update.event else set()

        broker.spawn(follow())
    await broker.passes(1)
    assert told == {"ann": {mine}, "bob": {theirs}, "ops": {mine, theirs}}


async def test_progress_is_told_while_waiting(broker):
    blockers = [await broker.ready(cores=1, unattended_ttl=3600) for _ in range(4)]
    ahead = await broker.lease(cores=1)
    await broker.passes(1)
    lease_id = await broker.lease(cores=1)
    positions = []

    async def follow():
        async for update in broker.core.leases.watch(broker.ann, lease_id, 0):
            if update.snapshot is not None:
                positions.append(update.snapshot.progress.position)
            if update.progress is not None:
                positions.append(update.progress.position)
                assert update.event is None

    broker.spawn(follow())
    await broker.passes(5)
    await broker.release(ahead)
    await broker.passes(5)
    assert [p for i, p in enumerate(positions) if i == 0 or positions[i - 1] != p] == [2, 1]
    assert not [e for e in broker.stored_events(lease_id) if e.type != "STATE"]
    await broker.release(blockers[0])
    await broker.state(lease_id, LeaseState.READY)


@pytest.mark.promise(14)
async def test_the_last_event_of_a_lease_that_is_dropped_at_once_is_told(world):
    world.retention = type(world.retention)(terminal_count=0)
    await world.start()
    told = []

    async def follow(lease_id):
        async for update in world.core.leases.watch(world.ann, lease_id, 0):
            told.append(update.event and update.event.state)  # noqa: PERF401 - seen as they come

    lease_id = await world.lease(mode=LeaseMode.LOCAL)
    following = world.spawn(follow(lease_id))
    await world.passes(0.5)
    world.store.pause()
    world.spawn(world.release(lease_id))
    await asyncio.sleep(0)
    world.core._janitor.sweep()
    for subscriptions in world.core.events._of_lease.values():
        for subscription in subscriptions:
            subscription.wake()
    await world.passes(1)
    world.store.resume()
    await asyncio.wait([following], timeout=5)
    assert told[-1] is LeaseState.RELEASED


async def test_the_phases_of_a_start_are_told_while_it_lasts(broker):
    broker.machine.automatic = False
    lease_id = await broker.lease()
    told = []

    async def follow():
        async for update in broker.core.leases.watch(broker.ann, lease_id, 0):
            if update.progress is not None:
                told.append(update.progress.message)
            if update.event is not None and update.event.state is LeaseState.READY:
                return

    following = broker.spawn(follow())
    await broker.state(lease_id, LeaseState.PROVISIONING)
    driver = broker.driver(lease_id).id
    for phase in (Phase.STARTING, Phase.PORT_OPEN, Phase.READY):
        await broker.until(lambda: driver in broker.machine.drivers)
        broker.machine.set(driver, phase, now=1.0)
        await broker.passes(2)
    await following
    assert told[-2:] == [
        "its process runs; Spark is starting in it",
        "its port is open; the first call to it is under way",
    ]


async def test_what_holds_a_start_up_is_told_while_it_lasts(broker):
    """As a pod's way: to whom watches as to whom reads, and its timings with the lease."""
    broker.machine.automatic = False
    lease_id = await broker.lease()
    await broker.until(broker.machine.living)
    driver, admitted = broker.driver(lease_id).id, broker.now(lease_id).timings.admitted
    created = msgspec.structs.replace(broker.machine.drivers[driver], process_started=None, message="no node yet")
    pulling = msgspec.structs.replace(
        created, pod_scheduled=admitted + 3, sandbox_ready=admitted + 4, message="node1 pulls its images"
    )
    running = msgspec.structs.replace(
        created, pod_scheduled=admitted + 3, process_started=admitted + 4, message="node1 falls silent"
    )
    told = set()

    async def follow():
        async for update in broker.core.leases.watch(broker.ann, lease_id, 0):
            if update.progress is not None:
                told.add(update.progress.message)

    broker.spawn(follow())
    for seen, message in (
        (created, "the driver is being created: no node yet"),
        (pulling, "the driver is being created: node1 pulls its images"),
        (running, "its process runs; Spark is starting in it: node1 falls silent"),
    ):
        broker.machine.add(seen)
        await broker.until(lambda message=message: message in told, message)
        assert broker.now(lease_id).message == message
    broker.machine.set(driver, Phase.READY, now=admitted + 9)
    await broker.state(lease_id, LeaseState.READY)
    timings = broker.stored(lease_id).timings
    moments = (timings.pod_scheduled, timings.sandbox_ready, timings.process_started, timings.port_open, timings.ready)
    assert [moment - admitted for moment in moments] == [3, 4, 4, 9, 9]
