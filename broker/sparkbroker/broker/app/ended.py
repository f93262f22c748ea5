"""The leases that have ended and are kept: in the order in which they ended, by principal, and within two bounds.

Beyond a bound the principal that keeps most loses its oldest: nobody's history is another one's to end.
"""

from collections import deque
from collections.abc import Iterator

import msgspec

from sparkbroker.broker.domain.fairness import fair_share
from sparkbroker.broker.domain.units import LeaseId, Principal, WallTime


class _Kept(msgspec.Struct, frozen=True, gc=False):
    lease_id: LeaseId
    ended: WallTime
    size: int


class _Of:
    """One principal's."""

    __slots__ = ("kept", "size")

    def __init__(self) -> None:
        self.kept: deque[_Kept] = deque()
        self.size = 0


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

    def add(self, principal: Principal, lease_id: LeaseId, ended: WallTime, size: int) -> None:
        """A lease has ended, after all that were added before."""
        own = self._of.get(principal)
        if own is None:
            own = self._of[principal] = _Of()
        own.kept.append(_Kept(lease_id, ended, size))
        own.size += size
        self.size += size
        self._count += 1

    def over(self, count: int, size: int) -> bool:
        """Whether more is kept than may be."""
        return self._count > count or self.size > size

    def due(self, before: WallTime, count: int, size: int, at_once: int) -> list[LeaseId]:
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
        kept = own.kept.popleft()
        own.size -= kept.size
        self.size -= kept.size
        self._count -= 1
        return kept.lease_id
