"""A look at one line: the first of its leases that can be admitted now, or whom and what it waits for.

Decides nothing that it doesn't return; in the line it keeps what spares the next look work (``floors``, ``able``). While
what is free is too little for all of the first leases it asks none of them but the first; else it costs
O(``LOOK_AHEAD``), however long the line is, unless leases that can never fit stand first.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from sparkbroker.broker.domain.admission.contention import Contention
from sparkbroker.broker.domain.admission.line import Entry, Line
from sparkbroker.broker.domain.capacity.floors import UNLIMITED, Floor, fits
from sparkbroker.broker.domain.capacity.ledger import Ledger, LimitKind

LOOK_AHEAD: Final = 32
"""How many leases behind a blocked first one are tried."""


class Look(msgspec.Struct, frozen=True, gc=False):
    """What was found; ``admissible`` None: the line is blocked.

    ``head``, ``lacked``, ``window``, ``short``, ``quota`` and ``standing`` are what ``Line`` keeps of it under these
    names; the last four say nothing if one is admissible.
    """

    admissible: Entry | None
    head: Entry | None
    lacked: LimitKind
    window: int = 0
    short: tuple[str, ...] = ()
    quota: Mapping[str, int] = {}
    standing: Entry | None = None


def look(line: Line, ledger: Ledger, pools: Mapping[str, Contention]) -> Look:
    """Try the first in line, and where it doesn't fit the next ones, up to the first that has a reservation."""
    begin = _first_able(line, ledger)
    if begin == len(line.order):
        return Look(None, None, line.lacked, begin)
    room = _Room(line, ledger, pools)
    head = line.order[begin]
    if head.reservation is None and room.fits(head):
        return Look(head, None, line.lacked)
    last = None
    end = min(begin + LOOK_AHEAD + 1, len(line.order))
    if line.reserved:
        end, last = _end_at_reserved(line, head, end)
    admissible, short = _first_without(line, begin, end, room) if begin < end else (None, ())
    standing = None
    if admissible is None and last is not None:
        end += 1
        if room.for_reserved(last):
            admissible = last
        elif room.quota_fits(last):
            standing = last
    if admissible is head:
        return Look(admissible, None, line.lacked)
    lacked = LimitKind.POOL if room.quota_fits(head) else LimitKind.QUEUE
    return Look(admissible, head, lacked, end, short, room.quota or {}, standing)


def _first_able(line: Line, ledger: Ledger) -> int:
    """The index of the first that could fit if nothing ran."""
    if line.order[0] is line.able:
        return 0
    for index, entry in enumerate(line.order):
        if ledger.never_fits(line.queue.name, entry.pool, entry.waiting.amount) is None:
            line.able = entry
            return index
    return len(line.order)


def _end_at_reserved(line: Line, head: Entry, end: int) -> tuple[int, Entry | None]:
    """Where the leases without a reservation end that are tried, and the one there that has one."""
    for entry in line.reserved:
        if entry.place >= head.place:
            index = line.index(entry)
            return (index, entry) if index < end else (end, None)
    return end, None


def _first_without(line: Line, begin: int, end: int, room: "_Room") -> tuple[Entry | None, tuple[str, ...]]:
    """Of those without a reservation: the first that has room, or else the pools that they lack room in."""
    line.cover(end)
    while True:  # twice at most
        short = tuple(pool for pool, floor in line.floors.items() if not room.quota_excludes(floor))
        if all(room.excludes(pool, line.floors[pool]) for pool in short):
            return None, short
        for entry in line.order[begin:end]:
            if room.fits(entry):
                return entry, ()
        if not line.cover_anew(end):
            return None, short


class _Room:
    """What is left for one line, during one look at it."""

    __slots__ = ("_ledger", "_left", "_line", "_pools", "quota")

    def __init__(self, line: Line, ledger: Ledger, pools: Mapping[str, Contention]) -> None:
        self._line = line
        self._ledger = ledger
        self._pools = pools
        self.quota = ledger.room(LimitKind.QUEUE, line.queue.name)
        self._left: dict[str, Mapping[str, int] | None] = {}

    def quota_fits(self, entry: Entry) -> bool:
        """Whether the queue has room."""
        return self.quota is not None and fits(entry.asks, self.quota, UNLIMITED)

    def for_reserved(self, entry: Entry) -> bool:
        """Whether a lease that has a reservation has room, beside what is kept for older ones of others."""
        if not self.quota_fits(entry):
            return False
        room, pool = self._ledger.room(LimitKind.POOL, entry.pool), self._pools.get(entry.pool)
        if room is None or pool is None:
            return room is not None and fits(entry.asks, room)
        return not pool.lacks(entry, self._line, room)

    def quota_excludes(self, floor: Floor) -> bool:
        """The queue has no room for any of these."""
        return self.quota is None or floor.excludes(self.quota, UNLIMITED)

    def fits(self, entry: Entry) -> bool:
        """Whether a lease without a reservation has room, beside all that is kept for others."""
        left = self._of(entry.pool)
        return left is not None and fits(entry.asks, left)

    def excludes(self, pool: str, floor: Floor) -> bool:
        """None of these has, whose pool this is."""
        left = self._of(pool)
        return left is None or floor.excludes(left)

    def _of(self, name: str) -> Mapping[str, int] | None:
        if name not in self._left:
            self._left[name] = self._find_left(name)
        return self._left[name]

    def _find_left(self, name: str) -> Mapping[str, int] | None:
        """Of the pool, as far as the quota goes."""
        room, pool, quota = self._ledger.room(LimitKind.POOL, name), self._pools.get(name), self.quota
        if room is None or quota is None:
            return None
        if pool is not None:
            room = pool.room_behind(self._line, room)
        return {what: min(amount, quota.get(what, amount)) for what, amount in room.items()}
