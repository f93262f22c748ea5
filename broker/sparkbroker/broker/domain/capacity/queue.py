"""A queue: a share of the capacity, and the order in which leases wait for it."""

from typing import Final

import msgspec

from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.errors import InvalidField
from sparkbroker.broker.domain.units import Principal, Seconds, ServingTime

MAX_PRIORITY: Final = 1000
"""No bound may be further from 0: the place in the queue is a float of seconds."""


class PriorityBounds(msgspec.Struct, frozen=True, kw_only=True):
    """Which priorities may be asked for, by users and by operators."""

    min: int = -5
    max: int = 5
    operator_min: int = -MAX_PRIORITY
    operator_max: int = MAX_PRIORITY

    def of(self, *, operator: bool) -> tuple[int, int]:
        """The lowest and the highest that such a caller may ask for."""
        return (self.operator_min, self.operator_max) if operator else (self.min, self.max)


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """One queue.

    ``nominal``: names listed in it are limited; names not listed (such as ``endpoint``) are not limited by the queue.
    ``priority_step``: how much waiting one step of priority is worth. ``bypass_budget``: so many leases may be
    admitted past one that doesn't fit before capacity is kept for it. ``users``: who may use it; empty: everybody.
    ``max_queued``: how many leases may wait.
    """

    name: str
    nominal: Resources = Resources()
    priority_step: Seconds = Seconds(300.0)
    bypass_budget: int = 16
    users: tuple[str, ...] = ()
    max_queued: int = 10_000
    priority: PriorityBounds = PriorityBounds()

    def may_use(self, principal: Principal) -> bool:
        """Whether this principal is among its users."""
        return not self.users or principal in self.users


def check_priority(asked: int | None, default: int, queue: Queue, *, operator: bool) -> None:
    """Raise InvalidField for a priority that this caller may not ask for. A profile's own default is always open."""
    low, high = queue.priority.of(operator=operator)
    if asked is not None and asked != default and not low <= asked <= high:
        expected = f"in queue `{queue.name}` it must be from {low} to {high}"
        raise InvalidField("spec.priority", f"{asked} is out of range", expected)


def priority_key(enqueued: ServingTime, priority: int, step: Seconds) -> float:
    """The place in the queue: the smallest is first. It doesn't change while time passes, so that nothing is sorted
    again, and yet waiting counts: a lease overtakes one of higher priority once it has waited that much longer."""
    return enqueued - priority * step
