"""When to try again: pure decisions."""

from typing import Final

from sparkbroker.client._errors import BrokerUnreachable, SparkbrokerError, TooManyRequests

DEFAULT_PATIENCE: Final = 60.0
"""Seconds for which a broker that doesn't answer is tried again, for each call."""
FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 5.0


def retry_delay(error: SparkbrokerError, attempt: int, remaining: float, jitter: float) -> float | None:
    """Seconds to wait before the next try, or None: don't.

    ``attempt`` counts tries made, from 1; ``remaining`` are the seconds left for all of it; ``jitter`` is in [0, 1).
    A delay that the broker suggests is kept to; more than remains means no further try.
    """
    if not isinstance(error, BrokerUnreachable | TooManyRequests):
        return None
    if error.retry_after is not None:
        delay = error.retry_after * (1 + 0.1 * jitter)
    else:
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(attempt - 1, 16)) * (0.5 + 0.5 * jitter)
    return delay if delay < remaining else None


def reopen_delay(attempt: int) -> float:
    """Seconds to wait before a stream that ended in good order, with nothing said ``attempt`` times, is opened anew.

    A server that ends each one at once isn't spun on.
    """
    return min(1.0, 0.05 * float(2 ** min(attempt, 5)))
