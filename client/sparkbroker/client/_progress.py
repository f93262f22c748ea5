"""What a watch of a waiting lease tells, folded into Progress: pure."""

from dataclasses import replace

from sparkbroker.client._errors import AcquireFailed, AcquireTimeout, LeaseEnded, LeaseLost
from sparkbroker.client._values import Progress
from sparkbroker.client._words import reason_name, state_name
from sparkbroker.client.visible import visible
from sparkbroker.v1 import broker_pb2 as pb


def after_update(progress: Progress, update: pb.WatchLeaseResponse) -> Progress:
    """Progress after one message of a watch."""
    match update.WhichOneof("update"):
        case "snapshot":
            return from_lease(update.snapshot)
        case "event":
            return _after_event(progress, update.event)
        case "progress":
            waiting = update.progress
            # What it waits for comes before the event of its new state.
            starts = waiting.blocking_reason == pb.LEASE_REASON_STARTING and progress.state == "QUEUED"
            return replace(
                progress,
                state="PROVISIONING" if starts else progress.state,
                position=waiting.position,
                queue_length=waiting.queue_length,
                reason=reason_name(waiting.blocking_reason),
                message=waiting.message,
                broker_unreachable=False,
            )
        case _:
            return replace(progress, broker_unreachable=False)


def from_lease(lease: pb.Lease) -> Progress:
    """Progress of a lease as read."""
    waiting = lease.progress if lease.HasField("progress") else None
    return Progress(
        lease=lease.name,
        state=state_name(lease.state),
        reason=reason_name(waiting.blocking_reason if waiting else lease.reason),
        message=(waiting.message if waiting else "") or lease.message,
        attempt=lease.attempt,
        position=waiting.position if waiting else 0,
        queue_length=waiting.queue_length if waiting else 0,
    )


def _after_event(progress: Progress, event: pb.LeaseEvent) -> Progress:
    if event.type != pb.LEASE_EVENT_TYPE_STATE:
        return replace(progress, broker_unreachable=False)
    queued = event.state == pb.LEASE_STATE_QUEUED
    return Progress(
        lease=progress.lease,
        state=state_name(event.state),
        reason=reason_name(event.reason),
        message=event.message,
        attempt=event.attempt,
        position=progress.position if queued else 0,
        queue_length=progress.queue_length if queued else 0,
    )


def acquire_error(lease: pb.Lease) -> AcquireFailed:
    """Why a lease that has ended was never READY."""
    kind = AcquireTimeout if lease.reason == pb.LEASE_REASON_ACQUIRE_TIMEOUT else AcquireFailed
    return _ended(kind, lease, f"{lease.name} ended before it was ready")  # type: ignore[return-value]


def lost_error(lease: pb.Lease) -> LeaseLost:
    """Why a lease that was in use has ended."""
    return _ended(LeaseLost, lease, f"{lease.name} is lost")  # type: ignore[return-value]


def _ended(kind: type[LeaseEnded], lease: pb.Lease, what: str) -> LeaseEnded:
    driver = lease.exit if lease.HasField("exit") else pb.DriverExit()
    outcome = lease.outcome or lease.state
    reason = reason_name(lease.reason)
    tail = list(driver.log_tail)
    message = f"{what}: {state_name(outcome)}, {reason}: {visible(lease.message, lines=False) or 'no message'}"
    if tail:
        message += "".join(["\nThe driver's last log lines:", *(f"\n  {visible(line, lines=False)}" for line in tail)])
    return kind(
        message,
        reason=reason,
        lease=lease.name,
        state=state_name(outcome),
        exit_code=driver.exit_code if driver.HasField("exit_code") else None,
        signal=driver.signal,
        out_of_memory=driver.out_of_memory,
        log_tail=tail,
    )
