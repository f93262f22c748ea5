"""A queue: a share of the capacity, and the order in which leases wait for it."""

import msgspec

from sparkbroker.broker.domain.resources import Resources
from sparkbroker.broker.domain.units import Principal, Seconds, ServingTime


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """One queue.

    ``nominal``: names listed in it are limited; names not listed (such as ``endpoint``) are not limited by the queue.
    ``priority_step``: how much waiting one step of priority is worth. ``bypass_budget``: so many leases may be
    admitted past one that doesn't fit before capacity is kept for it. ``users``: who may use it; empty: everybody.
    ``max_queued``: how many leases may wait.
    """

    name: str
    nominal: Resources = Resources()
    priority_step: Seconds = Seconds(60.0)
    bypass_budget: int = 16
    users: tuple[str, ...] = ()
    max_queued: int = 10_000

    def may_use(self, principal: Principal) -> bool:
        """Whether this principal is among its users."""
        return not self.users or principal in self.users


def priority_key(enqueued: ServingTime, priority: int, step: Seconds) -> float:
    """The place in the queue: the smallest is first. It doesn't change while time passes, so that nothing is sorted
    again, and yet waiting counts: a lease overtakes one of higher priority once it has waited that much longer."""
    return enqueued - priority * step
