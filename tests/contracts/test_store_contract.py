"""What every store promises: the same tests over SQLite and over memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparkbroker.broker.adapters.memory_store import MemoryDatabase, MemoryStore
from sparkbroker.broker.adapters.sql_store import SqlStore
from sparkbroker.broker.domain.errors import Compacted, Unavailable
from sparkbroker.broker.domain.units import Epoch, Revision, ServingTime, WallTime
from sparkbroker.broker.ports.store import (
    EVENT_PAGE_BYTES,
    Batch,
    Committed,
    Deposed,
    EventPage,
    EventRecord,
    Loaded,
    RequestRecord,
    RowImage,
    RowKind,
    Store,
    StoredRow,
)


class Brokers:
    """Stores over one database: each call of it is another broker, or the same one after a restart."""

    def __init__(self, make: Callable[[], Store]) -> None:
        self._make = make
        self._made: list[Store] = []

    def __call__(self) -> Store:
        store = self._make()
        self._made.append(store)
        return store

    async def close(self) -> None:
        for store in self._made:
            await store.close()


def brokers_over(adapter: str, folder: Path) -> Brokers:
    if adapter == "sqlite":
        return Brokers(lambda: SqlStore(folder / "broker.db"))
    database = MemoryDatabase()
    return Brokers(lambda: MemoryStore(database))


@pytest.fixture(params=["sqlite", "memory"])
async def brokers(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Brokers]:
    made = brokers_over(request.param, tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def store(brokers: Brokers) -> Store:
    return brokers()


def row(
    name: str, revision: int, expected: int = 0, body: bytes | None = b"{}", kind: RowKind = RowKind.LEASE
) -> RowImage:
    return RowImage(kind, name, Revision(revision), Revision(expected), body)


async def answered(store: Store) -> list[RequestRecord]:
    """All of them, read two at a time."""
    found: list[RequestRecord] = []
    after: int | None = 0
    while after is not None:
        page = await store.answered(after, 2)
        assert len(page.requests) == 2 or page.next_after is None
        found += page.requests
        after = page.next_after
    return found


async def test_sizes_of_events_are_those_of_what_is_kept(store):
    epoch = await store.lead()
    assert await store.event_sizes() == []
    events = tuple(event(revision) for revision in (1, 2, 999, 1000, 5000))
    await store.commit(epoch, Batch(revision=Revision(5000), serving=ServingTime(1.0), events=events))
    sizes = await store.event_sizes()
    assert [revision for revision, _ in sizes] == sorted(revision for revision, _ in sizes)
    assert sizes[-1] == (5000, len(events[-1].body))
    assert sum(size for _, size in sizes) == sum(len(each.body) for each in events)
    through = Revision(1000)
    await store.commit(epoch, Batch(revision=Revision(5001), serving=ServingTime(1.0), compact_through=through))
    assert await store.event_sizes() == sizes[-1:]


def event(revision: int, subject: str = "a") -> EventRecord:
    return EventRecord(Revision(revision), subject, b'{"n":%d}' % revision)


def asked(request_id: str, body: bytes | None = b"{}", principal: str = "ann") -> RequestRecord:
    return RequestRecord(principal, request_id, WallTime(1763718000.1234567), body)


def batch(
    revision: int,
    *rows: RowImage,
    events: tuple[EventRecord, ...] = (),
    requests: tuple[RequestRecord, ...] = (),
    serving: float = 0.0,
    compact_through: int | None = None,
) -> Batch:
    return Batch(
        revision=Revision(revision),
        rows=rows,
        events=events,
        requests=requests,
        serving=ServingTime(serving),
        compact_through=None if compact_through is None else Revision(compact_through),
    )


def contents(loaded: Loaded) -> dict[tuple[str, str], tuple[int, bytes]]:
    return {(stored.kind, stored.id): (stored.revision, stored.body) for stored in loaded.rows}


async def commit(store: Store, epoch: Epoch, wanted: Batch) -> None:
    assert await store.commit(epoch, wanted) == Committed(wanted.revision)


async def test_a_new_store_is_empty(store):
    assert await store.lead() == 1
    assert await store.load() == Loaded(
        revision=Revision(0),
        serving=ServingTime(0.0),
        epochs={Epoch(1): ServingTime(0.0)},
        rows=[],
        compacted_through=Revision(0),
    )
    assert await answered(store) == []
    assert await store.room() == ""
    page = await store.events(Revision(0), 10)
    assert page.events == ()
    assert page.complete


async def test_when_leaderships_began_is_remembered(brokers):
    for number, serving in enumerate((5.0, 7.5, 7.5), start=1):
        store = brokers()
        epoch = await store.lead()
        await commit(store, epoch, batch(number, serving=serving))
        await store.close()
    store = brokers()
    await store.lead()
    assert (await store.load()).epochs == {1: 0.0, 2: 5.0, 3: 7.5, 4: 7.5}


async def test_what_is_committed_is_loaded_by_the_next_broker(brokers):
    first = brokers()
    epoch = await first.lead()
    rows = [row("a", 1, kind=kind, body=b'{"kind":"%s"}' % kind.encode()) for kind in RowKind]
    await commit(first, epoch, batch(3, *rows, events=(event(2),), requests=(asked("r1"),), serving=12.345678901234567))
    await first.close()
    second = brokers()
    assert await second.lead() == 2
    loaded = await second.load()
    assert loaded.revision == 3
    assert loaded.serving == 12.345678901234567
    assert sorted(loaded.rows, key=lambda stored: stored.kind) == sorted(
        (StoredRow(kind, "a", Revision(1), b'{"kind":"%s"}' % kind.encode()) for kind in RowKind),
        key=lambda stored: stored.kind,
    )
    assert await answered(second) == [asked("r1")]
    assert (await second.events(Revision(0), 10)).events == (event(2),)


async def test_epochs_grow_with_every_leadership(brokers):
    assert [await brokers().lead() for _ in range(3)] == [1, 2, 3]
    store = brokers()
    assert [await store.lead(), await store.lead()] == [4, 5]


async def test_a_leader_is_deposed_from_the_moment_that_another_leads(brokers):
    old, new = brokers(), brokers()
    old_epoch = await old.lead()
    await commit(old, old_epoch, batch(1, row("a", 1)))
    new_epoch = await new.lead()
    refused = await old.commit(
        old_epoch, batch(2, row("a", 2, 1), events=(event(2),), requests=(asked("r"),), serving=9)
    )
    assert isinstance(refused, Deposed)
    assert f"leadership {old_epoch} is over" in refused.message
    assert await old.commit(old_epoch, batch(2)) == refused
    loaded = await new.load()
    assert (contents(loaded), await answered(new), loaded.serving) == ({("lease", "a"): (1, b"{}")}, [], 0.0)
    await commit(new, new_epoch, batch(2, row("a", 2, 1)))


async def test_a_commit_without_a_leadership_is_deposed(store):
    assert isinstance(await store.commit(Epoch(1), batch(1, row("a", 1))), Deposed)


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (row("a", 5), "lease a"),
        (row("a", 5, 2), "lease a"),
        (row("b", 5, 1), "lease b"),
        (row("a", 5, 2, None), "lease a"),
        (row("b", 5, 1, None), "lease b"),
        (row("a", 5, 0, None), "lease a"),
        (row("a", 5, 1, kind=RowKind.DRIVER), "driver a"),
    ],
)
async def test_a_row_that_is_not_as_expected_refuses_the_whole_batch(store, bad, named):
    epoch = await store.lead()
    await commit(store, epoch, batch(1, row("a", 1), row("z", 1), events=(event(1),), serving=1))
    before = await store.load()
    good = (row("n", 2), row("z", 3, 1))
    for rows in ((*good, bad), (bad, *good)):
        wanted = batch(6, *rows, events=(event(4),), requests=(asked("r"),), serving=2, compact_through=1)
        refused = await store.commit(epoch, wanted)
        assert isinstance(refused, Deposed)
        assert named in refused.message
        assert await store.load() == before
        assert (await store.events(Revision(0), 10)).events == (event(1),)
    await commit(store, epoch, batch(6, *good))


async def test_a_batch_may_change_a_row_more_than_once(store):
    epoch = await store.lead()
    await commit(store, epoch, batch(3, row("a", 1), row("a", 2, 1), row("a", 3, 2, b"[3]")))
    await commit(store, epoch, batch(5, row("a", 4, 3, None), row("a", 5, 0, b"[5]")))
    await commit(store, epoch, batch(7, row("b", 6), row("b", 7, 6, None)))
    assert contents(await store.load()) == {("lease", "a"): (5, b"[5]")}
    assert isinstance(await store.commit(epoch, batch(9, row("a", 8, 5), row("a", 9, 5))), Deposed)
    assert contents(await store.load()) == {("lease", "a"): (5, b"[5]")}


async def test_rows_are_deleted(store):
    epoch = await store.lead()
    await commit(store, epoch, batch(2, row("a", 1), row("b", 2)))
    await commit(store, epoch, batch(3, row("a", 3, 1, None)))
    assert contents(await store.load()) == {("lease", "b"): (2, b"{}")}
    await commit(store, epoch, batch(4, row("a", 4)))
    assert ("lease", "a") in contents(await store.load())


async def test_a_renewal_needs_no_new_revision(store):
    epoch = await store.lead()
    await commit(store, epoch, batch(1, row("a", 1)))
    await commit(store, epoch, batch(1, row("a", 1, 1, b'{"renewed":1}'), serving=5))
    await commit(store, epoch, batch(1, serving=6))
    loaded = await store.load()
    assert contents(loaded) == {("lease", "a"): (1, b'{"renewed":1}')}
    assert (loaded.revision, loaded.serving) == (1, 6)


async def test_revisions_never_go_back(store):
    epoch = await store.lead()
    await commit(store, epoch, batch(5, row("a", 5)))
    refused = await store.commit(epoch, batch(4, row("b", 4)))
    assert isinstance(refused, Deposed)
    assert "goes back to 4" in refused.message
    assert (await store.load()).revision == 5


async def test_an_event_s_revision_is_unique(store):
    epoch = await store.lead()
    await commit(store, epoch, batch(1, events=(event(1),)))
    for events in ((event(2), event(2)), (event(1, "other"),)):
        assert isinstance(await store.commit(epoch, batch(2, row("a", 2), events=events)), Deposed)
    assert (await store.load()).rows == []
    assert (await store.events(Revision(0), 10)).events == (event(1),)


@pytest.mark.promise(14)
async def test_events_come_in_the_order_of_revisions_and_in_pages(store):
    epoch = await store.lead()
    await commit(store, epoch, batch(3, events=(event(3), event(1, "b"), event(2))))
    await commit(store, epoch, batch(5, events=(event(5, "b"), event(4))))
    every = (event(1, "b"), event(2), event(3), event(4), event(5, "b"))
    for limit in range(1, 7):
        seen: list[EventRecord] = []
        complete = False
        while not complete:
            page = await store.events(seen[-1].revision if seen else Revision(0), limit)
            assert len(page.events) <= limit
            assert page.complete or len(page.events) == limit
            seen.extend(page.events)
            complete = page.complete
        assert tuple(seen) == every
    large = tuple(EventRecord(Revision(number), "c", b'"%s"' % (b"x" * 40_000)) for number in range(6, 16))
    await commit(store, epoch, batch(15, events=large))
    pages: list[EventPage] = []
    while not pages or not pages[-1].complete:
        pages.append(await store.events(pages[-1].events[-1].revision if pages else Revision(5), 10))
        assert sum(len(each.body) for each in pages[-1].events) < 2 * EVENT_PAGE_BYTES
    assert tuple(each for page in pages for each in page.events) == large
    assert (await store.events(Revision(1), 10, "b")).events == (event(5, "b"),)
    only = await store.events(Revision(0), 1, "b")
    assert (only.events, only.complete) == ((event(1, "b"),), False)
    assert (await store.events(Revision(0), 2, "b")).complete
    with pytest.raises(ValueError, match="limit"):
        await store.events(Revision(0), 0)


@pytest.mark.promise(14)
async def test_a_reader_that_comes_too_late_is_told(brokers):
    store = brokers()
    epoch = await store.lead()
    await commit(store, epoch, batch(5, events=tuple(event(n) for n in range(1, 6))))
    await commit(store, epoch, batch(6, events=(event(6),), compact_through=3))
    for after in (0, 2):
        with pytest.raises(Compacted, match="up to revision 3") as caught:
            await store.events(Revision(after), 10)
        assert caught.value.metadata == {"compacted_through": "3"}
    assert (await store.events(Revision(3), 10)).events == (event(4), event(5), event(6))
    await commit(store, epoch, batch(7, compact_through=2))
    assert (await store.load()).compacted_through == 3
    with pytest.raises(Compacted):
        await store.events(Revision(2), 10, "nobody")
    await store.close()
    later = brokers()
    await later.lead()
    assert (await later.load()).compacted_through == 3
    with pytest.raises(Compacted):
        await later.events(Revision(0), 10)


async def test_stored_answers_are_written_replaced_and_deleted(store):
    epoch = await store.lead()
    await commit(store, epoch, batch(1, requests=(asked("r1"), asked("r2"), asked("r1", principal="bob"))))
    await commit(store, epoch, batch(2, requests=(asked("r2", None), asked("never", None), asked("r1", b"[2]"))))
    requests = sorted(await answered(store), key=lambda request: request.principal)
    assert requests == [asked("r1", b"[2]"), asked("r1", principal="bob")]
    await commit(store, epoch, batch(3, requests=(asked("r3"), asked("r3", None), asked("r1", None), asked("r1"))))
    assert {request.request_id for request in await answered(store)} == {"r1"}


async def test_bodies_and_names_come_back_as_they_were(store):
    epoch = await store.lead()
    body = b' {"text": "caf\xc3\xa9 \xf0\x9f\x94\xa5 \\u0000 \\" \'", "n": 1e400, "big": 18446744073709551615 } '
    names = ["a b/c", "é🔥", '"quoted"', "'; DROP TABLE rows; --", "back\\slash", "\\u0000", "%s?1"]
    rows = [row(name, number, body=body) for number, name in enumerate(names, 1)]
    await commit(store, epoch, batch(len(names), *rows, requests=tuple(asked(name, body, name) for name in names)))
    loaded = await store.load()
    assert contents(loaded) == {("lease", name): (number, body) for number, name in enumerate(names, 1)}
    assert {(request.principal, request.request_id, request.body) for request in await answered(store)} == {
        (name, name, body) for name in names
    }


@pytest.mark.promise(8)
async def test_a_cancelled_commit_goes_on(brokers):
    store = brokers()
    epoch = await store.lead()
    for revision in range(1, 11):
        waiting = asyncio.get_running_loop().create_task(
            store.commit(epoch, batch(revision, row(f"r{revision}", revision)))
        )
        await asyncio.sleep(0)  # it is at its await now
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await commit(store, epoch, batch(11, row("r1", 11, 1)))
    await store.close()
    later = brokers()
    await later.lead()
    assert {stored.id for stored in (await later.load()).rows} == {f"r{number}" for number in range(1, 11)}


async def test_close_finishes_what_was_begun_and_is_idempotent(brokers):
    store = brokers()
    epoch = await store.lead()
    waiting = asyncio.get_running_loop().create_task(store.commit(epoch, batch(1, row("a", 1))))
    await asyncio.sleep(0)
    await asyncio.gather(store.close(), store.close())
    assert await waiting == Committed(Revision(1))
    await store.close()
    for call in (
        store.lead(),
        store.load(),
        store.answered(0, 2),
        store.commit(epoch, batch(2)),
        store.events(Revision(0), 1),
    ):
        with pytest.raises(Unavailable, match="closed"):
            await call
    later = brokers()
    await later.lead()
    assert contents(await later.load()) == {("lease", "a"): (1, b"{}")}


async def test_events_are_read_while_commits_are_made(store):
    epoch = await store.lead()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for revision in range(1, 51):
            reads = [group.create_task(store.events(Revision(0), 100)) for _ in range(3)]
            await commit(store, epoch, batch(revision, events=(event(revision),)))
            for read in reads:
                revisions = [found.revision for found in (await read).events]
                assert revisions in (list(range(1, revision)), list(range(1, revision + 1)))


_STEP = st.tuples(
    st.sampled_from(["put", "delete", "event", "request", "forget", "compact", "restart", "stale"]),
    st.sampled_from(list(RowKind)),
    st.sampled_from(["a", "b", "c", "dé"]),
    st.recursive(st.none() | st.integers(-(2**53), 2**53) | st.text(max_size=8), st.lists, max_leaves=4),
)


@pytest.mark.parametrize("adapter", ["sqlite", "memory"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(groups=st.lists(st.lists(_STEP, min_size=1, max_size=8), min_size=1, max_size=8))
def test_any_batches_equal_a_model(adapter, groups, tmp_path_factory):
    asyncio.run(_follow_model(brokers_over(adapter, tmp_path_factory.mktemp("store")), groups))


async def _follow_model(brokers: Brokers, groups: list[list[tuple[str, RowKind, str, object]]]) -> None:
    rows: dict[tuple[str, str], tuple[int, bytes]] = {}
    requests: dict[tuple[str, str], bytes] = {}
    events: list[int] = []
    revision = compacted = 0
    store = brokers()
    epoch = await store.lead()
    for number, group in enumerate(groups):
        wanted_rows: list[RowImage] = []
        wanted_events: list[EventRecord] = []
        wanted_requests: list[RequestRecord] = []
        compact: int | None = None
        held = dict(rows)
        stale = False
        for action, kind, name, value in group:
            revision += 1
            body = msgspec.json.encode(value)
            have = held.get((kind, name), (0, b""))[0]
            if action == "put":
                wanted_rows.append(row(name, revision, have, body, kind))
                held[kind, name] = (revision, body)
            elif action == "delete" and have:
                wanted_rows.append(row(name, revision, have, None, kind))
                del held[kind, name]
            elif action == "stale":
                wanted_rows.append(row(name, revision, have + 1000, body, kind))
                stale = True
            elif action == "event":
                wanted_events.append(event(revision, name))
            elif action in {"request", "forget"}:
                wanted_requests.append(asked(name, None if action == "forget" else body, kind))
            elif action == "compact":
                compact = revision - 1
            elif action == "restart":
                await store.close()
                store = brokers()
                epoch = await store.lead()
        result = await store.commit(
            epoch,
            batch(
                revision,
                *wanted_rows,
                events=tuple(wanted_events),
                requests=tuple(wanted_requests),
                serving=float(number),
                compact_through=compact,
            ),
        )
        if stale:
            assert isinstance(result, Deposed)
            continue
        assert result == Committed(Revision(revision))
        rows = held
        for request in wanted_requests:
            if request.body is None:
                requests.pop((request.principal, request.request_id), None)
            else:
                requests[request.principal, request.request_id] = request.body
        compacted = max(compacted, compact or 0)
        events = [known for known in (*events, *(found.revision for found in wanted_events)) if known > compacted]
    await store.close()
    store = brokers()
    await store.lead()
    loaded = await store.load()
    assert contents(loaded) == rows
    assert {(found.principal, found.request_id): found.body for found in await answered(store)} == requests
    assert loaded.compacted_through == compacted
    assert [found.revision for found in (await store.events(Revision(compacted), 1000)).events] == events
    await brokers.close()
