"""What time does to a lease. Deadlines are in serving time: nothing runs out while no broker serves."""

from typing import Final

import msgspec

from sparkbroker.broker.domain.lease.lease import Lease, LeaseReason, LeaseSharing, LeaseState
from sparkbroker.broker.domain.units import Generation, Seconds, ServingTime

NOTICE_BEFORE: Final = Seconds(60.0)
NEVER: Final = float("inf")
_WAITING: Final = frozenset({LeaseState.QUEUED, LeaseState.PROVISIONING})


class End(msgspec.Struct, frozen=True):
    """The lease expires."""

    reason: LeaseReason
    message: str


class Detach(msgspec.Struct, frozen=True):
    """These attachments are lost, and the lease stays."""

    generations: tuple[Generation, ...]


class Notify(msgspec.Struct, frozen=True):
    """The holder should know."""

    notice: str


class StillWanted(msgspec.Struct, frozen=True):
    """Somebody watches it: ``wait_ttl`` begins anew."""


Verdict = End | Detach | Notify | StillWanted


def verdict(lease: Lease, now: ServingTime, *, watched: bool) -> Verdict | None:
    """The first thing that is due by ``now``; None: nothing is. Apply it and ask again."""
    match lease.state:
        case LeaseState.QUEUED | LeaseState.PROVISIONING:
            return _waiting(lease, now, watched=watched)
        case LeaseState.READY:
            return _ready(lease, now)
        case _:
            return None


def next_due(lease: Lease) -> ServingTime | None:
    """The earliest moment at which ``verdict`` could be more than None; None: never."""
    waiting = lease.state in _WAITING
    if not waiting and lease.state is not LeaseState.READY:
        return None
    first = NEVER
    for attachment in lease.attachments:
        first = min(first, attachment.deadline)
    if waiting:
        if not lease.attachments:
            first = min(first, lease.wait_deadline)
        if lease.acquire_deadline is not None:
            first = min(first, lease.acquire_deadline)
        return ServingTime(first)
    if lease.unattended_deadline is not None:
        first = min(first, lease.unattended_deadline)
    if lease.max_deadline is not None:
        first = min(first, lease.max_deadline, _notice_time(lease) or NEVER)
    return ServingTime(first) if first < NEVER else None


def _waiting(lease: Lease, now: ServingTime, *, watched: bool) -> Verdict | None:
    spec = lease.spec
    if lease.acquire_deadline is not None and now >= lease.acquire_deadline:
        where = "in the queue" if lease.state is LeaseState.QUEUED else "while its driver started"
        return End(LeaseReason.ACQUIRE_TIMEOUT, f"not ready within {_span(spec.acquire_timeout)}: still {where}")
    lost = _lost(lease, now)
    if lost:
        return Detach(lost)
    if not lease.attachments and now >= lease.wait_deadline:
        if watched:
            return StillWanted()
        return End(LeaseReason.NOBODY_WAITED, f"nobody watched or renewed it for {_span(spec.wait_ttl)}")
    return None


def _ready(lease: Lease, now: ServingTime) -> Verdict | None:
    spec = lease.spec
    if lease.max_deadline is not None and now >= lease.max_deadline:
        return End(LeaseReason.MAX_DURATION, f"its max_duration of {_span(spec.max_duration)} is over")
    lost = _lost(lease, now)
    if lost:
        if spec.sharing is LeaseSharing.EXCLUSIVE and not spec.keep_when_holder_lost:
            return End(LeaseReason.HOLDER_LOST, f"its holder sent no heartbeat for {_span(spec.ttl)}{_holder(lease)}")
        return Detach(lost)
    if lease.unattended_deadline is not None and now >= lease.unattended_deadline:
        return End(LeaseReason.UNATTENDED, f"ready, and nobody was attached for {_span(spec.unattended_ttl)}")
    moment = _notice_time(lease)
    if moment is not None and now >= moment:
        return Notify(f"ends at its max_duration of {_span(spec.max_duration)}, soon")
    return None


def _lost(lease: Lease, now: ServingTime) -> tuple[Generation, ...]:
    return tuple(a.generation for a in lease.attachments if now >= a.deadline)


def _notice_time(lease: Lease) -> ServingTime | None:
    if lease.max_deadline is None or lease.spec.max_duration is None or lease.notice:
        return None
    return ServingTime(lease.max_deadline - min(NOTICE_BEFORE, 0.1 * lease.spec.max_duration))


def _holder(lease: Lease) -> str:
    return f" ({lease.attachments[-1].holder})" if lease.attachments and lease.attachments[-1].holder else ""


def _span(seconds: float | None) -> str:
    """A duration for people."""
    if seconds is None:
        return "no time"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
