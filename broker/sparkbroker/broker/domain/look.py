"""A look at one line: the first of its leases that can be admitted now, or whom and what it waits for.

Changes nothing. It costs O(``LOOK_AHEAD``), however long the line is, unless leases that can never fit stand first.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from sparkbroker.broker.domain.contention import Contention
from sparkbroker.broker.domain.ledger import Ledger, LimitKind
from sparkbroker.broker.domain.line import NOTHING, UNLIMITED, Entry, Line, Short, Size, fits

LOOK_AHEAD: Final = 32
"""How many leases behind a blocked first one are tried."""


class Look(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What was found; ``admissible`` None: the line is blocked.

    ``head``, ``lacked``, ``window``, ``short`` and ``standing`` are what ``Line`` keeps of it under these names; the last
    three say nothing if one is admissible.
    """

    admissible: Entry | None
    head: Entry | None
    lacked: LimitKind
    window: int
    short: dict[str, Short]
    standing: Entry | None


def look(line: Line, ledger: Ledger, pools: Mapping[str, Contention]) -> Look:
    """Try the first in line, and where it doesn't fit the next ones, up to the first that has a reservation."""
    room = _Room(line, ledger, pools)
    head: Entry | None = None
    head_lacks = line.lacked
    admissible = standing = None
    tried = window = 0
    short: dict[str, Short] = {}
    # Leases of one size are blocked together: comparing is cheaper than asking again.
    known: dict[Size, LimitKind] = {}
    for entry in line.order:
        size = entry.size
        again = size in known and entry.reservation is None
        lacked = known[size] if again else room.lacked(entry)
        if lacked is None:
            admissible = entry
            break
        window += 1
        if head is None:
            if ledger.never_fits(line.queue.name, entry.pool, entry.waiting.amount) is not None:
                continue
            head, head_lacks = entry, lacked
        tried += 1
        if entry.reservation is not None:
            standing = entry if lacked is LimitKind.POOL else None
            break
        if not again:
            known[size] = lacked
            if lacked is LimitKind.POOL:
                if size.pool not in short:
                    short[size.pool] = Short()
                short[size.pool].sizes.append(size)
        if tried > LOOK_AHEAD:
            break
    return Look(
        admissible=admissible, head=head, lacked=head_lacks, window=window, short=short, standing=standing
    )  # fmt: skip


class _Room:
    """What is left for one line, during one look at it."""

    __slots__ = ("_behind", "_ledger", "_line", "_pools", "_quota", "_rooms")

    def __init__(self, line: Line, ledger: Ledger, pools: Mapping[str, Contention]) -> None:
        self._line = line
        self._ledger = ledger
        self._pools = pools
        self._quota = ledger.room(LimitKind.QUEUE, line.queue.name)
        self._rooms: dict[str, Mapping[str, int] | None] = {}
        self._behind: dict[str, Mapping[str, int] | None] = {}

    def lacked(self, entry: Entry) -> LimitKind | None:
        """Whose limit it doesn't fit in, the queue's before the pool's, beside what is kept for others before it."""
        name = entry.pool
        if name not in self._behind:
            self._ask(name)
        quota, room = self._quota, self._behind[name]
        if quota is None:
            return LimitKind.QUEUE
        short = room is None
        behind = _NONE if room is None else room
        for what, asked in entry.asks:  # as ``fits`` of both, in one go: this is most of what a step costs
            if asked > quota.get(what, UNLIMITED):
                return LimitKind.QUEUE
            if asked > behind.get(what, NOTHING):
                short = True
        if entry.reservation is not None:
            short = self._standing_lacks(entry)
        return LimitKind.POOL if short else None

    def _standing_lacks(self, entry: Entry) -> bool:
        room, pool = self._rooms[entry.pool], self._pools.get(entry.pool)
        if room is None or pool is None:
            return room is None or not fits(entry.asks, room, NOTHING)
        return pool.lacks(entry, self._line, room)

    def _ask(self, name: str) -> None:
        room = self._rooms[name] = self._ledger.room(LimitKind.POOL, name)
        pool = self._pools.get(name)
        self._behind[name] = room if room is None or pool is None else pool.room_behind(self._line, room)


_NONE: Final[Mapping[str, int]] = {}
