"""The client's time."""

import time
from datetime import UTC, datetime


def now() -> float:
    """Seconds that never go back and that count the machine's sleep, where the system can tell (CLOCK_BOOTTIME).

    Promise 3: so a deadline passes here no later than at the broker.
    """
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def utc() -> datetime:
    """The wall clock's time, for what others have dated."""
    return datetime.fromtimestamp(time.time(), UTC)
