"""The serving clock: seconds for which a broker has served this store (promise 4)."""

from typing import Final

from sparkbroker.broker.domain.units import ServingTime
from sparkbroker.broker.ports.clock import Clock

MAX_TICK: Final = 1.0
"""What one tick may add at most, in seconds: a stopped process or a clock that jumps ages nothing."""

STORE_STEP: Final = 5.0
"""Seconds of serving that a crash may lose: leases then last that much longer, never shorter."""
STORE_SHARE: Final = 0.25
"""And no more than this share of what this broker has served: one that is killed again and again comes on."""


def store_is_due(began: ServingTime, stored: ServingTime, now: ServingTime) -> bool:
    """Whether the clock, last stored at ``stored``, is to be stored. Some 20 times in the first 20 s, then in even steps."""
    return now - stored >= min(STORE_STEP, STORE_SHARE * (stored - began))


class ServingClock:
    """Runs on from where the last leadership left it, and stands still while nobody ticks it."""

    def __init__(self, clock: Clock, base: ServingTime) -> None:
        self._clock = clock
        self._base = base
        self._ticked = clock.monotonic()

    def now(self) -> ServingTime:
        """Never goes back. Ahead of the last tick by at most MAX_TICK."""
        return ServingTime(self._base + min(max(self._clock.monotonic() - self._ticked, 0.0), MAX_TICK))

    def tick(self) -> ServingTime:
        """Promise 4. Call this several times a second: what lies further back than MAX_TICK is lost, and is meant to be."""
        self._base = self.now()
        self._ticked = self._clock.monotonic()
        return self._base

    def __repr__(self) -> str:
        return f"<ServingClock {self.now():.3f} s>"
