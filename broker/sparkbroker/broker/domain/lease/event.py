"""What is told of a lease: a committed change, as those who watch hear of it."""

from enum import StrEnum

import msgspec

from sparkbroker.broker.domain.lease.lease import LeaseReason, LeaseState
from sparkbroker.broker.domain.units import Generation, LeaseId, Revision, WallTime


class EventType(StrEnum):
    """What an event tells; names are those of the API."""

    STATE = "STATE"
    ATTACHED = "ATTACHED"
    DETACHED = "DETACHED"
    NOTICE = "NOTICE"
    FORCED = "FORCED"


class LeaseEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One committed change of a lease."""

    revision: Revision
    lease_id: LeaseId
    type: EventType
    state: LeaseState
    reason: LeaseReason
    message: str
    time: WallTime
    attempt: int
    generation: Generation = Generation(0)
    # What a filter needs, so that a watch doesn't have to read the lease as it was.
    principal: str
    queue: str
    profile: str
    key: str = ""
    labels: dict[str, str] = {}

    @property
    def told(self) -> "LeaseEvent":
        """What a watcher is told of it: a client that takes nothing keeps thousands of them in memory, and labels are large."""
        return msgspec.structs.replace(self, key="", labels={}) if self.labels or self.key else self
