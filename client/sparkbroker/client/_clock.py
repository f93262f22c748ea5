"""The client's time."""

import time


def now() -> float:
    """Seconds that never go back and that count the machine's sleep, where the system can tell (CLOCK_BOOTTIME)."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
