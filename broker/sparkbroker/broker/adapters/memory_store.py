"""A store in memory, for tests and for embedded use where nothing has to survive.

It keeps every promise of ``ports.store`` but durability. Its database is an object of its own: another store over it is
another broker, or the same one after a crash. Faults and pauses can be asked for, to test what they do to others.
"""

import asyncio
import itertools
from bisect import bisect_left, bisect_right, insort
from operator import attrgetter
from typing import Literal

import msgspec

from sparkbroker.broker.domain.errors import Compacted, Unavailable
from sparkbroker.broker.domain.units import Epoch, Revision, ServingTime
from sparkbroker.broker.ports.store import (
    EPOCHS_KEPT,
    EVENT_PAGE_BYTES,
    Batch,
    CommitResult,
    Committed,
    Deposed,
    EventPage,
    EventRecord,
    Loaded,
    RequestPage,
    RequestRecord,
    RowKind,
    StoredRow,
    Unknown,
)

_revision = attrgetter("revision")


class MemoryDatabase:
    """What would be on the disk. It outlives the stores over it."""

    def __init__(self) -> None:
        self.epoch = Epoch(0)
        self.revision = Revision(0)
        self.serving = ServingTime(0.0)
        self.compacted_through = Revision(0)
        self.epochs: dict[Epoch, ServingTime] = {}
        self.rows: dict[tuple[RowKind, str], StoredRow] = {}
        self.events: list[EventRecord] = []
        self.requests: dict[tuple[str, str], RequestRecord] = {}

    def __repr__(self) -> str:
        return f"<MemoryDatabase [revision {self.revision}, {len(self.rows)} rows, {len(self.events)} events]>"

    def apply(self, epoch: Epoch, batch: Batch) -> Committed | Deposed:
        """All of the batch, or nothing."""
        if epoch != self.epoch:
            return Deposed(f"leadership {epoch} is over: leadership {self.epoch} has begun")
        if batch.revision < self.revision:
            return Deposed(f"the store is at revision {self.revision}, and the batch goes back to {batch.revision}")
        rows = self._changed_rows(batch)
        if isinstance(rows, Deposed):
            return rows
        taken: set[Revision] = set()
        for event in batch.events:
            if event.revision in taken or self._has_event(event.revision):
                return Deposed(f"an event's revision is taken ({event.revision}): another broker has written")
            taken.add(event.revision)
        self._write(batch, rows)
        return Committed(batch.revision)

    def _has_event(self, revision: Revision) -> bool:
        place = bisect_left(self.events, revision, key=_revision)
        return place < len(self.events) and self.events[place].revision == revision

    def _changed_rows(self, batch: Batch) -> dict[tuple[RowKind, str], StoredRow | None] | Deposed:
        changed: dict[tuple[RowKind, str], StoredRow | None] = {}
        for row in batch.rows:
            key = (row.kind, row.id)
            held = changed[key] if key in changed else self.rows.get(key)
            revision = 0 if held is None else held.revision
            if revision != row.expected:
                return Deposed(f"{row.kind} {row.id} is at revision {revision}, and {row.expected} was expected")
            changed[key] = None if row.body is None else StoredRow(row.kind, row.id, row.revision, row.body)
        return changed

    def _write(self, batch: Batch, rows: dict[tuple[RowKind, str], StoredRow | None]) -> None:
        for key, row in rows.items():
            if row is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = row
        for event in batch.events:
            insort(self.events, event, key=_revision)
        for request in batch.requests:
            if request.body is None:
                self.requests.pop((request.principal, request.request_id), None)
            else:
                self.requests[request.principal, request.request_id] = request
        through = batch.compact_through or 0
        del self.events[: bisect_right(self.events, through, key=_revision)]
        self.compacted_through = Revision(max(self.compacted_through, through))
        self.revision = batch.revision
        self.serving = batch.serving


CommitFault = Literal["unknown-written", "unknown-lost", "deposed"]
"""What a commit is to end in. ``unknown-…``: as an I/O error would, with the batch written or lost."""


class _Pending(msgspec.Struct, eq=False):
    """A commit under way."""

    epoch: Epoch
    batch: Batch
    future: asyncio.Future[CommitResult]


class MemoryStore:
    """A ``ports.store.Store``. To crash: drop it, with what ``pause`` holds back, and build another one."""

    def __init__(self, database: MemoryDatabase | None = None) -> None:
        self.database = MemoryDatabase() if database is None else database
        self.fail_next_commit: CommitFault | None = None
        self.full = self.scarce = ""
        """What ``room`` says."""
        self.commits = 0
        """How many batches were written."""
        self._pending: list[_Pending] = []
        self._waiting = asyncio.Event()
        self._paused = False
        self._failure = ""
        self._closed = False

    def __repr__(self) -> str:
        return f"<MemoryStore {self.database!r} [{len(self._pending)} pending{', paused' if self._paused else ''}]>"

    async def lead(self) -> Epoch:
        """See ``ports.store.Store.lead``."""
        self._check_open()
        await asyncio.sleep(0)
        database = self.database
        database.epoch = Epoch(database.epoch + 1)
        database.epochs[database.epoch] = database.serving
        database.epochs.pop(Epoch(database.epoch - EPOCHS_KEPT), None)
        return database.epoch

    async def load(self) -> Loaded:
        """See ``ports.store.Store.load``."""
        self._check_open()
        await asyncio.sleep(0)
        database = self.database
        return Loaded(
            revision=database.revision,
            serving=database.serving,
            epochs=dict(database.epochs),
            rows=list(database.rows.values()),
            compacted_through=database.compacted_through,
        )

    async def answered(self, after: int, limit: int) -> RequestPage:
        """See ``ports.store.Store.answered``."""
        self._check_open()
        await asyncio.sleep(0)
        requests = list(self.database.requests.values())
        more = len(requests) > after + limit
        return RequestPage(tuple(requests[after : after + limit]), after + limit if more else None)

    async def events(self, after: Revision, limit: int, subject: str | None = None) -> EventPage:
        """See ``ports.store.Store.events``."""
        if limit < 1:
            raise ValueError(f"limit: {limit} is not a number of events; it must be at least 1")
        self._check_open()
        await asyncio.sleep(0)
        database = self.database
        if after < database.compacted_through:
            raise Compacted(
                f"the events up to revision {database.compacted_through} are no longer kept, and those after {after} "
                "were asked for; read the leases again, and watch from the revision that this tells",
                compacted_through=str(database.compacted_through),
            )
        later = database.events[bisect_right(database.events, after, key=_revision) :]
        found = [event for event in later if subject is None or event.subject == subject]
        sizes = list(itertools.accumulate(len(event.body) for event in found[:limit]))
        count = min(limit, bisect_left(sizes, EVENT_PAGE_BYTES) + 1)
        return EventPage(tuple(found[:count]), complete=len(found) <= count)

    async def event_sizes(self) -> list[tuple[Revision, int]]:
        """See ``ports.store.Store.event_sizes``."""
        self._check_open()
        await asyncio.sleep(0)
        return [(event.revision, len(event.body)) for event in self.database.events]

    async def commit(self, epoch: Epoch, batch: Batch) -> CommitResult:
        """See ``ports.store.Store.commit``."""
        self._check_open()
        loop = asyncio.get_running_loop()
        pending = _Pending(epoch, batch, loop.create_future())
        self._pending.append(pending)
        self._waiting.set()
        # Not at once: as with a real store, others run between the call and its result.
        loop.call_soon(self._proceed)
        return await pending.future

    async def room(self, *, to_use: bool = False) -> str:
        """See ``ports.store.Store.room``."""
        self._check_open()
        await asyncio.sleep(0)
        return self.scarce if to_use else self.full

    async def close(self) -> None:
        """See ``ports.store.Store.close``. What is paused is finished."""
        self.resume()
        self._closed = True
        await asyncio.sleep(0)

    def pause(self) -> None:
        """Hold back every commit from now on, until ``resume``."""
        self._paused = True

    def resume(self) -> None:
        """Finish what was held back, in its order."""
        self._paused = False
        self._proceed()

    async def commit_waiting(self) -> None:
        """Wait until a commit is under way."""
        await self._waiting.wait()

    def _proceed(self) -> None:
        if self._paused:
            return
        pending, self._pending = self._pending, []
        self._waiting.clear()
        for one in pending:
            result = self._result(one)
            if not one.future.done():
                one.future.set_result(result)

    def _result(self, pending: _Pending) -> CommitResult:
        if self._failure:
            return Unknown(self._failure)
        fault, self.fail_next_commit = self.fail_next_commit, None
        if fault == "deposed":
            return Deposed("another leadership has begun")
        if fault == "unknown-lost":
            self._failure = "an injected fault"
            return Unknown(self._failure)
        result = self.database.apply(pending.epoch, pending.batch)
        self.commits += isinstance(result, Committed)
        if fault == "unknown-written":
            self._failure = "an injected fault"
            return Unknown(self._failure)
        return result

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the store is closed: the broker is stopping")
