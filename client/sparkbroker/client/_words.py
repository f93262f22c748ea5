"""The protocol's enums as words without their prefix."""

import re
from typing import Any

from sparkbroker.v1 import broker_pb2 as pb


def word(kind: Any, number: int) -> str:
    """QUEUED for LEASE_STATE_QUEUED, where ``kind`` describes LeaseState. Empty: unspecified; the number of one that is newer than
    this client."""
    if not number:
        return ""
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", kind.name).upper() + "_"
    known = kind.values_by_number.get(number)
    return str(number) if known is None else str(known.name).removeprefix(prefix)


def state_name(state: int) -> str:
    """QUEUED for LEASE_STATE_QUEUED."""
    return word(pb.LeaseState.DESCRIPTOR, state) or "UNSPECIFIED"


def reason_name(reason: int) -> str:
    """Likewise for a LeaseReason."""
    return word(pb.LeaseReason.DESCRIPTOR, reason) or "UNSPECIFIED"
