"""One pool, as those see it who wait for it: what is kept in it and for whom, who it lacks room for, who was passed.

Promises: ``woken`` names every line that has a lease which the pool has room for now, in time for its turn, and none
that hasn't. What doesn't fit costs next to nothing: who waits is not asked one by one as long as what is left is less
than the least that any of them asks, and a pass is counted once for all of them.
"""

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Final

from sparkbroker.broker.domain.admission.line import Entry, Line, Place, Turn
from sparkbroker.broker.domain.capacity.floors import Floor, fits
from sparkbroker.broker.domain.capacity.ledger import LimitKind

_SLACK = 64

_Reserved = tuple[int, Entry, Line]


class Contention:
    """See the module. Lines enter when a look found them blocked, and leave when they have changed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.passes = 0
        """How many leases have been admitted from this pool."""
        self._heads: dict[Place, Line] = {}
        """The lines whose heads lack this pool, by these heads' places."""
        self._due: list[tuple[int, Place]] = []
        """A heap: at how many passes a head has used up its budget. Those of former heads are dropped when met."""
        self._kept: list[_Reserved] = []
        """Heads that have a reservation and lack the pool: their amounts count as in use for all after them."""
        self._kept_sum: dict[str, int] = {}
        self._standing: list[_Reserved] = []
        """Blocked lines' leases that have a reservation and lack the pool."""
        self._standing_floor = Floor()
        self._waiting: list[tuple[Turn, Line]] = []
        """Blocked lines that have leases without a reservation that lack the pool."""
        self._waiting_floor = Floor()
        self._standing_asked = False
        self._asked_to: Turn | None = None
        self.settled = False
        """There is room for none of them, as of the last look; and until there is more, ``grew``."""

    def __len__(self) -> int:
        return len(self._kept)

    # -- room

    def grew(self) -> None:
        """There may be more room than before."""
        self.settled = self._standing_asked = False
        self._asked_to = None

    def woken(self, room: Mapping[str, int]) -> list[Line]:
        """Blocked lines that there is room for: the next in turn among others; none: ``settled``. Call it again until
        then; in between, lines may enter that there is no room for, and ``room`` may become less."""
        lines = []
        if not self._standing_asked:
            self._standing_asked = True
            lines = [line for line, entry, left in self._each_standing(room) if fits(entry.asks, left)]
        if self._kept:
            room = {name: amount - self._kept_sum.get(name, 0) for name, amount in room.items()}
        line = self._next_waiting(room)
        if line is not None:
            lines.append(line)
        self.settled = not lines
        return lines

    def _each_standing(self, room: Mapping[str, int]) -> Iterator[tuple[Line, Entry, Mapping[str, int]]]:
        left, kept = dict(room), 0
        for reservation, entry, line in self._standing:
            while kept < len(self._kept) and self._kept[kept][0] < reservation:
                _subtract(left, self._kept[kept][1])
                kept += 1
            if self._standing_floor.excludes(left):
                return
            yield line, entry, left
        self._standing_floor = Floor()
        for _, entry, _ in self._standing:
            self._standing_floor.add(entry.asks)

    def _next_waiting(self, room: Mapping[str, int]) -> Line | None:
        if self._waiting_floor.excludes(room):
            return None
        index = 0
        if self._asked_to is not None:
            index = bisect_left(self._waiting, self._asked_to, key=_FIRST)
            if index < len(self._waiting) and self._waiting[index][0] == self._asked_to:
                index += 1
        for turn, line in self._waiting[index:]:
            self._asked_to = turn
            if line.has_room(self.name, room):
                return line
        self._waiting_floor = Floor()
        for _, line in self._waiting:
            self._waiting_floor.add_floor(line.floor(self.name))
        return None

    def room_behind(self, line: Line, room: Mapping[str, int]) -> Mapping[str, int]:
        """What is left for a lease of this line without a reservation, beside all that is kept for other lines. Within a
        line its order decides."""
        if not self._kept:
            return room
        left = {name: amount - self._kept_sum.get(name, 0) for name, amount in room.items()}
        head = line.head
        if head is not None and head.reservation is not None and self._heads.get(head.place) is line:
            for name, asked in head.asks:
                if name in left:
                    left[name] += asked
        return left

    def lacks(self, entry: Entry, line: Line, room: Mapping[str, int]) -> bool:
        """Whether there is no room for a lease that has a reservation, beside what is kept for older ones of others."""
        if not fits(entry.asks, room):
            return True
        left = dict(room)
        for older, _ in self.kept_before(entry, line):
            _subtract(left, older)
            if not fits(entry.asks, left):
                return True
        return False

    def kept_before(self, entry: Entry, line: Line) -> Iterator[tuple[Entry, Line]]:
        """For whom something is kept that this one has to leave, and their lines; the oldest first."""
        for number, kept, of_line in self._kept:
            if entry.reservation is not None and number >= entry.reservation:
                return
            if of_line is not line:
                yield kept, of_line

    # -- who waits

    def enter(self, line: Line, turn: Turn) -> None:
        """A line is blocked: its ``short`` leases lack this pool."""
        insort(self._waiting, (turn, line), key=_FIRST)
        self._waiting_floor.add_floor(line.floor(self.name))

    def leave(self, turn: Turn) -> None:
        """The line that entered under this turn has changed."""
        del self._waiting[bisect_left(self._waiting, turn, key=_FIRST)]

    def stand(self, entry: Entry, line: Line) -> None:
        """A line is blocked: this lease of it, which has a reservation, lacks this pool."""
        _insert(self._standing, entry, line)
        self._standing_floor.add(entry.asks)

    def leave_standing(self, entry: Entry) -> None:
        """Its line has changed."""
        _remove(self._standing, entry)

    # -- for whom something is kept

    def keep(self, entry: Entry, line: Line) -> None:
        """Its amount counts as in use for all after it."""
        _insert(self._kept, entry, line)
        for name, asked in entry.asks:
            self._kept_sum[name] = self._kept_sum.get(name, 0) + asked

    def keep_no_more(self, entry: Entry) -> None:
        """If there was anything kept for it: what others wait for has grown."""
        if _remove(self._kept, entry):
            _subtract(self._kept_sum, entry)
            self.grew()

    # -- who is passed

    def count_from_now(self, entry: Entry, line: Line) -> None:
        """It is now the head of its line, and lacks this pool."""
        line.counted_from = self.passes
        self._heads[entry.place] = line
        self._expect(entry, line)

    def count_one(self, entry: Entry, line: Line) -> None:
        """The head was passed by a lease of another pool, in its own line."""
        entry.passes += 1
        self._expect(entry, line)

    def _expect(self, entry: Entry, line: Line) -> None:
        if entry.reservation is None:
            left = max(1, line.queue.bypass_budget - passes(line, entry, {self.name: self}))
            heapq.heappush(self._due, (self.passes + left, entry.place))
            if len(self._due) > 2 * len(self._heads) + _SLACK:
                self._due = sorted({(due, place) for due, place in self._due if place in self._heads})

    def count_no_more(self, entry: Entry, line: Line) -> None:
        """It is no longer the head, or lacks another thing."""
        entry.passes += self.passes - line.counted_from
        del self._heads[entry.place]

    def passed(self) -> list[tuple[Line, Entry]]:
        """A lease of this pool was admitted. Return the lines, and their heads, that have now used up their budget."""
        self.passes += 1
        reached: dict[Place, tuple[Line, Entry]] = {}
        while self._due and self._due[0][0] <= self.passes:
            _, place = heapq.heappop(self._due)
            line = self._heads.get(place)
            head = None if line is None else line.head
            if line is not None and head is not None and used_up(line, head, {self.name: self}):
                reached[place] = line, head  # it may be due twice: it was the head before
        return list(reached.values())


def passes(line: Line, head: Entry, pools: Mapping[str, Contention]) -> int:
    """How many have been admitted past the head of this line."""
    if line.lacked is LimitKind.POOL:
        return head.passes + pools[head.pool].passes - line.counted_from
    return head.passes


def used_up(line: Line, head: Entry, pools: Mapping[str, Contention]) -> bool:
    """Whether the head of this line is due to get a reservation."""
    return head.reservation is None and passes(line, head, pools) >= line.queue.bypass_budget


_FIRST: Final = itemgetter(0)


def _subtract(left: dict[str, int], entry: Entry) -> None:
    for name, asked in entry.asks:
        left[name] = left.get(name, 0) - asked


def _insert(reserved: list[_Reserved], entry: Entry, line: Line) -> None:
    if entry.reservation is None:
        raise AssertionError(f"{entry.waiting} has no reservation")
    insort(reserved, (entry.reservation, entry, line), key=_FIRST)


def _remove(reserved: list[_Reserved], entry: Entry) -> bool:
    if entry.reservation is None:
        return False
    index = bisect_left(reserved, entry.reservation, key=_FIRST)
    if index == len(reserved) or reserved[index][1] is not entry:
        return False
    del reserved[index]
    return True
