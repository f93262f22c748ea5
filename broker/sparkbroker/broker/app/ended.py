"""The leases that have ended and are kept: in the order in which they ended, by principal, and within two bounds.

Beyond a bound the principal that keeps most loses its oldest: nobody's history is another one's to end.
"""

from collections import deque
from collections.abc import Iterator

import msgspec

from sparkbroker.broker.domain.fairness import fair_share
from sparkbroker.broker.domain.lease.lease import Lease
from sparkbroker.broker.domain.units import LeaseId, Principal, ServingTime, SpecId


class _Kept(msgspec.Struct, frozen=True, gc=False):
    lease_id: LeaseId
    ended: ServingTime
    size: int
    spec_id: SpecId
    spec_size: int


class _Of:
    """One principal's. ``specs``: how many of them have each spec, which counts once."""

    __slots__ = ("kept", "size", "specs")

    def __init__(self) -> None:
        self.kept: deque[_Kept] = deque()
        self.specs: dict[SpecId, int] = {}
        self.size = 0

    def add(self, kept: _Kept) -> int:
        """What it takes."""
        self.kept.append(kept)
        shared = self.specs.get(kept.spec_id, 0)
        self.specs[kept.spec_id] = shared + 1
        return self._resized(kept.size if shared else kept.size + kept.spec_size)

    def take(self) -> tuple[LeaseId, int]:
        """The oldest, and by how much less is taken (negative)."""
        kept = self.kept.popleft()
        left = self.specs[kept.spec_id] - 1
        if left:
            self.specs[kept.spec_id] = left
        else:
            del self.specs[kept.spec_id]
        return kept.lease_id, self._resized(-kept.size if left else -kept.size - kept.spec_size)

    def _resized(self, change: int) -> int:
        self.size += change
        return change


class Ended:
    """``<Ended [12 leases of 3 principals, 23456 bytes]>``."""

    def __init__(self) -> None:
        self._of: dict[Principal, _Of] = {}
        self._count = 0
        self.size = 0
        """Bytes, roughly, of all that are kept."""

    def __repr__(self) -> str:
        return f"<Ended [{self._count} leases of {len(self._of)} principals, {self.size} bytes]>"

    def __len__(self) -> int:
        return self._count

    def of(self, principal: Principal) -> Iterator[LeaseId]:
        """One principal's, oldest first."""
        kept = self._of.get(principal)
        return iter(()) if kept is None else (each.lease_id for each in kept.kept)

    def add(self, lease: Lease, ended: ServingTime, size: int, spec_size: int) -> None:
        """A lease has ended, after all that were added before. ``size`` is without its spec."""
        own = self._of.get(lease.principal)
        if own is None:
            own = self._of[lease.principal] = _Of()
        self.size += own.add(_Kept(lease.id, ended, size, lease.spec_id, spec_size))
        self._count += 1

    def over(self, count: int, size: int) -> bool:
        """Whether more is kept than may be."""
        return self._count > count or self.size > size

    def due(self, before: ServingTime, count: int, size: int, at_once: int) -> list[LeaseId]:
        """Take out, and return, what is kept no longer: what ended before a time, and what is beyond a bound."""
        due: list[LeaseId] = []
        most = fair_share((len(own.kept) for own in self._of.values()), count)
        largest = fair_share((own.size for own in self._of.values()), size)
        for principal, own in list(self._of.items()):
            while (
                own.kept
                and len(due) < at_once
                and (
                    own.kept[0].ended <= before
                    or (most is not None and len(own.kept) > most and self._count > count)
                    or (largest is not None and own.size > largest and self.size > size)
                )
            ):
                due.append(self._take(own))
            if not own.kept:
                del self._of[principal]
        return due

    def _take(self, own: _Of) -> LeaseId:
        lease_id, change = own.take()
        self.size += change
        self._count -= 1
        return lease_id
