"""Committed events, to whoever watches (promise 14): nothing is lost, repeated or reordered.

A subscription holds a bounded backlog. One that can't keep up is not cut off: it reads on from the store, where every
event stands until compaction, which it is told of.
"""

import asyncio
from collections import deque
from typing import Final

from sparkbroker.broker.app.views import LeaseEvent
from sparkbroker.broker.domain.units import LeaseId, Revision

BACKLOG: Final = 256
"""Events that a subscription holds in memory."""


class Subscription:
    """One watcher's backlog. ``overflowed``: read the store from the last revision seen, then go on."""

    __slots__ = ("_backlog", "_waiter", "_woken", "overflowed", "queued")

    def __init__(self) -> None:
        self._backlog: deque[LeaseEvent] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._woken = False
        self.overflowed = False
        self.queued = False
        """The lease waits, and progress is of interest."""

    def push(self, event: LeaseEvent) -> None:
        if len(self._backlog) >= BACKLOG:
            self._backlog.clear()
            self.overflowed = True
        if not self.overflowed:
            self._backlog.append(event)
        self.wake()

    def wake(self) -> None:
        """Let ``wait``, or the next one, return, with or without events."""
        self._woken = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def take(self) -> list[LeaseEvent]:
        """What has come, without waiting."""
        events = list(self._backlog)
        self._backlog.clear()
        return events

    async def wait(self) -> None:
        """Wait for events, an overflow, or ``wake``. The caller bounds it in time. For one waiter."""
        if not self._woken:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._woken = False


class Events:
    """The subscriptions. ``<Events [3 watches of leases, 1 of all]>``."""

    def __init__(self) -> None:
        self._of_lease: dict[LeaseId, set[Subscription]] = {}
        self._of_all: set[Subscription] = set()
        self.closed = False

    def __repr__(self) -> str:
        count = sum(len(subscriptions) for subscriptions in self._of_lease.values())
        return f"<Events [{count} watches of leases, {len(self._of_all)} of all]>"

    def __len__(self) -> int:
        return sum(len(subscriptions) for subscriptions in self._of_lease.values()) + len(self._of_all)

    def subscribe(self, lease_id: LeaseId | None) -> Subscription:
        """To one lease, or to all (None). Pair it with ``unsubscribe``."""
        subscription = Subscription()
        if lease_id is None:
            self._of_all.add(subscription)
        else:
            self._of_lease.setdefault(lease_id, set()).add(subscription)
        return subscription

    def unsubscribe(self, lease_id: LeaseId | None, subscription: Subscription) -> None:
        if lease_id is None:
            self._of_all.discard(subscription)
            return
        subscriptions = self._of_lease.get(lease_id)
        if subscriptions is not None:
            subscriptions.discard(subscription)
            if not subscriptions:
                del self._of_lease[lease_id]

    def watched(self, lease_id: LeaseId) -> bool:
        """Whether somebody waits for this lease."""
        return lease_id in self._of_lease

    def committed(self, events: list[LeaseEvent], revision: Revision) -> None:
        """Tell the subscribers: called by the authority after a commit, in the order of revisions."""
        for event in events:
            for subscription in self._of_lease.get(event.lease_id, ()):
                subscription.push(event)
            for subscription in self._of_all:
                subscription.push(event)

    def progressed(self, lease_id: LeaseId) -> None:
        """Let those who watch this lease look again."""
        for subscription in self._of_lease.get(lease_id, ()):
            subscription.wake()

    def wake_queued(self) -> None:
        """Positions may have changed: let those who wait look again."""
        for subscriptions in self._of_lease.values():
            for subscription in subscriptions:
                if subscription.queued:
                    subscription.wake()

    def close(self) -> None:
        """End every watch."""
        self.closed = True
        for subscriptions in (*self._of_lease.values(), self._of_all):
            for subscription in subscriptions:
                subscription.wake()
