"""How long the times of a lease may be, whether a request names them or the configuration's defaults."""

import math
from typing import Final

import msgspec

DAY: Final = 86_400.0


class Bounds(msgspec.Struct, frozen=True):
    """From ``low`` to ``high`` seconds; ``words``: the same for people."""

    low: float
    high: float
    words: str

    def include(self, seconds: float) -> bool:
        return math.isfinite(seconds) and self.low <= seconds <= self.high


DURATIONS: Final[dict[str, Bounds]] = {
    "ttl": Bounds(1.0, 3600.0, "1s to 1 hour (5s or more is sensible)"),
    "wait_ttl": Bounds(1.0, 7 * DAY, "1s to 7 days"),
    "unattended_ttl": Bounds(1.0, 7 * DAY, "1s to 7 days"),
    "acquire_timeout": Bounds(1.0, 30 * DAY, "1s to 30 days"),
    "max_duration": Bounds(1.0, 366 * DAY, "1s to 366 days"),
}
