"""The lease: its values, its state table, and every step that it can take.

Each step is a function that returns the next lease or raises IllegalTransition. Who moves a lease on:

============  ========================================================================================
QUEUED        the admitter; the holder (release); the expirer (acquire deadline, nobody waits any more)
PROVISIONING  the reconciler: READY, RELEASING, or QUEUED again with ``attempt + 1``
READY         the holder, the expirer, the reconciler (driver lost)
RELEASING     the reconciler, once its driver is confirmed gone; ``outcome`` is already stored
terminal      retention
============  ========================================================================================

A lease without a driver of the broker's (mode LOCAL) skips PROVISIONING and RELEASING: there is nothing to wait for.
"""

from bisect import bisect_left
from collections.abc import Mapping
from enum import StrEnum
from operator import attrgetter
from typing import Any, Final

import msgspec

from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.errors import IllegalTransition
from sparkbroker.broker.domain.lease.driver import DriverExit
from sparkbroker.broker.domain.lease.timings import CREATING, Timings
from sparkbroker.broker.domain.units import (
    DriverId,
    Epoch,
    Generation,
    LeaseId,
    Principal,
    Revision,
    Seconds,
    ServingTime,
    SpecId,
    WallTime,
)


class LeaseState(StrEnum):
    """Names are those of the API, without its prefix."""

    QUEUED = "QUEUED"
    PROVISIONING = "PROVISIONING"
    READY = "READY"
    RELEASING = "RELEASING"
    RELEASED = "RELEASED"
    EXPIRED = "EXPIRED"
    FAILED = "FAILED"
    PREEMPTED = "PREEMPTED"


LIVE: Final = frozenset({LeaseState.QUEUED, LeaseState.PROVISIONING, LeaseState.READY})
"""The states in which a lease key is taken and a lease can be attached, renewed and released."""
CHARGED: Final = frozenset({LeaseState.PROVISIONING, LeaseState.READY, LeaseState.RELEASING})
TERMINAL: Final = frozenset({LeaseState.RELEASED, LeaseState.EXPIRED, LeaseState.FAILED, LeaseState.PREEMPTED})

TRANSITIONS: Final[dict[LeaseState, frozenset[LeaseState]]] = {
    LeaseState.QUEUED: frozenset(
        {LeaseState.PROVISIONING, LeaseState.READY, LeaseState.RELEASED, LeaseState.EXPIRED, LeaseState.FAILED}
    ),
    LeaseState.PROVISIONING: frozenset({LeaseState.QUEUED, LeaseState.READY, LeaseState.RELEASING}),
    LeaseState.READY: frozenset({LeaseState.RELEASING}) | TERMINAL,
    LeaseState.RELEASING: TERMINAL,
    LeaseState.RELEASED: frozenset(),
    LeaseState.EXPIRED: frozenset(),
    LeaseState.FAILED: frozenset(),
    LeaseState.PREEMPTED: frozenset(),
}

OPENABLE: Final = "the session can be opened"


class LeaseReason(StrEnum):
    """Why a lease is in its state; names are those of the API, without its prefix."""

    UNSPECIFIED = "UNSPECIFIED"
    QUEUE_QUOTA = "QUEUE_QUOTA"
    CAPACITY = "CAPACITY"
    BEHIND_OTHERS = "BEHIND_OTHERS"
    RESERVED_FOR_ANOTHER = "RESERVED_FOR_ANOTHER"
    INVENTORY = "INVENTORY"
    STARTING = "STARTING"
    RETRYING = "RETRYING"
    SERVING = "SERVING"
    RELEASED_BY_HOLDER = "RELEASED_BY_HOLDER"
    RELEASED_BY_OPERATOR = "RELEASED_BY_OPERATOR"
    REPLACED = "REPLACED"
    HOLDER_LOST = "HOLDER_LOST"
    NOBODY_WAITED = "NOBODY_WAITED"
    UNATTENDED = "UNATTENDED"
    ACQUIRE_TIMEOUT = "ACQUIRE_TIMEOUT"
    MAX_DURATION = "MAX_DURATION"
    START_FAILED = "START_FAILED"
    DRIVER_LOST = "DRIVER_LOST"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    MISCONFIGURED = "MISCONFIGURED"


class LeaseMode(StrEnum):
    """Where the driver runs: ours (CONNECT), the holder's process (LOCAL), or the holder's pod (CLIENT)."""

    CONNECT = "CONNECT"
    LOCAL = "LOCAL"
    CLIENT = "CLIENT"


class LeaseSharing(StrEnum):
    """At most one live attachment, or many."""

    EXCLUSIVE = "EXCLUSIVE"
    SHARED = "SHARED"


class ContainerSize(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Whole cores; bytes of heap; bytes of overhead, None for Spark's formula."""

    cores: int
    memory: int
    overhead: int | None = None


class ExecutorSpec(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """``max_count`` executors are charged."""

    size: ContainerSize
    min_count: int
    max_count: int


class HolderPod(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The pod that is the driver of a lease in mode CLIENT. ``uid`` tells it from others of its name."""

    namespace: str
    name: str
    uid: str


class LeaseSpec(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is asked for, complete: nothing is left to a default. Durations are in seconds, None: no bound."""

    profile: str
    queue: str
    mode: LeaseMode = LeaseMode.CONNECT
    sharing: LeaseSharing = LeaseSharing.EXCLUSIVE
    driver: ContainerSize
    executors: ExecutorSpec | None = None
    conf: dict[str, str] = {}
    packages: tuple[str, ...] = ()
    jars: tuple[str, ...] = ()
    pod: dict[str, Any] = {}
    """Settings of its pods, by name: JSON's values. Without effect where no pods are run."""
    holder_pod: HolderPod | None = None
    """With mode CLIENT, and only then."""
    priority: int = 0
    labels: dict[str, str] = {}
    wait_ttl: Seconds = Seconds(300.0)
    unattended_ttl: Seconds = Seconds(300.0)
    ttl: Seconds = Seconds(30.0)
    acquire_timeout: Seconds | None = None
    max_duration: Seconds | None = None
    keep_when_holder_lost: bool = False


class Attachment(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One live user. ``renewed_epoch`` is the leadership in which it was last renewed (see ``recover``).

    ``session_id`` is its Spark session's, a UUID; the broker ends that session when the attachment ends.
    """

    id: str
    generation: Generation
    session_id: str
    holder: str = ""
    attached_at: WallTime
    deadline: ServingTime
    renewed_epoch: Epoch


class Lease(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A grant of capacity to a principal. ``revision`` is that of its last committed (or committing) change.

    ``wait_deadline``, ``unattended_deadline`` and attachments' deadlines move without a new revision: a renewal is
    neither an event nor a version.
    """

    id: LeaseId
    principal: Principal
    key: str = ""
    spec: LeaseSpec
    spec_id: SpecId = SpecId("")
    """The name of its spec in the store. Empty: the spec is stored with the lease, as earlier versions did."""
    profile_fingerprint: str
    pool: str
    charge: Resources
    state: LeaseState = LeaseState.QUEUED
    reason: LeaseReason = LeaseReason.UNSPECIFIED
    message: str = ""
    hindrance: str = ""
    """What holds its driver's end up: see ``domain.lease.hindrance``."""
    outcome: LeaseState | None = None
    attempt: int = 1
    driver_id: DriverId | None = None
    generation: Generation = Generation(0)
    attachments: tuple[Attachment, ...] = ()
    """By generation, ascending."""
    timings: Timings
    enqueued: ServingTime
    wait_deadline: ServingTime
    unattended_deadline: ServingTime | None = None
    acquire_deadline: ServingTime | None = None
    max_deadline: ServingTime | None = None
    ended: ServingTime | None = None
    """When, by the clock that nobody can set. None: it has not, or an earlier version didn't store it."""
    renewed_epoch: Epoch
    notice: str = ""
    exit: DriverExit | None = None
    revision: Revision = Revision(0)

    @property
    def live(self) -> bool:
        return self.state in LIVE

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL

    @property
    def full_message(self) -> str:
        """As it is shown: with what holds its driver's end up."""
        return f"{self.message}; {self.hindrance}" if self.hindrance else self.message

    def attachment(self, generation: Generation) -> Attachment | None:
        """The live attachment of this generation."""
        index = _index(self.attachments, generation)
        return None if index is None else self.attachments[index]


_GENERATION: Final = attrgetter("generation")


def _index(attachments: tuple[Attachment, ...], generation: Generation) -> int | None:
    """Where the attachment of this generation stands: a shared lease has a thousand, and each is renewed every some seconds."""
    index = bisect_left(attachments, generation, key=_GENERATION)
    return index if index < len(attachments) and attachments[index].generation == generation else None


def _move(lease: Lease, state: LeaseState, reason: LeaseReason, message: str, **changes: object) -> Lease:
    if state not in TRANSITIONS[lease.state]:
        raise IllegalTransition(f"lease {lease.id}: {lease.state} -> {state} ({reason}) is not in the state table")
    return msgspec.structs.replace(lease, state=state, reason=reason, message=message, hindrance="", **changes)


def admit(lease: Lease, driver_id: DriverId, wall: WallTime) -> Lease:
    """QUEUED -> PROVISIONING: its capacity is charged to this driver."""
    timings = Timings(queued=lease.timings.queued, admitted=wall)
    return _move(
        lease, LeaseState.PROVISIONING, LeaseReason.STARTING, CREATING,
        driver_id=driver_id, timings=timings,
    )  # fmt: skip


def grant_local(lease: Lease, now: ServingTime, wall: WallTime) -> Lease:
    """QUEUED -> READY for mode LOCAL: the capacity is all there is to give."""
    timings = msgspec.structs.replace(lease.timings, admitted=wall, ready=wall)
    return _ready(msgspec.structs.replace(lease, timings=timings), now, "the capacity is granted")


def become_ready(lease: Lease, timings: Timings, now: ServingTime) -> Lease:
    """PROVISIONING -> READY."""
    return _ready(msgspec.structs.replace(lease, timings=timings), now, OPENABLE)


def _ready(lease: Lease, now: ServingTime, message: str) -> Lease:
    spec = lease.spec
    return _move(
        lease, LeaseState.READY, LeaseReason.SERVING, message,
        unattended_deadline=None if lease.attachments else ServingTime(now + spec.unattended_ttl),
        max_deadline=None if spec.max_duration is None else ServingTime(now + spec.max_duration),
    )  # fmt: skip


def requeue(lease: Lease, now: ServingTime, message: str) -> Lease:
    """PROVISIONING -> QUEUED: the attempt's driver is confirmed gone; it keeps its place in the queue.

    ``wait_ttl`` begins anew, and not more: whoever waited before may have gone.
    """
    return _move(
        lease, LeaseState.QUEUED, LeaseReason.RETRYING, message,
        attempt=lease.attempt + 1, driver_id=None, wait_deadline=ServingTime(now + lease.spec.wait_ttl),
    )  # fmt: skip


def end(
    lease: Lease,
    outcome: LeaseState,
    reason: LeaseReason,
    message: str,
    wall: WallTime,
    exit: DriverExit | None = None,
) -> Lease:
    """A live lease -> RELEASING if a driver has to go first, else straight to its outcome. Attachments end with it."""
    timings = msgspec.structs.replace(lease.timings, releasing=wall)
    changes = {"attachments": (), "unattended_deadline": None, "exit": exit or lease.exit, "outcome": outcome}
    if lease.driver_id is not None:
        return _move(lease, LeaseState.RELEASING, reason, message, timings=timings, **changes)
    timings = msgspec.structs.replace(timings, ended=wall)
    return _move(lease, outcome, reason, message, timings=timings, **changes)


def finish(lease: Lease, wall: WallTime) -> Lease:
    """RELEASING -> its outcome: the driver is confirmed gone and its capacity free."""
    if lease.outcome is None:
        raise IllegalTransition(f"lease {lease.id} is {lease.state} without an outcome")
    timings = msgspec.structs.replace(lease.timings, ended=wall)
    return _move(lease, lease.outcome, lease.reason, lease.message, timings=timings)


def attach(lease: Lease, attachment: Attachment) -> Lease:
    """A new live user. An exclusive lease's other attachments are superseded (promise 2)."""
    if not lease.live:
        raise IllegalTransition(f"lease {lease.id} is {lease.state}: nothing can attach to it")
    kept = lease.attachments if lease.spec.sharing is LeaseSharing.SHARED else ()
    return msgspec.structs.replace(
        lease, generation=attachment.generation, attachments=(*kept, attachment), unattended_deadline=None
    )


def detach(lease: Lease, generation: Generation, now: ServingTime) -> Lease:
    """Without this attachment; a lease that nobody uses any more waits for ``unattended_ttl`` or ``wait_ttl``."""
    kept = tuple(a for a in lease.attachments if a.generation != generation)
    changes: dict[str, object] = {"attachments": kept}
    if not kept:
        changes["wait_deadline"] = ServingTime(now + lease.spec.wait_ttl)
        if lease.state is LeaseState.READY:
            changes["unattended_deadline"] = ServingTime(now + lease.spec.unattended_ttl)
    return msgspec.structs.replace(lease, **changes)


def renew(lease: Lease, generation: Generation, now: ServingTime, epoch: Epoch) -> Lease:
    """The attachment (or, with generation 0, the wait) lasts from ``now`` on for its full time to live."""
    wait = ServingTime(now + lease.spec.wait_ttl)
    if not generation:
        return msgspec.structs.replace(lease, wait_deadline=wait, renewed_epoch=epoch)
    attachments, index = lease.attachments, _index(lease.attachments, generation)
    if index is not None:
        deadline = ServingTime(now + lease.spec.ttl)
        renewed = msgspec.structs.replace(attachments[index], deadline=deadline, renewed_epoch=epoch)
        attachments = (*attachments[:index], renewed, *attachments[index + 1 :])
    return msgspec.structs.replace(lease, wait_deadline=wait, attachments=attachments, renewed_epoch=epoch)


def want(lease: Lease, now: ServingTime, epoch: Epoch) -> Lease:
    """Somebody has asked for it (again): it waits for them, QUEUED or READY, as long as it would for the first."""
    lease = renew(lease, Generation(0), now, epoch)
    if lease.unattended_deadline is None:
        return lease
    return msgspec.structs.replace(lease, unattended_deadline=ServingTime(now + lease.spec.unattended_ttl))


def recover(lease: Lease, began: Mapping[Epoch, ServingTime]) -> Lease:
    """A lease as loaded by a new leadership (promise 4); ``began`` tells when each of the last ones did, this one included.

    Renewals since the last write of the row are not stored, so a stored deadline may be early. What was last renewed
    under leadership ``n`` lasts at least its full time to live from when ``n + 1`` began: never less than its holder
    was promised, however often a broker restarts, and no more, so that a broker that restarts often frees a dead
    holder's lease all the same.
    """
    if not lease.live:
        return lease

    def later(deadline: ServingTime, renewed: Epoch, lasts: Seconds) -> ServingTime:
        start = began.get(Epoch(renewed + 1))
        return deadline if start is None else ServingTime(max(deadline, start + lasts))

    attachments = tuple(
        msgspec.structs.replace(a, deadline=later(a.deadline, a.renewed_epoch, lease.spec.ttl))
        for a in lease.attachments
    )
    wait = later(lease.wait_deadline, lease.renewed_epoch, lease.spec.wait_ttl)
    # Whoever was about to attach has to find the broker again first.
    unattended = lease.unattended_deadline
    if unattended is not None:
        unattended = later(unattended, lease.renewed_epoch, lease.spec.unattended_ttl)
    return msgspec.structs.replace(lease, wait_deadline=wait, unattended_deadline=unattended, attachments=attachments)


def notify(lease: Lease, notice: str) -> Lease:
    """The holder is told something before it happens."""
    return msgspec.structs.replace(lease, notice=notice)


def retrying(lease: Lease, message: str) -> Lease:
    """PROVISIONING still: this attempt failed, and another follows once its driver is confirmed gone."""
    if lease.state is not LeaseState.PROVISIONING:
        raise IllegalTransition(f"lease {lease.id} is {lease.state}: no attempt of it can be retried")
    return msgspec.structs.replace(lease, reason=LeaseReason.RETRYING, message=message)
