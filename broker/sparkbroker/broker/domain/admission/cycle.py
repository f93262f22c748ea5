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

Incremental: a queue that was found blocked is not looked at again until one of its leases or its quota has changed, or
until its pool has room for one of those that the last look saw (``contention``). A look asks each of a queue's first
leases only where what is free is enough for the least that they ask (``capacity.floors.Floor``). A step costs O(log n) in the
length of the queues, and doesn't grow with the number of queues as long as what is free is too little for all of them.

Fair share will change rule 1 (``Line.turn_now``); borrowing, what ``Ledger.lacking`` says; preemption begins
where ``look`` finds nothing.
"""

import heapq
from collections.abc import Callable, Mapping

import msgspec

from sparkbroker.broker.domain.admission import explain
from sparkbroker.broker.domain.admission.contention import Contention, used_up
from sparkbroker.broker.domain.admission.line import Entry, Line, Turn, Waiting
from sparkbroker.broker.domain.admission.look import look
from sparkbroker.broker.domain.capacity.floors import Sizes
from sparkbroker.broker.domain.capacity.ledger import Ledger, LimitKind
from sparkbroker.broker.domain.capacity.queue import Queue
from sparkbroker.broker.domain.lease.lease import LeaseReason
from sparkbroker.broker.domain.units import LeaseId

__all__ = ["Admission", "Admitted", "Progress", "Waiting"]


class Admitted(msgspec.Struct, frozen=True, gc=False):
    """A lease whose amount is now charged to ``owner``; it waits no more."""

    waiting: Waiting
    owner: str


class Progress(msgspec.Struct, frozen=True, gc=False):
    """Why a lease waits: position from 1, the queue's length, the reason and its sentence."""

    position: int
    queue_length: int
    reason: LeaseReason
    message: str


class Admission:
    """Holds the waiting leases, and nothing else; see the module. Not for several threads."""

    def __init__(self, queues: Mapping[str, Queue]) -> None:
        self._queues = dict(queues)
        self._lines: dict[str, Line] = {}
        self._line_of: dict[LeaseId, Line] = {}
        self._pools: dict[str, Contention] = {}
        self._to_look: list[tuple[Turn, str]] = []
        """A heap: the lines that have changed. One that has had its look since, or has another turn, is dropped when met."""
        self._sizes = Sizes()
        self._reservations = 0
        self._ledger: Ledger | None = None
        self._configuration = 0
        self._version = 0
        """The ledger, its configuration and its version, of which all changes are taken notice of."""

    def __repr__(self) -> str:
        kept = sum(map(len, self._pools.values()))
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
        if waiting.lease_id in self._line_of:
            raise ValueError(f"{waiting.lease_id} waits already")
        line = self._lines.get(waiting.queue)
        if line is None:
            line = self._lines[waiting.queue] = Line(self._queues.get(waiting.queue) or Queue(name=waiting.queue))
        self._add(line, Entry(waiting, self._sizes.of(waiting.pool, waiting.amount), line.queue))

    def _add(self, line: Line, entry: Entry) -> None:
        self._line_of[entry.waiting.lease_id] = line
        # A line that has not changed ends its look at the window's last, or at its own end.
        if line.insert(entry) <= line.window or line.changed:
            self._change(line)

    def remove(self, lease_id: LeaseId) -> bool:
        """A lease waits no more. False: it did not wait."""
        line = self._line_of.pop(lease_id, None)
        if line is None:
            return False
        entry = line.entries[lease_id]
        if line.head is entry:
            self._block_on(line, None, line.lacked)
        seen = line.take(entry) < line.window
        if not line.order:
            self._withdraw(line)
            del self._lines[line.queue.name]
        elif seen or line.changed:
            self._change(line)
        return True

    def reconfigure(self, queues: Mapping[str, Queue]) -> None:
        """New queues: everything is put in order anew; passes and reservations are kept."""
        before = self._lines
        for line in before.values():
            self._block_on(line, None, line.lacked)
        self._queues = dict(queues)
        self._lines, self._line_of, self._pools, self._to_look = {}, {}, {}, []
        for line in before.values():
            queue = self._queues.get(line.queue.name) or Queue(name=line.queue.name)
            anew = self._lines[queue.name] = Line(queue)
            for old in line.entries.values():
                entry = Entry(old.waiting, old.size, queue)
                entry.passes, entry.reservation = old.passes, old.reservation
                self._add(anew, entry)

    def admit_next(
        self, ledger: Ledger, owner_of: Callable[[Waiting], str], *, inventory_complete: bool = True
    ) -> Admitted | None:
        """Charge the next lease that can be admitted, and let it wait no more (promise 13). None: there is none now.

        Call it until it returns None, whenever a lease, a charge or the configuration has changed. If ``owner_of``
        raises, nothing has changed.
        """
        if not inventory_complete:
            return None
        self._take_notice(ledger)
        while (line := self._next_line(ledger)) is not None:
            entry = self._look(line, ledger)
            if entry is not None:
                return self._admit(line, entry, ledger, owner_of(entry.waiting))
        return None

    def progress(self, lease_id: LeaseId, ledger: Ledger, *, inventory_complete: bool = True) -> Progress:
        """Where a lease stands and why it isn't admitted now. Raise KeyError if it doesn't wait."""
        line = self._line_of[lease_id]
        entry = line.entries[lease_id]
        before = line.index(entry)
        if inventory_complete:
            reason, message = explain.why(line, entry, before, ledger, self._pools)
        else:
            reason, message = LeaseReason.INVENTORY, explain.INVENTORY
        return Progress(before + 1, len(line.order), reason, message)

    def blocking_message(self, queue: str, ledger: Ledger, *, inventory_complete: bool = True) -> str:
        """Why the first in line waits. Empty: none waits."""
        line = self._lines.get(queue)
        if line is None:
            return ""
        return self.progress(line.order[0].waiting.lease_id, ledger, inventory_complete=inventory_complete).message

    def _admit(self, line: Line, entry: Entry, ledger: Ledger, owner: str) -> Admitted:
        waiting = entry.waiting
        if not ledger.charge(owner, waiting.queue, waiting.pool, waiting.amount):
            raise AssertionError(f"{ledger} refuses {waiting}, which it said would fit")
        self._count_pass(line, entry)
        self.remove(waiting.lease_id)
        return Admitted(waiting, owner)

    # -- which line is worth a look

    def _take_notice(self, ledger: Ledger) -> None:
        """Of what has changed in the ledger since the last step."""
        if self._ledger is not ledger or self._configuration != ledger.configuration:
            # What could never fit may now, and the other way round: the first in line may be another.
            for line in self._lines.values():
                line.able = None
                self._change(line)
        else:
            for kind, name in ledger.changed_since(self._version):
                if kind is LimitKind.POOL and name in self._pools:
                    self._pools[name].grew()
                elif kind is LimitKind.QUEUE and name in self._lines:
                    self._change(self._lines[name])
        self._ledger, self._configuration, self._version = ledger, ledger.configuration, ledger.version

    def _change(self, line: Line) -> None:
        """It has changed, or its turn has: a look at it is due."""
        self._withdraw(line)
        turn = line.turn_now()
        if not line.changed or turn != line.pushed:
            line.changed, line.pushed = True, turn
            heapq.heappush(self._to_look, (turn, line.queue.name))

    def _next_line(self, ledger: Ledger) -> Line | None:
        """The first in turn of those worth a look: the oldest reservation, then the smallest key."""
        for name, pool in self._pools.items():
            if not pool.settled:
                for line in pool.woken(ledger.room(LimitKind.POOL, name) or {}):
                    self._change(line)
        while self._to_look:
            turn, name = self._to_look[0]
            first = self._lines.get(name)
            if first is not None and first.changed and first.pushed == turn:
                return first
            heapq.heappop(self._to_look)
        return None

    def _withdraw(self, line: Line) -> None:
        if line.turn is None:
            return
        for name in line.short:
            self._pools[name].leave(line.turn)
        if line.standing is not None:
            self._pools[line.standing.pool].leave_standing(line.standing)
        line.unblock()

    def _pool(self, name: str) -> Contention:
        pool = self._pools.get(name)
        if pool is None:
            pool = self._pools[name] = Contention(name)
        return pool

    def _look(self, line: Line, ledger: Ledger) -> Entry | None:
        """The first in line that can be admitted now. None: the line is blocked, and the pools that it lacks will say
        when they have room for it."""
        found = look(line, ledger, self._pools)
        self._block_on(line, found.head, found.lacked)
        if found.admissible is not None:
            return found.admissible
        line.window, line.short, line.quota, line.standing = found.window, found.short, found.quota, found.standing
        line.changed, line.turn = False, line.turn_now()
        for name in line.short:
            self._pool(name).enter(line, line.turn)
        if line.standing is not None:
            self._pool(line.standing.pool).stand(line.standing, line)
        return None

    def _block_on(self, line: Line, head: Entry | None, lacked: LimitKind) -> None:
        """Remember whom the line waits for, and keep its passes and its reservation in step with it."""
        old = line.head
        if old is head and (head is None or line.lacked is lacked):
            return
        if old is not None and line.lacked is LimitKind.POOL:
            pool = self._pools[old.pool]
            pool.count_no_more(old, line)
            pool.keep_no_more(old)
        line.head, line.lacked = head, lacked
        if head is not None and lacked is LimitKind.POOL:
            pool = self._pool(head.pool)
            pool.count_from_now(head, line)
            if head.reservation is not None:
                pool.keep(head, line)

    # -- whom a line waits for, and who is passed

    def _count_pass(self, line: Line, admitted: Entry) -> None:
        """Of the own line's head, and of all that lack this pool; those that have had enough get a reservation, in the
        order of their places."""
        pool = self._pools.get(admitted.pool)
        reached = [] if pool is None else pool.passed()
        head = line.head
        if head is not None and not (line.lacked is LimitKind.POOL and head.pool == admitted.pool):
            if line.lacked is LimitKind.POOL:
                self._pools[head.pool].count_one(head, line)
            else:
                head.passes += 1
            if used_up(line, head, self._pools):
                reached.append((line, head))
        for each, its_head in sorted(reached, key=lambda found: found[1].place):
            self._reserve(each, its_head)

    def _reserve(self, line: Line, head: Entry) -> None:
        self._reservations += 1
        line.reserve(head, self._reservations)
        if line.lacked is LimitKind.POOL:
            self._pools[head.pool].keep(head, line)
        # Nothing of its line passes it any more.
        self._change(line)
