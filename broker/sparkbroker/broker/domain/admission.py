"""Which waiting lease is next: the decision, and the charge, in one synchronous step.

Promises: nothing is admitted that doesn't fit (``Ledger``), and nothing before the inventory is complete; a blocked
queue delays no other one; no lease that can fit waits for ever while what runs ends. Not promised: that the order is
that of asking: what doesn't fit is passed by what does, a bounded number of times.

The rules:

1. Within a queue the order is ``priority_key``, then the id. Between queues, the one whose first lease has the oldest
   reservation, then the one whose first lease has the smallest key, is tried first.
2. Where the first in line doesn't fit, the next ``LOOK_AHEAD`` are tried: each one that is admitted is a *pass*,
   counted on the first in line. While it waits for the capacity of its *pool* (its quota would do), leases that other
   queues get from that pool are passes too.
3. After ``bypass_budget`` passes it has a *reservation*. Nothing of its own queue passes it any more. While it is the
   pool that it lacks, its amount counts as in use for all that hold no older reservation in that pool, so that what
   ends adds up for it. A lease that lacks its own queue's quota reserves nothing in the pool: others go on.
4. A lease that could not fit even if nothing ran (the configuration was lowered) is passed over and counts nothing.

Incremental: a queue that was found blocked is not looked at again until one of its leases, its quota, or a pool or a
reservation that it waits for has changed. A step costs O(log n) in the length of the queues.

Fair share will change rule 1 (``_in_turn``); borrowing, what ``Ledger.lacking`` says; preemption begins where
``_select`` finds nothing.
"""

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from sparkbroker.broker.domain import blocking
from sparkbroker.broker.domain.lease import LeaseReason
from sparkbroker.broker.domain.ledger import Lacking, Ledger, LimitKind
from sparkbroker.broker.domain.queue import Queue, priority_key
from sparkbroker.broker.domain.resources import Resources
from sparkbroker.broker.domain.units import LeaseId, ServingTime

LOOK_AHEAD: Final = 32
"""How many leases behind a blocked first one are tried."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A lease that waits, as far as admission needs it."""

    lease_id: LeaseId
    queue: str
    pool: str
    amount: Resources
    priority: int = 0
    enqueued: ServingTime


class Admitted(msgspec.Struct, frozen=True, gc=False):
    """A lease whose amount is now charged to ``owner``; it waits no more."""

    waiting: Waiting
    owner: str


class Waits(msgspec.Struct, frozen=True, gc=False):
    """Why a lease waits: position from 1, the queue's length, the reason and its sentence."""

    position: int
    queue_length: int
    reason: LeaseReason
    message: str


_Shape = tuple[str, tuple[tuple[str, int], ...]]


class _Entry:
    """A waiting lease, its passes, and the number of its reservation (reservations are served in that order)."""

    __slots__ = ("key", "passes", "reservation", "shape", "waiting")

    def __init__(self, waiting: Waiting, key: float) -> None:
        self.waiting = waiting
        self.key = key
        self.passes = 0
        self.reservation: int | None = None
        # Leases of equal shape are blocked together: comparing is much cheaper than asking the ledger.
        self.shape: _Shape = (waiting.pool, tuple(sorted(waiting.amount.quantities.items())))


class _Line:
    """One queue's waiting leases in order, and what its last look found."""

    __slots__ = ("blocked_on", "entries", "least", "oldest", "order", "queue", "seen", "window")

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.order: list[tuple[float, LeaseId]] = []
        self.entries: dict[LeaseId, _Entry] = {}
        self.seen: dict[str, tuple[int, int]] | None = None
        """Blocked: the versions of each pool that it waited for, and of its quota under "". None: to be looked at."""
        self.least: dict[str, Resources] = {}
        """Blocked: by pool, the least that any lease of the last look asks of each name."""
        self.oldest: int | None = None
        """Blocked: the oldest reservation that any of them has."""
        self.window = 0
        """How many of the order the last look saw."""
        self.blocked_on: tuple[_Entry, LimitKind] | None = None
        """The first in line that can fit, and what it lacked, as of the last look."""

    def insert(self, entry: _Entry) -> None:
        place = (entry.key, entry.waiting.lease_id)
        self.entries[entry.waiting.lease_id] = entry
        insort(self.order, place)
        if self.index(entry) <= self.window:
            self.seen = None

    def take(self, lease_id: LeaseId) -> _Entry:
        entry = self.entries.pop(lease_id)
        index = self.index(entry)
        del self.order[index]
        if index < self.window:
            self.seen = None
        if self.blocked_on is not None and self.blocked_on[0] is entry:
            self.blocked_on = None
        return entry

    def index(self, entry: _Entry) -> int:
        return bisect_left(self.order, (entry.key, entry.waiting.lease_id))


class Admission:
    """Holds the waiting leases, and nothing else; see the module. Not for several threads."""

    def __init__(self, queues: Mapping[str, Queue]) -> None:
        self._queues = dict(queues)
        self._lines: dict[str, _Line] = {}
        self._line_of: dict[LeaseId, _Line] = {}
        self._reserved: dict[str, dict[str, _Entry]] = {}
        """By pool, then by queue: those that have a reservation and lacked the pool at the last look."""
        self._room: dict[tuple[str, str, int | None], Resources] = {}
        """What ``_reserved_before`` has found since ``_reserved`` last changed: a look asks the same for each lease."""
        self._pool_waits: dict[str, int] = {}
        """By pool: grows when a reservation in it ends."""
        self._reservations = 0
        self._configuration: tuple[Ledger, int] | None = None
        """The ledger and its configuration that the lines were looked at with."""
        self._settled: tuple[Ledger, int] | None = None
        """The ledger and its version, as of which every queue is blocked or empty; None once a queue has changed."""

    def __repr__(self) -> str:
        kept = sum(len(entries) for entries in self._reserved.values())
        return f"<Admission [{len(self)} queued in {len(self._lines)} queues, {kept} reserved]>"

    def __len__(self) -> int:
        return len(self._line_of)

    def __contains__(self, lease_id: object) -> bool:
        return lease_id in self._line_of

    def queue_length(self, queue: str) -> int:
        """How many wait in this queue."""
        line = self._lines.get(queue)
        return 0 if line is None else len(line.order)

    def add(self, waiting: Waiting) -> None:
        """A lease begins to wait. Raise ValueError if it waits already."""
        self._settled = None
        if waiting.lease_id in self._line_of:
            raise ValueError(f"{waiting.lease_id} waits already")
        line = self._lines.get(waiting.queue)
        if line is None:
            queue = self._queues.get(waiting.queue) or Queue(name=waiting.queue)
            line = self._lines[waiting.queue] = _Line(queue)
        self._line_of[waiting.lease_id] = line
        line.insert(_Entry(waiting, priority_key(waiting.enqueued, waiting.priority, line.queue.priority_step)))

    def remove(self, lease_id: LeaseId) -> bool:
        """A lease waits no more. False: it did not wait."""
        line = self._line_of.pop(lease_id, None)
        if line is None:
            return False
        self._settled = None
        entry = line.take(lease_id)
        self._end_reservation(line, entry)
        if not line.order:
            del self._lines[line.queue.name]
        return True

    def reconfigure(self, queues: Mapping[str, Queue]) -> None:
        """New queues: everything is put in order anew; passes and reservations are kept."""
        lines, self._queues = self._lines, dict(queues)
        self._lines, self._line_of, self._reserved, self._room = {}, {}, {}, {}
        for line in lines.values():
            for old in line.entries.values():
                self.add(old.waiting)
                entry = self._line_of[old.waiting.lease_id].entries[old.waiting.lease_id]
                entry.passes, entry.reservation = old.passes, old.reservation

    def admit_next(
        self, ledger: Ledger, owner_of: Callable[[Waiting], str], *, inventory_complete: bool = True
    ) -> Admitted | None:
        """Charge the next lease that can be admitted, and let it wait no more. None: there is none now.

        Call it until it returns None, whenever a lease, a charge or the configuration has changed. If ``owner_of``
        raises, nothing has changed.
        """
        if not inventory_complete:
            return None
        if self._settled == (ledger, ledger.version):
            return None
        if self._configuration != (ledger, ledger.configuration):
            # What could never fit may now, and the other way round: the first in line may be another.
            self._configuration = (ledger, ledger.configuration)
            for line in self._lines.values():
                line.seen = None
        # A look that ends a reservation gives others a reason to be looked at again.
        while changed := self._in_turn(ledger):
            for line in changed:
                if self._still_blocked(line, ledger):
                    continue
                entry = self._select(line, ledger)
                if entry is not None:
                    return self._admit(line, entry, ledger, owner_of(entry.waiting))
        self._settled = (ledger, ledger.version)
        return None

    def progress(self, lease_id: LeaseId, ledger: Ledger, *, inventory_complete: bool = True) -> Waits:
        """Where a lease stands and why it isn't admitted now. Raise KeyError if it doesn't wait."""
        line = self._line_of[lease_id]
        entry = line.entries[lease_id]
        before = line.index(entry)
        reason, message = self._why(line, entry, before, ledger, inventory_complete)
        return Waits(before + 1, len(line.order), reason, message)

    def blocking_message(self, queue: str, ledger: Ledger, *, inventory_complete: bool = True) -> str:
        """Why the first in line waits. Empty: none waits."""
        line = self._lines.get(queue)
        if line is None:
            return ""
        return self.progress(line.order[0][1], ledger, inventory_complete=inventory_complete).message

    def _admit(self, line: _Line, entry: _Entry, ledger: Ledger, owner: str) -> Admitted:
        waiting = entry.waiting
        if not ledger.charge(owner, waiting.queue, waiting.pool, waiting.amount):
            raise AssertionError(f"{ledger} refuses {waiting}, which it said would fit")
        self._count_passes(line, entry)
        self.remove(waiting.lease_id)
        return Admitted(waiting, owner)

    def _in_turn(self, ledger: Ledger) -> list[_Line]:
        """The queues that are worth a look: the oldest reservation first, then the smallest key."""
        changed = [line for line in self._lines.values() if self._changed(line, ledger)]
        if len(changed) > 1:
            changed.sort(key=_turn)
        return changed

    def _changed(self, line: _Line, ledger: Ledger) -> bool:
        seen = line.seen
        if seen is None:
            return True
        return any(version != self._version(line, pool, ledger) for pool, version in seen.items())

    def _version(self, line: _Line, pool: str, ledger: Ledger) -> tuple[int, int]:
        if not pool:
            return ledger.queue_version(line.queue.name), 0
        return ledger.pool_version(pool), self._pool_waits.get(pool, 0)

    def _still_blocked(self, line: _Line, ledger: Ledger) -> bool:
        """Whether, without a full look, nothing can be admitted: the least that the last look's leases ask of each
        pool doesn't fit, and the first in line lacks what it lacked. Keeps a release cheap with many queues."""
        if line.seen is None or line.blocked_on is None:
            return False
        name = line.queue.name
        for pool, amount in line.least.items():
            if self._lacks(name, pool, amount, line.oldest, ledger) is None:
                return False
        head, lacked = line.blocked_on
        lacking = self._lacking(head, ledger)
        if lacking is None or lacking.kind is not lacked:
            return False
        line.seen = {pool: self._version(line, pool, ledger) for pool in line.seen}
        return True

    def _select(self, line: _Line, ledger: Ledger) -> _Entry | None:
        """The first in line that can be admitted now, within the look-ahead. None: the line is marked as blocked."""
        head: _Entry | None = None
        lacked: LimitKind | None = None
        blocked: set[_Shape] = set()
        tried = 0
        for index, (_, lease_id) in enumerate(line.order):
            entry = line.entries[lease_id]
            waiting = entry.waiting
            if entry.shape not in blocked:
                lacking = self._lacking(entry, ledger)
                if lacking is None:
                    line.seen = None
                    self._look(line, head, lacked)
                    return entry
                blocked.add(entry.shape)
                if head is None and ledger.never_fits(waiting.queue, waiting.pool, waiting.amount) is None:
                    head, lacked = entry, lacking.kind
            line.window = index + 1
            if head is not None:
                tried += 1
                if entry.reservation is not None or tried > LOOK_AHEAD:
                    break
        line.least = _least(blocked)
        # The look ends at the first reservation, so that only the last lease can have one.
        line.oldest = line.entries[line.order[line.window - 1][1]].reservation
        line.seen = {pool: self._version(line, pool, ledger) for pool in ("", *line.least)}
        self._look(line, head, lacked)
        return None

    def _look(self, line: _Line, head: _Entry | None, lacked: LimitKind | None) -> None:
        """Remember whom the line waits for, and keep its reservation in step with it."""
        old = line.blocked_on
        line.blocked_on = None if head is None or lacked is None else (head, lacked)
        if old is not None and (line.blocked_on is None or old != line.blocked_on):
            self._end_reservation(line, old[0])
        if head is not None:
            self._keep_reservation(line, head)

    def _lacking(self, entry: _Entry, ledger: Ledger) -> Lacking | None:
        """What it lacks, beside what is reserved for others before it."""
        waiting = entry.waiting
        return self._lacks(waiting.queue, waiting.pool, waiting.amount, entry.reservation, ledger)

    def _lacks(
        self, queue: str, pool: str, amount: Resources, reservation: int | None, ledger: Ledger
    ) -> Lacking | None:
        lacking = ledger.lacking(queue, pool, amount)
        if lacking is not None or pool not in self._reserved:
            return lacking
        return ledger.lacking(queue, pool, amount, reserved=self._reserved_before(pool, queue, reservation))

    def _reserved_before(self, pool: str, queue: str, reservation: int | None) -> Resources:
        """What a lease of this queue, with this reservation or none, has to leave room for in the pool: the older
        reservations of other queues.

        Within a queue its order decides, and what stands behind a reservation isn't tried at all.
        """
        known = self._room.get((pool, queue, reservation))
        if known is not None:
            return known
        result = Resources()
        for name, other in self._reserved[pool].items():
            if name != queue and (reservation is None or (other.reservation or 0) < reservation):
                result += other.waiting.amount
        self._room[pool, queue, reservation] = result
        return result

    def _count_passes(self, line: _Line, admitted: _Entry) -> None:
        pool = admitted.waiting.pool
        for other in self._lines.values():
            if other.blocked_on is None:
                continue
            head, lacked = other.blocked_on
            if other is not line and (lacked is not LimitKind.POOL or head.waiting.pool != pool):
                continue
            head.passes += 1
            if head.reservation is None and head.passes >= other.queue.bypass_budget:
                self._reservations += 1
                head.reservation = self._reservations
            self._keep_reservation(other, head)

    def _keep_reservation(self, line: _Line, head: _Entry) -> None:
        if head.reservation is not None and line.blocked_on == (head, LimitKind.POOL):
            kept = self._reserved.setdefault(head.waiting.pool, {})
            if kept.get(line.queue.name) is not head:
                kept[line.queue.name] = head
                self._room.clear()

    def _end_reservation(self, line: _Line, entry: _Entry) -> None:
        """Nothing is kept for it in the pool any more; whoever waited for that is looked at again."""
        pool = entry.waiting.pool
        kept = self._reserved.get(pool, {})
        if kept.get(line.queue.name) is not entry:
            return
        del kept[line.queue.name]
        self._room.clear()
        if not kept:
            del self._reserved[pool]
        self._pool_waits[pool] = self._pool_waits.get(pool, 0) + 1

    def _why(
        self, line: _Line, entry: _Entry, before: int, ledger: Ledger, inventory_complete: bool
    ) -> tuple[LeaseReason, str]:
        if not inventory_complete:
            return LeaseReason.INVENTORY, blocking.INVENTORY
        waiting = entry.waiting
        name = line.queue.name
        ahead = blocking.behind(before, name) if before else ""
        never = ledger.never_fits(waiting.queue, waiting.pool, waiting.amount)
        if never is not None:
            return _REASON[never.kind], blocking.too_large(never, waiting.amount, ledger)
        lacking = ledger.lacking(waiting.queue, waiting.pool, waiting.amount)
        if lacking is not None:
            message = blocking.in_use(lacking, waiting.amount, ledger)
            return _REASON[lacking.kind], f"{message}; {ahead}" if ahead else message
        if kept := self._kept_for_another(line, entry, ledger):
            return LeaseReason.RESERVED_FOR_ANOTHER, f"{kept}; {ahead}" if ahead else kept
        if before:
            return LeaseReason.BEHIND_OTHERS, ahead
        return LeaseReason.UNSPECIFIED, f"it is the next of queue `{name}`, and what it asks is free"

    def _kept_for_another(self, line: _Line, entry: _Entry, ledger: Ledger) -> str:
        """For whom capacity is kept that this lease, which fits, could else have. Empty: for nobody."""
        head = line.blocked_on[0] if line.blocked_on is not None else None
        if head is not None and head.reservation is not None and line.index(head) < line.index(entry):
            return _kept(head, LimitKind.QUEUE, line.queue.name)
        if self._lacking(entry, ledger) is not None:
            pool = entry.waiting.pool
            oldest = min(self._reserved[pool].values(), key=lambda other: other.reservation or 0)
            return _kept(oldest, LimitKind.POOL, pool)
        return ""


_REASON: Final = {LimitKind.QUEUE: LeaseReason.QUEUE_QUOTA, LimitKind.POOL: LeaseReason.CAPACITY}


def _turn(line: _Line) -> tuple[float, float, LeaseId]:
    entry = line.entries[line.order[0][1]]
    return (math.inf if entry.reservation is None else entry.reservation, *line.order[0])


def _kept(entry: _Entry, limit: LimitKind, name: str) -> str:
    return blocking.kept(limit, name, entry.waiting.amount, entry.waiting.queue, entry.passes)


def _least(shapes: set[_Shape]) -> dict[str, Resources]:
    """By pool, name by name, the smallest quantity; 0 is left out, as a name that one of them doesn't ask."""
    result: dict[str, dict[str, int]] = {}
    for pool, quantities in shapes:
        asked = dict(quantities)
        least = result.setdefault(pool, asked)
        if least is not asked:
            result[pool] = {name: min(least[name], asked[name]) for name in least.keys() & asked.keys()}
    return {pool: Resources(quantities) for pool, quantities in result.items()}
