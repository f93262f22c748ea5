"""The leader's rows in memory, the one way to change them, and the one task that commits.

Promises: a change is visible here at once and to callers only after ``settle``; changes of one loop iteration commit
together or not at all; after a commit that failed nothing more is accepted, and ``run`` raises. Wake-ups and watch
events come from the commit alone.

A decision reads and writes here without an await between the two; that is all the locking there is.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import msgspec
import structlog

from sparkbroker.broker.app import records
from sparkbroker.broker.app.records import RequestResult
from sparkbroker.broker.app.serving import ServingClock
from sparkbroker.broker.app.views import EventType, LeaseEvent
from sparkbroker.broker.domain.driver import Driver, DriverState
from sparkbroker.broker.domain.errors import Unavailable
from sparkbroker.broker.domain.lease import CHARGED, Lease, LeaseMode, recover
from sparkbroker.broker.domain.ledger import Ledger
from sparkbroker.broker.domain.profile import Profile
from sparkbroker.broker.domain.units import (
    DriverId,
    Epoch,
    Generation,
    LeaseId,
    Principal,
    Revision,
    ServingTime,
)
from sparkbroker.broker.ports.clock import Clock
from sparkbroker.broker.ports.metrics import Metrics
from sparkbroker.broker.ports.store import (
    Batch,
    Committed,
    EventRecord,
    Loaded,
    RequestRecord,
    RowImage,
    RowKind,
    Store,
    StoredRow,
)

log = structlog.get_logger()

LINGER: Final = 0.001
"""Seconds that a group waits for more, when the last one was larger than LINGER_FROM: a batch of one waits for none."""
LINGER_FROM: Final = 2
REQUEST_LIMIT: Final = 100_000
"""Stored request ids; the oldest go first."""
RETRY_AFTER: Final = 1.0
READ_AT_ONCE: Final = 500
"""Rows that are read before others run: some milliseconds."""


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
    record: Lease | Driver | Profile | None


class Authority:
    """See the module. ``<Authority [12 leases, 3 drivers, revision 57, 0 uncommitted]>``."""

    def __init__(self, store: Store, clock: Clock, metrics: Metrics, ledger: Ledger, observer: Observer) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._observer = observer
        self.ledger = ledger
        self.leases: dict[LeaseId, Lease] = {}
        self.drivers: dict[DriverId, Driver] = {}
        self.drivers_of: dict[LeaseId, tuple[DriverId, ...]] = {}
        self.profiles: dict[str, Profile] = {}
        self._profile_revisions: dict[str, Revision] = {}
        self.keys: dict[tuple[Principal, str], LeaseId] = {}
        self.live_of: dict[Principal, int] = {}
        self.requests: dict[tuple[str, str], RequestResult] = {}
        self.ended: deque[LeaseId] = deque()
        """Terminal leases, in the order in which they ended."""
        self.epoch = Epoch(0)
        self.revision = Revision(0)
        self.compacted_through = Revision(0)
        self.serving = ServingClock(clock, ServingTime(0.0))
        self.on_lease: Callable[[Lease], None] = lambda _: None
        self._loaded: Loaded | None = None
        self._began: Mapping[Epoch, ServingTime] = {}
        self._unread: dict[LeaseId, StoredRow] = {}
        self._complete = asyncio.Event()
        self._durable = Revision(0)
        self._rows: dict[tuple[RowKind, str], _Staged] = {}
        self._told: list[LeaseEvent] = []
        self._stored_requests: list[RequestRecord] = []
        self._compact: Revision | None = None
        self._heartbeat = False
        self._waiters: deque[tuple[Revision, asyncio.Future[None]]] = deque()
        self._dirty = asyncio.Event()
        self._failure: str | None = None
        self._stopping = False

    def __repr__(self) -> str:
        return (
            f"<Authority [{len(self.leases)} leases, {len(self.drivers)} drivers, revision {self.revision}, "
            f"{self.revision - self._durable} uncommitted]>"
        )

    # -- recovery

    async def lead(self) -> None:
        """Begin a leadership, and load what is stored. Raise StoreUnusable.

        From here on ``lease`` answers and renewals can be accepted: holders' deadlines come first. Everything else
        needs all rows: see ``take_over``.
        """
        self.epoch = await self._store.lead()
        self._loaded = loaded = await self._store.load()
        self.serving = ServingClock(self._clock, loaded.serving)
        self._began = loaded.epochs
        self.revision = self._durable = loaded.revision
        self.compacted_through = loaded.compacted_through
        self._unread = {LeaseId(row.id): row for row in loaded.rows if row.kind is RowKind.LEASE}

    async def take_over(self) -> None:
        """Read every row that was loaded, and let others run in between. Raise StoreUnusable."""
        for count, lease_id in enumerate(list(self._unread), start=1):
            self.lease(lease_id)
            if not count % READ_AT_ONCE:
                await asyncio.sleep(0)
        loaded, self._loaded = self._loaded, None
        for row in loaded.rows if loaded is not None else ():
            match row.kind:
                case RowKind.DRIVER:
                    self._adopt_driver(records.decode_driver(row))
                case RowKind.PROFILE:
                    self.profiles[row.id] = records.decode_profile(row)
                    self._profile_revisions[row.id] = row.revision
                case RowKind.LEASE:
                    pass  # above
        for request in loaded.requests if loaded is not None else ():
            self.requests[request.principal, request.request_id] = records.decode_request(request)
        ended = [lease for lease in self.leases.values() if lease.terminal]
        ended.sort(key=lambda lease: (lease.timings.ended or lease.timings.queued, lease.id))
        self.ended.extend(lease.id for lease in ended)
        self._drop_unused_profiles()
        self._complete.set()

    def lease(self, lease_id: LeaseId) -> Lease | None:
        """One lease, also before everything is taken over."""
        row = self._unread.pop(lease_id, None)
        if row is not None:
            lease = recover(records.decode_lease(row), self._began)
            self.leases[lease_id] = lease
            self._index(None, lease)
            if lease.spec.mode is LeaseMode.LOCAL and lease.state in CHARGED:
                self.ledger.charge(lease_id, lease.spec.queue, lease.pool, lease.charge, force=True)
        return self.leases.get(lease_id)

    async def complete(self) -> None:
        """Wait until everything is taken over. The caller bounds it in time."""
        if not self._complete.is_set():
            await self._complete.wait()

    def require_complete(self) -> None:
        """Raise Unavailable until everything is taken over."""
        if not self._complete.is_set():
            raise Unavailable("the broker has just started and is taking over its leases", retry_after=RETRY_AFTER)

    def _drop_unused_profiles(self) -> None:
        used = {lease.profile_fingerprint for lease in self.leases.values()}
        used |= {driver.profile_fingerprint for driver in self.drivers.values()}
        for fingerprint in self.profiles.keys() - used:
            del self.profiles[fingerprint]
            self._stage(RowKind.PROFILE, fingerprint, self._next_revision(), self._profile_revisions[fingerprint], None)

    def _adopt_driver(self, driver: Driver) -> None:
        self.drivers[driver.id] = driver
        if driver.lease_id is not None:
            self.drivers_of[driver.lease_id] = (*self.drivers_of.get(driver.lease_id, ()), driver.id)
        if driver.state is not DriverState.GONE:
            self.ledger.charge(driver.id, driver.queue, driver.pool, driver.charge, force=True)

    # -- changes

    def put_lease(self, lease: Lease, *events: tuple[EventType, Generation]) -> Lease:
        """Record a lease's next value, and what happened to it, in order. Return it with its (the last) revision."""
        before = self.leases.get(lease.id)
        if not events:
            revision = self._next_revision()
        for kind, generation in events:
            revision = self._next_revision()
            self._tell(lease, kind, generation, revision)
        lease = msgspec.structs.replace(lease, revision=revision)
        self._stage(RowKind.LEASE, lease.id, revision, before.revision if before else Revision(0), lease)
        self.leases[lease.id] = lease
        self._index(before, lease)
        self.on_lease(lease)
        return lease

    def touch_lease(self, lease: Lease, *, store: bool) -> Lease:
        """Record a renewal: no event. With ``store`` it is written with the next group, else with the row's next
        change (``recover`` makes up for the difference)."""
        if store:
            return self.put_lease(lease)
        self.leases[lease.id] = lease
        return lease

    def note_progress(self, lease: Lease) -> None:
        """A phase of its start is over: no event, written with the row's next change, and told to who watches."""
        self.touch_lease(lease, store=False)
        self._observer.progressed(lease.id)

    def put_driver(self, driver: Driver) -> Driver:
        """Record a driver's next value, and charge what it now takes."""
        before = self.drivers.get(driver.id)
        revision = self._next_revision()
        driver = msgspec.structs.replace(driver, revision=revision)
        self._stage(RowKind.DRIVER, driver.id, revision, before.revision if before else Revision(0), driver)
        self.drivers[driver.id] = driver
        if before is None and driver.lease_id is not None:
            self.drivers_of[driver.lease_id] = (*self.drivers_of.get(driver.lease_id, ()), driver.id)
        if driver.state is DriverState.GONE:
            self.ledger.release(driver.id)
        elif not self.ledger.resize(driver.id, driver.charge):
            # Not charged by admission: it was found running.
            self.ledger.charge(driver.id, driver.queue, driver.pool, driver.charge, force=True)
        return driver

    def put_profile(self, profile: Profile, fingerprint: str) -> str:
        """Keep a resolved profile as long as a lease refers to it; return its fingerprint."""
        if fingerprint not in self.profiles:
            self.profiles[fingerprint] = profile
            revision = self._profile_revisions[fingerprint] = self._next_revision()
            self._stage(RowKind.PROFILE, fingerprint, revision, Revision(0), profile)
        return fingerprint

    def put_request(self, principal: Principal, request_id: str, result: RequestResult) -> None:
        """Store the answer of a request id, in the transaction of what it did."""
        self._next_revision()
        self.requests[principal, request_id] = result
        self._stored_requests.append(RequestRecord(principal, request_id, result.created, records.encode(result)))
        if len(self.requests) > REQUEST_LIMIT:
            self.drop_request(next(iter(self.requests)))

    def drop_request(self, key: tuple[str, str]) -> None:
        """Forget an answer."""
        result = self.requests.pop(key)
        self._next_revision()
        self._stored_requests.append(RequestRecord(key[0], key[1], result.created, None))

    def drop_lease(self, lease_id: LeaseId) -> tuple[DriverId, ...]:
        """Forget a terminal lease and its drivers; return the drivers."""
        lease = self.leases.pop(lease_id)
        self._stage(RowKind.LEASE, lease_id, self._next_revision(), lease.revision, None)
        drivers = self.drivers_of.pop(lease_id, ())
        for driver_id in drivers:
            driver = self.drivers.pop(driver_id)
            self._stage(RowKind.DRIVER, driver_id, self._next_revision(), driver.revision, None)
        return drivers

    def drop_driver(self, driver_id: DriverId) -> None:
        """Forget a driver that is GONE and was never leased."""
        driver = self.drivers.pop(driver_id)
        self._stage(RowKind.DRIVER, driver_id, self._next_revision(), driver.revision, None)

    def compact(self, through: Revision) -> None:
        """Forget events up to this revision."""
        if through > self.compacted_through:
            self.compacted_through = through
            self._compact = through
            self._dirty.set()

    def heartbeat(self) -> None:
        """Have the serving clock stored, though nothing else has changed."""
        self._heartbeat = True
        self._dirty.set()

    # -- reading

    async def settle(self, revision: Revision) -> None:
        """Wait until all up to this revision is durable. Raise Unavailable when it can't be known any more."""
        if revision <= self._durable:
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

    @property
    def durable(self) -> Revision:
        """All up to this revision is committed."""
        return self._durable

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
        """Let ``run`` return once everything is committed."""
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
        self._durable = batch.revision
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
        size = len(self._rows) + len(self._stored_requests)
        if self.revision == self._durable and self._compact is None and not self._heartbeat:
            return None, [], 0
        encode = records.encode
        batch = Batch(
            revision=self.revision,
            rows=tuple(
                RowImage(kind, row_id, row.revision, row.expected, None if row.record is None else encode(row.record))
                for (kind, row_id), row in self._rows.items()
            ),
            events=tuple(EventRecord(event.revision, event.lease_id, encode(event)) for event in self._told),
            requests=tuple(self._stored_requests),
            serving=self.serving.now(),
            compact_through=self._compact,
        )
        told = self._told
        self._rows, self._told, self._stored_requests = {}, [], []
        self._compact, self._heartbeat = None, False
        return batch, told, size

    def _next_revision(self) -> Revision:
        if self._failure is not None:
            raise self._unavailable()
        self.revision = Revision(self.revision + 1)
        self._dirty.set()
        return self.revision

    def _stage(
        self,
        kind: RowKind,
        row_id: str,
        revision: Revision,
        expected: Revision,
        record: Lease | Driver | Profile | None,
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

    def _tell(self, lease: Lease, kind: EventType, generation: Generation, revision: Revision) -> None:
        event = LeaseEvent(
            revision=revision,
            lease_id=lease.id,
            type=kind,
            state=lease.state,
            reason=lease.reason,
            message=lease.message if kind is not EventType.NOTICE else lease.notice,
            time=self._clock.wall(),
            attempt=lease.attempt,
            generation=generation,
            principal=lease.principal,
            queue=lease.spec.queue,
            profile=lease.spec.profile,
            key=lease.key,
            labels=lease.spec.labels,
        )
        self._told.append(event)

    def _index(self, before: Lease | None, after: Lease) -> None:
        was, now = before is not None and before.live, after.live
        if was != now:
            count = self.live_of.get(after.principal, 0) + (1 if now else -1)
            if count:
                self.live_of[after.principal] = count
            else:
                self.live_of.pop(after.principal, None)
        if after.key:
            name = (after.principal, after.key)
            if now:
                self.keys[name] = after.id
            elif self.keys.get(name) == after.id:
                del self.keys[name]
        if before is not None and after.terminal and not before.terminal:
            self.ended.append(after.id)
            self._metrics.ended(after.state, after.reason)
