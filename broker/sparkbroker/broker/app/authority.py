"""The leader's rows in memory, and the one way to change them.

Promises: a change is visible here at once and to callers only once it is durable (``commits.settle``). Wake-ups and
watch events come from the commit alone.

A decision reads and writes here without an await between the two; that is all the locking there is.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from sparkbroker.broker.app import records
from sparkbroker.broker.app.answered import Answered
from sparkbroker.broker.app.commits import RETRY_AFTER, GroupCommit, Observer
from sparkbroker.broker.app.ended import Ended
from sparkbroker.broker.app.records import RequestResult
from sparkbroker.broker.app.serving import ServingClock
from sparkbroker.broker.app.specs import Specs
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.capacity.ledger import Ledger
from sparkbroker.broker.domain.errors import Unavailable
from sparkbroker.broker.domain.lease.driver import Driver, DriverState
from sparkbroker.broker.domain.lease.event import EventType, LeaseEvent
from sparkbroker.broker.domain.lease.lease import CHARGED, Lease, LeaseMode, LeaseState, recover
from sparkbroker.broker.domain.lease.observation import Executors
from sparkbroker.broker.domain.lease.transition import Changes, Now
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
    RequestRecord,
    RowKind,
    Store,
    StoredRow,
)

LEASE_BYTES: Final = 2048
"""What a lease takes beside its spec and its driver's last words, roughly."""
READ_AT_ONCE: Final = 500
"""Rows that are read before others run: some milliseconds."""


class Authority:
    """See the module. ``<Authority [12 leases, 3 drivers, revision 57, 0 uncommitted]>``."""

    def __init__(self, store: Store, clock: Clock, metrics: Metrics, ledger: Ledger, observer: Observer) -> None:
        self._clock = clock
        self._metrics = metrics
        self._observer = observer
        self.commits = GroupCommit(store, clock, metrics, observer)
        self.ledger = ledger
        self.leases: dict[LeaseId, Lease] = {}
        self.drivers: dict[DriverId, Driver] = {}
        self.drivers_of: dict[LeaseId, tuple[DriverId, ...]] = {}
        self.profiles: dict[str, Profile] = {}
        self._profile_revisions: dict[str, Revision] = {}
        self.keys: dict[tuple[Principal, str], LeaseId] = {}
        self.live_of: dict[Principal, int] = {}
        self.specs = Specs(self.commits)
        self.requests = Answered()
        self.ended = Ended()
        self.executors: dict[DriverId, Executors] = {}
        """As last seen. Neither stored nor versioned: pods come and go far more often than leases change."""
        self.on_lease: list[Callable[[Lease], None]] = []
        self.on_driver: list[Callable[[Driver], None]] = []
        """Called with each value that is recorded, in the midst of changes: to take note, and no more."""
        self._loaded: list[StoredRow] = []
        self._began: Mapping[Epoch, ServingTime] = {}
        self._unread: dict[LeaseId, StoredRow] = {}
        self._complete = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Authority [{len(self.leases)} leases, {len(self.drivers)} drivers, {self.commits!r}]>"

    @property
    def epoch(self) -> Epoch:
        """Of this leadership."""
        return self.commits.epoch

    @property
    def serving(self) -> ServingClock:
        """The clock that stands still while no broker serves."""
        return self.commits.serving

    # -- recovery

    async def lead(self) -> None:
        """Begin a leadership, and load what is stored. Raise StoreUnusable.

        From here on ``lease`` answers and renewals can be accepted: holders' deadlines come first. Everything else
        needs all rows: see ``take_over``.
        """
        loaded = await self.commits.lead()
        self._began = loaded.epochs
        self._unread = {LeaseId(row.id): row for row in loaded.rows if row.kind is RowKind.LEASE}
        self.specs.load([row for row in loaded.rows if row.kind is RowKind.SPEC])
        self._loaded = [row for row in loaded.rows if row.kind in (RowKind.DRIVER, RowKind.PROFILE)]

    async def take_over(self) -> None:
        """Read every row that was loaded, and let others run in between. Raise StoreUnusable."""
        for count, lease_id in enumerate(list(self._unread), start=1):
            self.lease(lease_id)
            if not count % READ_AT_ONCE:
                await asyncio.sleep(0)
        loaded, self._loaded = self._loaded, []
        for row in loaded:
            if row.kind is RowKind.DRIVER:
                self._adopt_driver(records.decode_driver(row))
            else:
                self.profiles[row.id] = records.decode_profile(row)
                self._profile_revisions[row.id] = row.revision
        await self._read_answers()
        ended = [lease for lease in self.leases.values() if lease.terminal]
        ended.sort(key=lambda lease: (self._ended_at(lease), lease.revision))
        for lease in ended:
            self.keep_ended(lease)
        self._drop_unused_profiles()
        self.specs.drop_unused()
        self._complete.set()

    async def _read_answers(self) -> None:
        after: int | None = 0
        began = self.serving.now()
        while after is not None:
            page = await self.commits.answered(after)
            for count, request in enumerate(page.requests, start=1):
                result = records.decode_request(request)
                self.requests.put(Principal(request.principal), request.request_id, result, began)
                if not count % READ_AT_ONCE:
                    await asyncio.sleep(0)
            after = page.next_after

    def lease(self, lease_id: LeaseId) -> Lease | None:
        """One lease, also before everything is taken over."""
        row = self._unread.pop(lease_id, None)
        if row is not None:
            lease = recover(self.specs.adopt(records.decode_lease(row, self.specs.of)), self._began)
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
            self.commits.stage(
                RowKind.PROFILE, fingerprint, self.commits.next_revision(), self._profile_revisions[fingerprint], None
            )

    def _adopt_driver(self, driver: Driver) -> None:
        self.drivers[driver.id] = driver
        if driver.lease_id is not None:
            self.drivers_of[driver.lease_id] = (*self.drivers_of.get(driver.lease_id, ()), driver.id)
        if driver.state is not DriverState.GONE:
            self.ledger.charge(driver.id, driver.queue, driver.pool, driver.charge, force=True)

    # -- changes

    def now(self) -> Now:
        """The time of a step."""
        return Now(self.serving.now(), self._clock.wall())

    def record(self, changes: Changes) -> None:
        """Record what a step changes, all in one transaction."""
        if changes.driver is not None:
            self.put_driver(changes.driver)
            if changes.forgotten:
                self.drop_driver(changes.driver.id)
        if changes.lease is not None:
            self.put_lease(changes.lease, (EventType.STATE, Generation(0)))
        elif changes.noted is not None:
            self.note_progress(changes.noted)
        for name, seconds in changes.phases.items():
            self._metrics.phase(name, seconds)

    def put_lease(self, lease: Lease, *events: tuple[EventType, Generation]) -> Lease:
        """Record a lease's next value, and what happened to it, in order. Return it with its (the last) revision."""
        lease = self._put(lease, *events)
        for tell in self.on_lease:
            tell(lease)
        return lease

    def _put(self, lease: Lease, *events: tuple[EventType, Generation]) -> Lease:
        before = self.leases.get(lease.id)
        if not events:
            revision = self.commits.next_revision()
        for kind, generation in events:
            revision = self.commits.next_revision()
            self._tell(lease, kind, generation, revision)
        ended = self.serving.now() if lease.terminal and lease.ended is None else lease.ended
        lease = msgspec.structs.replace(lease, revision=revision, ended=ended)
        self.commits.stage(RowKind.LEASE, lease.id, revision, before.revision if before else Revision(0), lease)
        self.leases[lease.id] = lease
        self._index(before, lease)
        return lease

    def touch_lease(self, lease: Lease, *, store: bool) -> Lease:
        """Record a renewal, after which nothing is due earlier than before: no event. With ``store`` it is written with the
        next group, else with the row's next change (``recover`` makes up for the difference)."""
        if store:
            return self._put(lease)
        self.leases[lease.id] = lease
        return lease

    def note_progress(self, lease: Lease) -> None:
        """A phase of its start is over: no event, written with the row's next change, and told to who watches."""
        self.touch_lease(lease, store=False)
        self._observer.progressed(lease.id)

    def put_driver(self, driver: Driver) -> Driver:
        """Record a driver's next value, and charge what it now takes."""
        before = self.drivers.get(driver.id)
        revision = self.commits.next_revision()
        driver = msgspec.structs.replace(driver, revision=revision)
        self.commits.stage(RowKind.DRIVER, driver.id, revision, before.revision if before else Revision(0), driver)
        self.drivers[driver.id] = driver
        if before is None and driver.lease_id is not None:
            self.drivers_of[driver.lease_id] = (*self.drivers_of.get(driver.lease_id, ()), driver.id)
        if driver.state is DriverState.GONE:
            self.executors.pop(driver.id, None)
            self.ledger.release(driver.id)
        elif not self.ledger.resize(driver.id, driver.charge):
            # Not charged by admission: it was found running.
            self.ledger.charge(driver.id, driver.queue, driver.pool, driver.charge, force=True)
        for tell in self.on_driver:
            tell(driver)
        return driver

    def note_executors(self, driver_id: DriverId, seen: Executors | None) -> None:
        """What a driver's last observation told of its executors; None: nothing."""
        if seen is None:
            self.executors.pop(driver_id, None)
        else:
            self.executors[driver_id] = seen

    def executors_of(self, lease: Lease) -> Executors | None:
        """Of a READY lease, as last seen."""
        return self.executors.get(lease.driver_id) if lease.driver_id and lease.state is LeaseState.READY else None

    def put_profile(self, profile: Profile, fingerprint: str) -> str:
        """Keep a resolved profile as long as a lease refers to it; return its fingerprint."""
        if fingerprint not in self.profiles:
            self.profiles[fingerprint] = profile
            revision = self._profile_revisions[fingerprint] = self.commits.next_revision()
            self.commits.stage(RowKind.PROFILE, fingerprint, revision, Revision(0), profile)
        return fingerprint

    def put_request(self, principal: Principal, request_id: str, result: RequestResult) -> None:
        """Store the answer of a request id, in the transaction of what it did."""
        self.commits.next_revision()
        self.requests.put(principal, request_id, result, self.serving.now())
        self.commits.stage_request(RequestRecord(principal, request_id, result.created, records.encode(result)))

    def drop_requests(self, before: ServingTime, at_once: int) -> None:
        """Forget the answers that were given before a time."""
        for principal, request_id, created in self.requests.due(before, at_once):
            self.commits.next_revision()
            self.commits.stage_request(RequestRecord(principal, request_id, created, None))

    def keep_ended(self, lease: Lease) -> None:
        """A terminal lease is kept until retention drops it."""
        tail = () if lease.exit is None else lease.exit.log_tail
        size = LEASE_BYTES + sum(map(len, tail))
        self.ended.add(lease, self._ended_at(lease), size, self.specs.size(lease.spec_id))

    def drop_lease(self, lease_id: LeaseId) -> tuple[DriverId, ...]:
        """Forget a terminal lease and its drivers; return the drivers."""
        lease = self.leases.pop(lease_id)
        self.specs.dropped(lease)
        self.commits.stage(RowKind.LEASE, lease_id, self.commits.next_revision(), lease.revision, None)
        drivers = self.drivers_of.pop(lease_id, ())
        for driver_id in drivers:
            driver = self.drivers.pop(driver_id)
            self.commits.stage(RowKind.DRIVER, driver_id, self.commits.next_revision(), driver.revision, None)
        return drivers

    def drop_driver(self, driver_id: DriverId) -> None:
        """Forget a driver that is GONE and was never leased."""
        driver = self.drivers.pop(driver_id)
        self.commits.stage(RowKind.DRIVER, driver_id, self.commits.next_revision(), driver.revision, None)

    def _tell(self, lease: Lease, kind: EventType, generation: Generation, revision: Revision) -> None:
        event = LeaseEvent(
            revision=revision,
            lease_id=lease.id,
            type=kind,
            state=lease.state,
            reason=lease.reason,
            message=lease.full_message if kind is not EventType.NOTICE else lease.notice,
            time=self._clock.wall(),
            attempt=lease.attempt,
            generation=generation,
            principal=lease.principal,
            queue=lease.spec.queue,
            profile=lease.spec.profile,
            key=lease.key,
            labels=lease.spec.labels,
        )
        self.commits.tell(event)

    def _index(self, before: Lease | None, after: Lease) -> None:
        self.specs.changed(before, after)
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
            self.keep_ended(after)
            self._metrics.ended(after.state, after.reason)

    def _ended_at(self, lease: Lease) -> ServingTime:
        if lease.ended is not None:
            return lease.ended
        # An earlier version stored the wall's time alone: at least as long ago as it says.
        return ServingTime(self.serving.now() - (self._clock.wall() - (lease.timings.ended or lease.timings.queued)))
