"""Watches: a snapshot, then every committed event in order, with coalesced progress between them (promise 14)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from sparkbroker.broker.app import records
from sparkbroker.broker.app.admitter import Admitter
from sparkbroker.broker.app.authority import Authority
from sparkbroker.broker.app.events import Events, Interest, Subscription
from sparkbroker.broker.app.shares import Shares
from sparkbroker.broker.app.views import LeaseView, WatchUpdate
from sparkbroker.broker.domain.admission.cycle import Progress
from sparkbroker.broker.domain.errors import Compacted, InvalidField
from sparkbroker.broker.domain.lease.event import LeaseEvent
from sparkbroker.broker.domain.lease.lease import TERMINAL, Lease, LeaseReason, LeaseState, renew
from sparkbroker.broker.domain.units import Generation, LeaseId, Principal, Revision
from sparkbroker.broker.ports.store import Store

PAGE: Final = 500
PROGRESS_PERIOD: Final = 1.0
QUIET: Final = 30.0
"""Seconds after which a watch that nothing new concerns is told the revision: where to resume, before that is compacted."""
READERS: Final = 4
"""Watches that read on from the store at a time, one of each principal: others wait for a page, and not for all."""
FAR: Final = 50
"""From this position on, progress is told ten times more rarely: a long queue isn't news every second."""


class Watching:
    """Reads on from the store where memory ends: see ``app.events``."""

    def __init__(self, authority: Authority, admitter: Admitter, events: Events, store: Store) -> None:
        self._authority = authority
        self._admitter = admitter
        self._events = events
        self._store = store
        self._reading = Shares(READERS, 1)

    async def run(self) -> None:
        """Let those who wait look at their progress, and those who hear nothing at the revision, until cancelled."""
        seen = Revision(0)
        while True:
            await asyncio.sleep(PROGRESS_PERIOD)
            self._events.wake_quiet(self._authority.serving.now() - QUIET)
            if self._authority.commits.revision != seen:
                seen = self._authority.commits.revision
                self._events.wake_queued()

    async def one(self, principal: Principal, lease_id: LeaseId, after: Revision) -> AsyncIterator[WatchUpdate]:
        """One lease, which the caller may see. Ends after its terminal event."""
        self._check(after)
        subscription = self._events.subscribe(principal, lease_id)
        try:
            last = after
            lease = self._wanted(lease_id, begins=True)
            if lease is None:
                return
            if after:
                subscription.overflowed = True  # what happened before the subscription is in the store
            else:
                view = await self._view(lease)
                last = view.lease.revision
                yield WatchUpdate(snapshot=view, revision=last)
                if view.lease.terminal:
                    return
            told = _Told()
            while True:
                kept = self._authority.leases.get(lease_id)
                if kept is None:  # Retention has dropped it; its last events may be on their way to the store.
                    await self._authority.commits.settle(self._authority.commits.revision)
                async for event in self._next(subscription, lease_id, last):
                    last = event.revision
                    yield WatchUpdate(event=event, revision=last)
                    if event.state in TERMINAL:
                        return
                if self._events.closed or kept is None or (after and kept.terminal and kept.revision <= last):
                    return
                progress = self._news(told, lease_id, subscription)
                if progress is not None:
                    yield WatchUpdate(progress=progress, revision=last)
                await subscription.wait()
        finally:
            self._events.unsubscribe(lease_id, subscription)
            self._wanted(lease_id, begins=False)

    def _news(self, told: "_Told", lease_id: LeaseId, subscription: Subscription) -> Progress | None:
        lease = self._authority.leases.get(lease_id)
        if lease is None:
            return None
        subscription.queued = lease.state is LeaseState.QUEUED
        under_way = lease.state in (LeaseState.PROVISIONING, LeaseState.RELEASING) and (
            lease.reason is LeaseReason.STARTING or lease.hindrance or told.hindrance
        )
        told.hindrance = bool(lease.hindrance)
        progress = Progress(0, 0, lease.reason, lease.full_message) if under_way else self._admitter.progress(lease)
        return told.news(progress, self._authority.serving.now())

    async def _view(self, lease: Lease) -> LeaseView:
        while lease.revision > self._authority.commits.durable:
            await self._authority.commits.settle(lease.revision)
            lease = self._authority.leases.get(lease.id, lease)
        return LeaseView(lease, self._admitter.progress(lease), self._authority.executors_of(lease))

    def _wanted(self, lease_id: LeaseId, *, begins: bool) -> Lease | None:
        """Who watches a lease that waits wants it: ``wait_ttl`` begins anew with a watch, and again at its end.

        Stored as a renewal is: once under a leadership, so that the next one knows of it.
        """
        lease = self._authority.leases.get(lease_id)
        if lease is None or lease.state not in (LeaseState.QUEUED, LeaseState.PROVISIONING):
            return lease
        epoch = self._authority.epoch
        wanted = renew(lease, Generation(0), self._authority.serving.now(), epoch)
        return self._authority.touch_lease(wanted, store=begins and lease.renewed_epoch != epoch)

    async def all(self, principal: Principal, interest: Interest, after: Revision) -> AsyncIterator[WatchUpdate]:
        """Every event of interest. The first message only tells the revision."""
        self._check(after)
        subscription = self._events.subscribe(principal, interest)
        try:
            last = after or self._authority.commits.durable
            if after:
                subscription.overflowed = True
            self._note_told(subscription, last)
            yield WatchUpdate(revision=last)
            while True:
                async for event in self._next(subscription, None, last, interest):
                    last = event.revision
                    self._note_told(subscription, last)
                    yield WatchUpdate(event=event, revision=last)
                if self._events.closed:
                    return
                if subscription.idle:
                    # Whatever concerns it up to here has been told: it has reached the newest revision without an event.
                    last = max(last, self._events.revision)
                    if last > subscription.told and subscription.told_at <= self._authority.serving.now() - QUIET:
                        self._note_told(subscription, last)
                        yield WatchUpdate(revision=last)
                await subscription.wait()
        finally:
            self._events.unsubscribe(interest, subscription)

    def _note_told(self, subscription: Subscription, revision: Revision) -> None:
        subscription.told, subscription.told_at = revision, self._authority.serving.now()

    async def _next(
        self, subscription: Subscription, lease_id: LeaseId | None, last: Revision, interest: Interest | None = None
    ) -> AsyncIterator[LeaseEvent]:
        """What has come since ``last``, all of it and in order (promise 14): from memory, or after an overflow from the store, which has other events too."""
        while subscription.overflowed:
            subscription.overflowed = False
            complete = False
            while not complete:
                async with self._reading.place(subscription.principal):
                    page = await self._store.events(last, PAGE, lease_id)
                    read = map(records.decode_event, page.events)
                    found = [event.told for event in read if interest is None or interest.wants(event)]
                    complete, last = page.complete, page.events[-1].revision if page.events else last
                    del page, read
                for event in found:
                    yield event
        for event in subscription.take():
            if event.revision > last:
                yield event

    def _check(self, after: Revision) -> None:
        """Raise Compacted, and InvalidField, where a watch can't resume without a loss (promise 14)."""
        if after > self._authority.commits.revision:
            raise InvalidField(
                "after_revision",
                f"{after} is later than anything here ({self._authority.commits.revision})",
                "resume from a revision that this broker has told",
            )
        if after and after < self._authority.commits.compacted_through:
            raise Compacted(
                f"events up to revision {self._authority.commits.compacted_through} are no longer kept, and {after} was asked "
                "for: read the lease again and watch from its revision",
                revision=str(self._authority.commits.compacted_through),
            )


class _Told:
    """What a watcher has been told of its progress, so that it's told only news, and not too often."""

    __slots__ = ("_last", "_time", "hindrance")

    def __init__(self) -> None:
        self.hindrance = False
        """What it was told holds a driver's end up: when that is over, it is told too."""
        self._last: Progress | None = None
        self._time = 0.0

    def news(self, progress: Progress | None, now: float) -> Progress | None:
        if progress is None or progress == self._last:
            return None
        if not progress.position:  # A phase of its start, or what holds it up: each is news.
            self._last = progress
            return progress
        period = PROGRESS_PERIOD * (1 if progress.position <= FAR else 10)
        if self._last is not None and now - self._time < period - 0.1:
            return None
        self._last, self._time = progress, now
        return progress
