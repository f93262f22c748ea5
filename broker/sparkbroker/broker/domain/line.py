"""One queue's waiting leases, in order, and what the last look at them found.

Values for ``admission`` and ``contention``; they decide, this keeps. A *look* is ``Admission``'s: it walks the line's
first leases (the *window*) until one can be admitted, or finds the line blocked.
"""

import math
from bisect import bisect_left, insort
from collections.abc import Mapping
from operator import attrgetter
from typing import Final
from weakref import WeakValueDictionary

import msgspec

from sparkbroker.broker.domain.ledger import LimitKind
from sparkbroker.broker.domain.queue import Queue, priority_key
from sparkbroker.broker.domain.resources import Resources
from sparkbroker.broker.domain.units import LeaseId, ServingTime

Asks = tuple[tuple[str, int], ...]
"""What is asked of each name, without zeros: asking nothing always fits. Sorted, so that equal ones are equal."""
Place = tuple[float, LeaseId]
"""Where a lease stands in its line: ``priority_key``, then the id."""
Turn = tuple[float, float, LeaseId]
"""When a line is tried: the reservation of its first lease (infinity: none), then that lease's place."""

NOTHING: Final = 0
"""What is left of a name that a pool doesn't list."""
UNLIMITED: Final = math.inf
"""What is left of a name that a queue doesn't list."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A lease that waits, as far as admission needs it."""

    lease_id: LeaseId
    queue: str
    pool: str
    amount: Resources
    priority: int = 0
    enqueued: ServingTime


class Size:
    """What a lease asks, and of which pool. ``Sizes`` makes equal ones identical: to compare them costs nothing then."""

    __slots__ = ("__weakref__", "amounts", "asks", "names", "pool")

    def __init__(self, pool: str, asks: Asks) -> None:
        self.pool = pool
        self.asks = asks
        self.names = tuple(name for name, _ in asks)
        self.amounts = tuple(asked for _, asked in asks)


class Sizes:
    """The sizes in use."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: WeakValueDictionary[tuple[str, Asks], Size] = WeakValueDictionary()

    def of(self, waiting: Waiting) -> Size:
        asks = tuple(sorted((name, asked) for name, asked in waiting.amount.quantities.items() if asked))
        return self._known.setdefault((waiting.pool, asks), Size(waiting.pool, asks))


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
        "changed", "counted_from", "entries", "head", "lacked", "order", "pushed", "queue", "short", "standing",
        "turn", "window",
    )  # fmt: skip

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.order: list[Entry] = []
        self.entries: dict[LeaseId, Entry] = {}
        self.window = 0
        """How many of the order the last look saw."""
        self.changed = False
        """Something has changed since the last look, so that it is worth another one."""
        self.pushed: Turn | None = None
        """The turn under which ``Admission`` has scheduled that look."""
        self.head: Entry | None = None
        """The first in line that can fit, as of the last look; and what it lacked:"""
        self.lacked = LimitKind.QUEUE
        self.counted_from = 0
        """``Contention.passes`` of the head's pool, when it became the head."""
        # As of a look that found the line blocked, until it changes:
        self.turn: Turn | None = None
        """The turn under which pools know the line."""
        self.short: dict[str, Short] = {}
        """By pool: the leases that have no reservation, and that the pool alone lacks room for."""
        self.standing: Entry | None = None
        """The one that has a reservation and ended the window, if it is its pool that it lacks."""

    def insert(self, entry: Entry) -> int:
        """Return its index."""
        self.entries[entry.waiting.lease_id] = entry
        insort(self.order, entry, key=_PLACE)
        return self.index(entry)

    def take(self, entry: Entry) -> int:
        """Let it wait no more; return its former index."""
        index = self.index(entry)
        del self.entries[entry.waiting.lease_id], self.order[index]
        return index

    def index(self, entry: Entry) -> int:
        return bisect_left(self.order, entry.place, key=_PLACE)

    def turn_now(self) -> Turn:
        first = self.order[0]
        return (math.inf if first.reservation is None else first.reservation, *first.place)


class Short:
    """The different sizes of a blocked line's leases that one pool lacks room for."""

    __slots__ = ("_least", "_smallest", "sizes")

    def __init__(self) -> None:
        self.sizes: list[Size] = []
        self._least: Asks | None = None
        self._smallest: list[Asks] | None = None

    def least(self) -> Asks:
        """Name by name, the least that any of them asks, of the names that all of them ask."""
        if self._least is None:
            first = self.sizes[0]
            if all(size.names == first.names for size in self.sizes):
                columns = zip(*(size.amounts for size in self.sizes), strict=True)
                self._least = tuple(zip(first.names, map(min, columns), strict=True))
            else:
                bound = dict(first.asks)
                for size in self.sizes:
                    lower(bound, size.asks)
                self._least = tuple(bound.items())
        return self._least

    def any_fits(self, room: Mapping[str, int]) -> bool:
        return any(fits(asks, room, NOTHING) for asks in self._smallest or self._find_smallest())

    def _find_smallest(self) -> list[Asks]:
        """Those that no other one is smaller than in every name (and perhaps a few more). Most lines that wait are never
        asked: it is found out at the first time."""
        found: list[Asks] = []
        self._smallest = found
        for asks in sorted(size.asks for size in self.sizes):
            if not found or not fits(found[-1], dict(asks), NOTHING):
                found.append(asks)
        return found


def fits(asks: Asks, room: Mapping[str, int], unlisted: float) -> bool:
    """Whether there is room for it; of names that ``room`` doesn't list there is ``unlisted``."""
    for name, asked in asks:  # noqa: SIM110 - three times as fast as all()
        if asked > room.get(name, unlisted):
            return False
    return True


def lower(least: dict[str, int], asks: Asks) -> None:
    """Make it a bound from below to this size too; a name that isn't asked is none of the bound's."""
    shared = 0
    for name, asked in asks:
        known = least.get(name)
        if known is not None:
            shared += 1
            if asked < known:
                least[name] = asked
    if shared < len(least):
        asked_names = dict(asks)
        for name in [name for name in least if name not in asked_names]:
            del least[name]
