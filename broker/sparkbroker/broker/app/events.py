"""Committed events, to whoever watches (promise 14): nothing is lost, repeated or reordered.

A subscription holds a bounded backlog. One that can't keep up is not cut off: it reads on from the store, where every
event stands until compaction, which it is told of. What a watch filters out never reaches it: see ``Interest``.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Final, TypeVar

import msgspec

from sparkbroker.broker.app.waking import Wakes
from sparkbroker.broker.domain.lease.event import LeaseEvent
from sparkbroker.broker.domain.lease.filter import LeaseFilter
from sparkbroker.broker.domain.units import LeaseId, Principal, Revision

BACKLOG: Final = 256
"""Events that a subscription holds in memory."""
K = TypeVar("K")
_Place = tuple[str, str]
_ANYWHERE: Final = ("", "")
_TELLING: Final = ("key", "labels", "principal", "profile", "queue")
"""Fields of a filter, the one that selects least first."""


class Interest(msgspec.Struct, frozen=True, kw_only=True):
    """Which events a watch of all leases is told: those of ``principal`` (None: everybody's) that the filter selects."""

    principal: Principal | None
    selection: LeaseFilter

    def wants(self, event: LeaseEvent) -> bool:
        return self.principal in (None, event.principal) and self.selection.matches_event(event)

    @property
    def place(self) -> _Place:
        """Something that each event which it wants has: only among those with an event's own places is looked for who wants
        it."""
        equal = {
            (term.field, term.label): term.value for term in self.selection.terms if not term.negated and term.value
        }
        if self.principal is not None:
            equal["principal", ""] = self.principal
        found = min(equal.items(), key=lambda item: _rank(item[0][0]), default=None)
        if found is None or _rank(found[0][0]) == len(_TELLING):
            return _ANYWHERE
        (field, label), value = found
        return f"{field}.{label}", value


def _rank(field: str) -> int:
    return _TELLING.index(field) if field in _TELLING else len(_TELLING)


def _places(event: LeaseEvent) -> Iterator[_Place]:
    yield _ANYWHERE
    yield "key.", event.key
    yield "principal.", event.principal
    yield "profile.", event.profile
    yield "queue.", event.queue
    for label, value in event.labels.items():
        yield f"labels.{label}", value


class Subscription:
    """One watcher's backlog. ``overflowed``: read the store from the last revision seen, then go on."""

    __slots__ = ("_backlog", "_waiter", "_wakes", "_woken", "overflowed", "principal", "queued", "told", "told_at")

    def __init__(self, principal: Principal, wakes: Wakes) -> None:
        self.principal = principal
        """Who watches."""
        self._wakes = wakes
        self._backlog: deque[LeaseEvent] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._woken = False
        self.overflowed = False
        self.queued = False
        """The lease waits, and progress is of interest."""
        self.told = Revision(0)
        """The last revision that a watch of all leases was told, and when that was."""
        self.told_at = 0.0

    def push(self, event: LeaseEvent) -> None:
        """``event``: as it is told (``LeaseEvent.told``)."""
        if len(self._backlog) >= BACKLOG:
            self._backlog.clear()
            self.overflowed = True
        if not self.overflowed:
            self._backlog.append(event)
        self.wake()

    def wake(self) -> None:
        """Let ``wait``, or the next one, return, with or without events."""
        if not self._woken:
            self._woken = True
            if self._waiter is not None:
                self._wakes.add(self)

    def go(self) -> bool:
        """Its turn: called by ``Wakes``."""
        if self._waiter is None or self._waiter.done():
            return False
        self._waiter.set_result(None)
        return True

    @property
    def idle(self) -> bool:
        """Nothing has come that wasn't taken."""
        return not self._backlog and not self.overflowed

    def take(self) -> list[LeaseEvent]:
        """What has come, without waiting."""
        events = list(self._backlog)
        self._backlog.clear()
        return events

    async def wait(self) -> None:
        """Wait for events, an overflow, or ``wake``, and then for its turn. The caller bounds it in time. For one waiter."""
        self._waiter = asyncio.get_running_loop().create_future()
        if self._woken:
            self._wakes.add(self)
        try:
            await self._waiter
        finally:
            self._waiter = None
        self._woken = False


class Events:
    """The subscriptions. ``<Events [3 watches of leases, 1 of all]>``."""

    def __init__(self) -> None:
        self._wakes = Wakes()
        self._of_lease: dict[LeaseId, set[Subscription]] = {}
        self._of_all: dict[_Place, dict[Interest, set[Subscription]]] = {}
        self.revision = Revision(0)
        """All events up to this one have been pushed to whom they concern."""
        self.closed = False

    def __repr__(self) -> str:
        return f"<Events [{sum(map(len, self._of_lease.values()))} watches of leases, {sum(1 for _ in self._all())} of all]>"

    def __len__(self) -> int:
        return sum(map(len, self._of_lease.values())) + sum(1 for _ in self._all())

    def _all(self) -> Iterator[Subscription]:
        for interests in self._of_all.values():
            for subscriptions in interests.values():
                yield from subscriptions

    def subscribe(self, principal: Principal, to: LeaseId | Interest) -> Subscription:
        """To one lease, or to what is of interest. Pair it with ``unsubscribe``."""
        subscription = Subscription(principal, self._wakes)
        if isinstance(to, Interest):
            self._of_all.setdefault(to.place, {}).setdefault(to, set()).add(subscription)
        else:
            self._of_lease.setdefault(to, set()).add(subscription)
        return subscription

    def unsubscribe(self, to: LeaseId | Interest, subscription: Subscription) -> None:
        if isinstance(to, Interest):
            interests = self._of_all[to.place]
            _discard(interests, to, subscription)
            if not interests:
                del self._of_all[to.place]
        else:
            _discard(self._of_lease, to, subscription)

    def watched(self, lease_id: LeaseId) -> bool:
        """Whether somebody waits for this lease."""
        return lease_id in self._of_lease

    def committed(self, events: list[LeaseEvent], revision: Revision) -> None:
        """Tell the subscribers: called after each commit, in the order of revisions (promise 14)."""
        for event in events:
            watching = list(self._of_lease.get(event.lease_id, ()))
            if self._of_all:
                watching += self._interested(event)
            if watching:
                told = event.told
                for subscription in watching:
                    subscription.push(told)
        self.revision = revision

    def _interested(self, event: LeaseEvent) -> Iterator[Subscription]:
        """The watches of all leases that want it."""
        for place in _places(event):
            for interest, subscriptions in self._of_all.get(place, _NOBODY).items():
                if interest.wants(event):
                    yield from subscriptions

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

    def wake_quiet(self, since: float) -> None:
        """Let the watches of all leases that were last told a revision before ``since``, and not the newest, tell it."""
        for subscription in self._all():
            if subscription.told < self.revision and subscription.told_at <= since:
                subscription.wake()

    def close(self) -> None:
        """End every watch."""
        self.closed = True
        for subscriptions in self._of_lease.values():
            for subscription in subscriptions:
                subscription.wake()
        for subscription in self._all():
            subscription.wake()


_NOBODY: Final[dict[Interest, set[Subscription]]] = {}


def _discard(subscriptions: dict[K, set[Subscription]], key: K, subscription: Subscription) -> None:
    found = subscriptions[key]
    found.discard(subscription)
    if not found:
        del subscriptions[key]
