"""One queue's waiting leases, in order, and what the last look at them found.

Values for ``cycle`` and ``contention``; they decide, this keeps. A *look* is ``Admission``'s: it tries the line's
first leases (the *window*) until one can be admitted, or finds the line blocked.
"""

import math
from bisect import bisect_left, insort
from collections.abc import Mapping
from operator import attrgetter
from typing import Final

import msgspec

from sparkbroker.broker.domain.capacity.floors import UNLIMITED, Floor, Size, Smallest, fits
from sparkbroker.broker.domain.capacity.ledger import LimitKind
from sparkbroker.broker.domain.capacity.queue import Queue, priority_key
from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.units import LeaseId, ServingTime

Place = tuple[float, LeaseId]
"""Where a lease stands in its line: ``priority_key``, then the id."""
Turn = tuple[float, float, LeaseId]
"""When a line is tried: the reservation of its first lease (infinity: none), then that lease's place."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A lease that waits, as far as admission needs it."""

    lease_id: LeaseId
    queue: str
    pool: str
    amount: Resources
    priority: int = 0
    enqueued: ServingTime


_PLACE: Final = attrgetter("place")


class Entry:
    """A waiting lease, its passes, and the number of its reservation (reservations are served in that order)."""

    __slots__ = ("asks", "passes", "place", "pool", "reservation", "size", "waiting")

    def __init__(self, waiting: Waiting, size: Size, queue: Queue) -> None:
        self.waiting = waiting
        self.size = size
        self.pool = size.pool
        self.asks = size.asks
        self.place: Place = (priority_key(waiting.enqueued, waiting.priority, queue.priority_step), waiting.lease_id)
        self.passes = 0
        """Up to when its line's ``head`` was last set; ``Contention`` counts those since then for all heads at once."""
        self.reservation: int | None = None


class Line:
    """One queue's waiting leases in order."""

    __slots__ = (
        "_covered", "_loose", "_smallest", "able", "changed", "counted_from", "entries", "floors", "head", "lacked", "order",
        "pushed", "queue", "quota", "reserved", "short", "standing", "turn", "window",
    )  # fmt: skip

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.order: list[Entry] = []
        self.entries: dict[LeaseId, Entry] = {}
        self.reserved: list[Entry] = []
        """Those of the order that have a reservation."""
        self.floors: dict[str, Floor] = {}
        """By pool: the least that the first ``_covered`` of the order ask."""
        self._covered = 0
        self._loose = False
        """Some of those have gone: the rest may ask more."""
        self.window = 0
        """How many of the order the last look saw."""
        self.changed = False
        """Something has changed since the last look, so that it is worth another one."""
        self.pushed: Turn | None = None
        """The turn under which ``Admission`` has scheduled that look."""
        self.able: Entry | None = None
        """The first in line that can fit, by the configuration."""
        self.head: Entry | None = None
        """The first in line that can fit, as of the last look; and what it lacked:"""
        self.lacked = LimitKind.QUEUE
        self.counted_from = 0
        """``Contention.passes`` of the head's pool, when it became the head."""
        # As of a look that found the line blocked, until it changes:
        self.turn: Turn | None = None
        """The turn under which pools know the line."""
        self.short: tuple[str, ...] = ()
        """The pools that leases without a reservation lack room in, while their quota would perhaps do."""
        self.quota: Mapping[str, int] = {}
        """What the queue leaves them."""
        self._smallest: dict[str, Smallest] = {}
        """By pool: those of them that count, once it was asked in vain whether there is room for any."""
        self.standing: Entry | None = None
        """The one that has a reservation and ended the window, if it is its pool that it lacks."""

    def insert(self, entry: Entry) -> int:
        """Return its index."""
        self.entries[entry.waiting.lease_id] = entry
        insort(self.order, entry, key=_PLACE)
        if entry.reservation is not None:
            insort(self.reserved, entry, key=_PLACE)
        index = self.index(entry)
        if index < self._covered:
            self._cover(entry)
        return index

    def take(self, entry: Entry) -> int:
        """Let it wait no more; return its former index."""
        index = self.index(entry)
        del self.entries[entry.waiting.lease_id], self.order[index]
        if entry.reservation is not None:
            del self.reserved[bisect_left(self.reserved, entry.place, key=_PLACE)]
        if index < self._covered:
            self._covered -= 1
            self._loose = True
        return index

    def unblock(self) -> None:
        """It has changed: pools no longer know it."""
        self.turn, self.short, self.standing, self._smallest = None, (), None, {}

    def reserve(self, entry: Entry, reservation: int) -> None:
        """The entry has this reservation from now on."""
        entry.reservation = reservation
        insort(self.reserved, entry, key=_PLACE)

    def index(self, entry: Entry) -> int:
        return bisect_left(self.order, entry.place, key=_PLACE)

    def turn_now(self) -> Turn:
        first = self.order[0]
        return (math.inf if first.reservation is None else first.reservation, *first.place)

    # -- whether there can be room for any of the first, without asking each

    def cover(self, end: int) -> None:
        """Let ``floors`` be of these first leases too."""
        while self._covered < end:
            self._cover(self.order[self._covered])

    def _cover(self, entry: Entry) -> None:
        floor = self.floors.get(entry.pool)
        if floor is None:
            floor = self.floors[entry.pool] = Floor()
        floor.add(entry.asks)
        self._covered += 1

    def cover_anew(self, end: int) -> bool:
        """Let ``floors`` be of these first leases only. False: they are of no others."""
        if not self._loose and self._covered <= end:
            return False
        self.floors, self._covered, self._loose = {}, 0, False
        self.cover(end)
        return True

    def has_room(self, pool: str, room: Mapping[str, int]) -> bool:
        """Whether one that lacked only this pool has room there now. For a line that a look found blocked."""
        if self.floors[pool].excludes(room):
            return False
        smallest = self._smallest.get(pool)
        if smallest is not None:
            return smallest.any_fits(room)
        window = self.order[: self.window]
        asked = [entry.size for entry in window if entry.pool == pool and entry.reservation is None]
        if any(fits(size.asks, room) and fits(size.asks, self.quota, UNLIMITED) for size in asked):
            return True
        # Who has asked in vain will ask again.
        self._smallest[pool] = Smallest({size for size in asked if fits(size.asks, self.quota, UNLIMITED)})
        return False

    def floor(self, pool: str) -> Floor:
        """No less than this is asked by those that lacked only this pool."""
        smallest = self._smallest.get(pool)
        return self.floors[pool] if smallest is None else smallest.floor
