"""Group commit: what was changed since the last transaction, and the one task that writes it.

Promises: changes of one loop iteration commit together or not at all; ``settle`` returns only when all up to its revision
is durable; after a commit that failed nothing more is accepted, and ``run`` raises. Observers hear of what is committed
alone, in the order of revisions.
"""

import asyncio
from collections import deque
from typing import Final, Protocol

import msgspec
import structlog

from sparkbroker.broker.app import records
from sparkbroker.broker.app.event_log import EventLog
from sparkbroker.broker.app.serving import ServingClock
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.errors import Unavailable
from sparkbroker.broker.domain.lease.driver import Driver
from sparkbroker.broker.domain.lease.event import LeaseEvent
from sparkbroker.broker.domain.lease.lease import Lease, LeaseSpec
from sparkbroker.broker.domain.units import Epoch, LeaseId, Revision, ServingTime
from sparkbroker.broker.ports.clock import Clock
from sparkbroker.broker.ports.metrics import Metrics
from sparkbroker.broker.ports.store import (
    Batch,
    Committed,
    EventRecord,
    Loaded,
    RequestPage,
    RequestRecord,
    RowImage,
    RowKind,
    Store,
)

log = structlog.get_logger()

LINGER: Final = 0.001
"""Seconds that a group waits for more, when the last one was larger than LINGER_FROM: a batch of one waits for none."""
LINGER_FROM: Final = 2
RETRY_AFTER: Final = 1.0
REQUESTS_AT_ONCE: Final = 5_000
"""Stored answers that are read at a time: a megabyte or two."""


class StoreLost(Exception):
    """A commit failed: this broker has to end, and the next leadership recovers from the store."""


class Observer(Protocol):
    """Who is told of committed changes."""

    def committed(self, events: list[LeaseEvent], revision: Revision) -> None:
        """In the order of revisions; without I/O."""
        ...

    def progressed(self, lease_id: LeaseId) -> None:
        """A lease has come further, without an event."""
        ...


class _Staged(msgspec.Struct, gc=False):
    """A row as it is to be: its record (None: no row), and the revision that the store holds (0: none)."""

    revision: Revision
    expected: Revision
    record: Lease | LeaseSpec | Driver | Profile | None


class GroupCommit:
    """See the module. ``<GroupCommit [revision 57, 0 uncommitted]>``."""

    def __init__(self, store: Store, clock: Clock, metrics: Metrics, observer: Observer) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._observer = observer
        self.epoch = Epoch(0)
        self.serving = ServingClock(clock, ServingTime(0.0))
        self.revision = Revision(0)
        """Of the latest change, committed or not."""
        self.durable = Revision(0)
        """All up to this one is committed."""
        self.compacted_through = Revision(0)
        """Events up to this one are forgotten."""
        self.events = EventLog()
        self._began_at = Revision(0)
        self._rows: dict[tuple[RowKind, str], _Staged] = {}
        self._told: list[LeaseEvent] = []
        self._requests: list[RequestRecord] = []
        self._compact: Revision | None = None
        self._heartbeat = False
        self._waiters: deque[tuple[Revision, asyncio.Future[None]]] = deque()
        self._dirty = asyncio.Event()
        self._failure: str | None = None
        self._stopping = False

    def __repr__(self) -> str:
        return f"<GroupCommit [revision {self.revision}, {self.revision - self.durable} uncommitted]>"

    async def lead(self) -> Loaded:
        """Begin a leadership, and load what is stored. Raise StoreUnusable."""
        self.epoch = await self._store.lead()
        loaded = await self._store.load()
        self.serving = ServingClock(self._clock, loaded.serving)
        self.revision = self.durable = self._began_at = loaded.revision
        self.compacted_through = loaded.compacted_through
        return loaded

    async def answered(self, after: int) -> RequestPage:
        """See ``ports.store.Store.answered``."""
        return await self._store.answered(after, REQUESTS_AT_ONCE)

    async def count_events(self) -> None:
        """Learn how much there was before this leadership: once, and at leisure. Raise StoreUnusable."""
        self.events.stored(await self._store.event_sizes(), self._began_at)
        self.events.compacted(self.compacted_through)

    async def room(self, *, to_use: bool = False) -> str:
        """See ``ports.store.Store.room``."""
        return await self._store.room(to_use=to_use)

    # -- staging

    def next_revision(self) -> Revision:
        """Of a change that is made now. Raise Unavailable when none is accepted any more."""
        if self._failure is not None:
            raise self._unavailable()
        self.revision = Revision(self.revision + 1)
        self._dirty.set()
        return self.revision

    def stage(
        self,
        kind: RowKind,
        row_id: str,
        revision: Revision,
        expected: Revision,
        record: Lease | LeaseSpec | Driver | Profile | None,
    ) -> None:
        """Only the last value of a row is written in a group, and so only it is encoded. What a caller wrote into it
        has passed the same encoder before (``records.digest``), so that bad data has failed its own request."""
        staged = self._rows.get((kind, row_id))
        if staged is not None:
            expected = staged.expected
            if record is None and not expected:
                del self._rows[kind, row_id]  # made and dropped within one group: it never was
                return
        self._rows[kind, row_id] = _Staged(revision, expected, record)

    def tell(self, event: LeaseEvent) -> None:
        """Write an event with the group, and tell observers once it is committed."""
        self._told.append(event)

    def stage_request(self, record: RequestRecord) -> None:
        """Write, or forget, the answer of a request id with the group."""
        self._requests.append(record)

    def compact(self, through: Revision) -> None:
        """Forget events up to this revision."""
        if through > self.compacted_through:
            self.compacted_through = through
            self._compact = through
            self.events.compacted(through)
            self._dirty.set()

    def heartbeat(self) -> None:
        """Have the serving clock stored, though nothing else has changed."""
        self._heartbeat = True
        self._dirty.set()

    # -- waiting

    async def settle(self, revision: Revision) -> None:
        """Wait until all up to this revision is durable. Raise Unavailable when it can't be known any more."""
        if revision <= self.durable:
            return
        if self._failure is not None:
            raise self._unavailable()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((revision, waiter))
        await waiter

    @property
    def refuses(self) -> bool:
        """Nothing is accepted any more."""
        return self._failure is not None

    # -- committing

    async def run(self) -> None:
        """Commit groups until ``stop``. Raise StoreLost after a failure. However it ends: whoever waits is told, and
        nothing more is accepted."""
        try:
            await self._commit_groups()
        finally:
            self._refuse(self._failure or "it has stopped")

    async def _commit_groups(self) -> None:
        size = 0
        while True:
            await self._dirty.wait()
            if size > LINGER_FROM and not self._stopping:
                await asyncio.sleep(LINGER)
            self._dirty.clear()
            batch, told, size = self._take()
            if batch is not None:
                await self._commit(batch, told, size)
            if self._stopping and not self._dirty.is_set():
                return

    def stop(self) -> None:
        """Let ``run`` return once everything is committed (promise 15)."""
        self._stopping = True
        self._dirty.set()

    async def _commit(self, batch: Batch, told: list[LeaseEvent], size: int) -> None:
        begun = self._clock.monotonic()
        result = await self._store.commit(self.epoch, batch)
        if not isinstance(result, Committed):
            self._failure = f"{type(result).__name__.lower()}: {result.message}"
            log.error(
                "store.lost", message=self._failure, hint="this broker ends; what was answered is safe; start it again"
            )
            raise StoreLost(self._failure)
        self.durable = batch.revision
        self._metrics.committed(size, self._clock.monotonic() - begun)
        while self._waiters and self._waiters[0][0] <= batch.revision:
            waiter = self._waiters.popleft()[1]
            if not waiter.done():
                waiter.set_result(None)
        self._observer.committed(told, batch.revision)

    def _refuse(self, why: str) -> None:
        self._failure = why
        while self._waiters:
            waiter = self._waiters.popleft()[1]
            if not waiter.done():
                waiter.set_exception(self._unavailable())

    def _unavailable(self) -> Unavailable:
        return Unavailable(
            f"the broker no longer commits ({self._failure}); repeat the request with its request_id",
            retry_after=RETRY_AFTER,
        )

    def _take(self) -> tuple[Batch | None, list[LeaseEvent], int]:
        size = len(self._rows) + len(self._requests)
        if self.revision == self.durable and self._compact is None and not self._heartbeat:
            return None, [], 0
        encode = records.encode
        batch = Batch(
            revision=self.revision,
            rows=tuple(
                RowImage(kind, row_id, row.revision, row.expected, None if row.record is None else encode(row.record))
                for (kind, row_id), row in self._rows.items()
            ),
            events=tuple(EventRecord(event.revision, event.lease_id, encode(event)) for event in self._told),
            requests=tuple(self._requests),
            serving=self.serving.now(),
            compact_through=self._compact,
        )
        if batch.events:
            self.events.add(batch.events[-1].revision, sum(len(event.body) for event in batch.events))
        told = self._told
        self._rows, self._told, self._requests = {}, [], []
        self._compact, self._heartbeat = None, False
        return batch, told, size
