"""The serving clock: seconds for which a broker has served this store (promise 4)."""

from typing import Final

from sparkbroker.broker.domain.units import ServingTime
from sparkbroker.broker.ports.clock import Clock

MAX_TICK: Final = 1.0
"""What one tick may add at most, in seconds: a stopped process or a clock that jumps ages nothing."""


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
        """Call this several times a second: what lies further back than MAX_TICK is lost, and is meant to be."""
        self._base = self.now()
        self._ticked = self._clock.monotonic()
        return self._base

    def __repr__(self) -> str:
        return f"<ServingClock {self.now():.3f} s>"
