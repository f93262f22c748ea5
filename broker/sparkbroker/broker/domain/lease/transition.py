"""What a step changes, of a driver and of the lease that it fills. ``plan`` decides the step, ``app`` records this.

Promises: a lease is QUEUED again, or over, only with its driver GONE (5), so that it never has two; a driver is made only
after the step that records it (6); a session that was lost is said to be (9). A step that comes too late, since its driver
has gone on meanwhile, changes nothing. Not promised: that a step was carried out; it is applied after that.
"""

from typing import Final, assert_never

import msgspec

from sparkbroker.broker.domain.lease import lease as steps
from sparkbroker.broker.domain.lease import plan
from sparkbroker.broker.domain.lease.driver import (
    Driver,
    DriverExit,
    DriverKind,
    DriverState,
    ProvisionerName,
    move,
    seen_with,
)
from sparkbroker.broker.domain.lease.hindrance import explain
from sparkbroker.broker.domain.lease.lease import Lease, LeaseReason, LeaseState
from sparkbroker.broker.domain.lease.observation import Observation
from sparkbroker.broker.domain.lease.timings import durations, seen_starting
from sparkbroker.broker.domain.units import DriverId, ServingTime, WallTime

_ENDING: Final = frozenset({DriverState.STOPPING, DriverState.GONE})


class Now(msgspec.Struct, frozen=True):
    """The time of a step, by both clocks."""

    serving: ServingTime
    wall: WallTime


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be recorded together. None: that doesn't change."""

    driver: Driver | None = None
    forgotten: bool = False
    """Nobody needs this driver's record any more."""
    lease: Lease | None = None
    """An event tells that it is in another state, or why it is still in the same one."""
    noted: Lease | None = None
    """As ``lease``, and no event: it is shown, and written with the lease's next change."""
    phases: dict[str, float] = {}
    """How long the phases of a start took that is over now, in seconds."""


NOTHING: Final = Changes()


def admit(
    lease: Lease,
    driver_id: DriverId,
    *,
    provisioner: ProvisionerName,
    start_timeout: float,
    now: Now,
) -> Changes:
    """A QUEUED lease has got its capacity: the intent to make its driver."""
    driver = Driver(
        id=driver_id,
        lease_id=lease.id,
        attempt=lease.attempt,
        provisioner=provisioner,
        profile_fingerprint=lease.profile_fingerprint,
        queue=lease.spec.queue,
        pool=lease.pool,
        target=lease.charge,
        created=now.wall,
        start_deadline=ServingTime(now.serving + start_timeout),
    )
    return Changes(driver=driver, lease=steps.admit(lease, driver_id, now.wall))


def end(
    lease: Lease, driver: Driver | None, outcome: LeaseState, reason: LeaseReason, message: str, now: Now
) -> Changes:
    """Whoever ends a live lease: its driver has no more use."""
    return Changes(
        driver=None if driver is None or driver.state in _ENDING else _stopped(driver, message, now),
        lease=steps.end(lease, outcome, reason, message, now.wall),
    )


def look(driver: Driver, lease: Lease | None, seen: Observation) -> Changes:
    """What an observation changes by itself: its handle and its charge, and what is shown of its start."""
    noticed = seen_with(driver, seen.handle, seen.resources)
    return Changes(driver=None if noticed is driver else noticed, noted=_noted(driver, lease, seen))


def find(provisioner: ProvisionerName, seen: Observation, now: Now) -> Changes:
    """Something runs that nobody recorded: it is charged for what it takes, and ended (promise 6)."""
    driver = Driver(
        id=seen.driver_id,
        kind=DriverKind.UNKNOWN,
        provisioner=provisioner,
        profile_fingerprint=seen.profile_fingerprint,
        queue="",
        pool=seen.pool or "local",
        target=seen.resources,
        observed=seen.resources,
        state=DriverState.STOPPING,
        handle=seen.handle,
        created=seen.process_started or now.wall,
        start_deadline=now.serving,
        stop_requested=now.serving,
        stop_message="nobody recorded it",
    )
    return Changes(driver=driver)


def come_back(driver: Driver, seen: Observation, now: Now) -> Changes:
    """It was confirmed gone, and yet it runs. That is not in the state table: it is no step that a driver takes, but a record
    that was wrong."""
    return Changes(
        driver=msgspec.structs.replace(
            driver,
            state=DriverState.STOPPING,
            handle=seen.handle,
            observed=seen.resources,
            stop_requested=now.serving,
        )
    )


def apply(
    driver: Driver, lease: Lease | None, step: plan.Step, *, seen: Observation | None, max_attempts: int, now: Now
) -> Changes:
    """What a step changes that was carried out. ``lease``: the one that this driver fills now, None: none. ``seen``: what was
    seen of the driver, before the step or by it."""
    match step:
        case plan.Create():
            return NOTHING if seen is None else _created(driver, lease, seen)
        case plan.BecomeReady():
            return _ready(driver, lease, seen, now)
        case plan.EndSessions(sessions):
            left = tuple(session for session in driver.ending_sessions if session not in sessions)
            changed = left != driver.ending_sessions
            return Changes(driver=msgspec.structs.replace(driver, ending_sessions=left) if changed else None)
        case plan.Stop():
            return _failed(driver, lease, step, max_attempts, now)
        case plan.Gone(exit):
            return _gone(driver, lease, exit, now)
        case plan.Wait() | plan.Delete():
            return NOTHING
        case _:
            assert_never(step)


def _created(driver: Driver, lease: Lease | None, seen: Observation) -> Changes:
    if driver.state is DriverState.PENDING:
        driver = move(driver, DriverState.STARTING, handle=seen.handle, observed=seen.resources)
        return Changes(driver=driver, noted=_noted(driver, lease, seen))
    # It was released meanwhile: what was made has to be found again to be ended.
    return Changes(driver=msgspec.structs.replace(driver, handle=seen.handle, observed=seen.resources))


def _noted(driver: Driver, lease: Lease | None, seen: Observation) -> Lease | None:
    """Phase timings and hindrances as they happen."""
    if lease is None or driver.state in _ENDING:
        return None
    noted = lease
    if lease.state is LeaseState.PROVISIONING:
        noted = msgspec.structs.replace(lease, timings=seen_starting(lease.timings, seen))
    noted = explain(noted, seen.message)
    return None if noted == lease else noted


def _ready(driver: Driver, lease: Lease | None, seen: Observation | None, now: Now) -> Changes:
    if driver.state is not DriverState.STARTING:
        return NOTHING
    driver = move(driver, DriverState.READY)
    if lease is None or lease.state is not LeaseState.PROVISIONING:
        return Changes(driver=driver)
    ready = seen.ready if seen is not None and seen.ready is not None else now.wall
    timings = msgspec.structs.replace(lease.timings, ready=ready)
    return Changes(driver=driver, lease=steps.become_ready(lease, timings, now.serving), phases=durations(timings))


def _failed(driver: Driver, lease: Lease | None, stop: plan.Stop, max_attempts: int, now: Now) -> Changes:
    """So has its lease, or this attempt of it. A session that was lost is never made again (promise 9)."""
    if driver.state in _ENDING:
        return NOTHING
    lost = driver.state is DriverState.READY
    stopped = _stopped(driver, stop.message, now, exit=stop.exit, misconfigured=stop.misconfigured)
    if lease is None or not lease.live:
        return Changes(driver=stopped)
    if not lost and not stop.misconfigured and lease.attempt < max_attempts:
        text = f"{stop.message}; attempt {lease.attempt + 1} of {max_attempts} follows"
        return Changes(driver=stopped, lease=steps.retrying(lease, text))
    reason = LeaseReason.DRIVER_LOST if lost else LeaseReason.START_FAILED
    if stop.exit is not None and stop.exit.out_of_memory:
        reason = LeaseReason.OUT_OF_MEMORY
    elif stop.misconfigured:
        reason = LeaseReason.MISCONFIGURED
    ended = steps.end(lease, LeaseState.FAILED, reason, stop.message, now.wall, stop.exit)
    return Changes(driver=stopped, lease=ended)


def _gone(driver: Driver, lease: Lease | None, exit: DriverExit | None, now: Now) -> Changes:
    gone = move(driver, DriverState.GONE, exit=driver.exit or exit)
    if lease is None:
        return Changes(driver=gone, forgotten=driver.lease_id is None)
    if lease.state is LeaseState.RELEASING:
        return Changes(driver=gone, lease=steps.finish(lease, now.wall))
    if lease.state is LeaseState.PROVISIONING:
        return Changes(driver=gone, lease=steps.requeue(lease, now.serving, lease.message))
    return Changes(driver=gone)


def _stopped(driver: Driver, message: str, now: Now, **changes: object) -> Driver:
    return move(
        driver, DriverState.STOPPING,
        stop_requested=now.serving, stop_message=message, ending_sessions=(), **changes,
    )  # fmt: skip
