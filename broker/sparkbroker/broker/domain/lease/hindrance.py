"""What holds up a lease's start, as part of its message, or its driver's end, beside it. Pure.

It is told while it lasts and no longer: of a start with the next observation, of an end with the next call that succeeds.
It is no event, and each function returns the lease itself where there is nothing new to tell.
"""

import msgspec

from sparkbroker.broker.domain.lease.lease import OPENABLE, Lease, LeaseReason, LeaseState
from sparkbroker.broker.domain.lease.timings import starting


def explain(lease: Lease, what: str) -> Lease:
    """The same, with what is seen of its driver in its message: how far its start is and what it waits for, or what it lacks
    of executors.

    ``what`` may be empty. A lease that is retried or ending keeps its message.
    """
    base = {LeaseState.PROVISIONING: starting(lease.timings), LeaseState.READY: OPENABLE}.get(lease.state)
    if base is None or lease.reason not in (LeaseReason.STARTING, LeaseReason.SERVING):
        return lease
    message = f"{base}: {what}" if what else base
    return lease if message == lease.message else msgspec.structs.replace(lease, message=message)


def hindered(lease: Lease, failure: str) -> Lease:
    """The same, with why a call about its driver failed, which is tried again.

    A lease that is READY keeps its message: that its driver can't be looked at is a doubt, and no news for its holder.
    """
    if lease.state is LeaseState.PROVISIONING and lease.reason is LeaseReason.STARTING:
        return explain(lease, f"{failure}; tried again")
    if lease.state in (LeaseState.PROVISIONING, LeaseState.RELEASING):
        return _ending(lease, f"its driver isn't confirmed gone: {failure}; tried again")
    return lease


def unhindered(lease: Lease) -> Lease:
    """The same, once all calls about its driver's end have succeeded."""
    return _ending(lease, "")


def _ending(lease: Lease, hindrance: str) -> Lease:
    return lease if hindrance == lease.hindrance else msgspec.structs.replace(lease, hindrance=hindrance)
