"""How fast the broker may call: a bucket of tokens. Pure but for the wait itself."""

import asyncio

from sparkbroker.broker.ports.clock import Clock


class Bucket:
    """``rate`` tokens a second, ``burst`` at once. A taken token may lie in the future: the caller waits for it."""

    def __init__(self, rate: float, burst: int) -> None:
        self._interval = 1.0 / rate
        self._slack = burst * self._interval
        self._next = float("-inf")

    def take(self, now: float) -> float:
        """After how many seconds the call may be made."""
        self._next = max(self._next, now - self._slack) + self._interval
        return max(0.0, self._next - now)


class Throttle:
    """Makes callers wait their turn, in order."""

    def __init__(self, clock: Clock, *, rate: float, burst: int) -> None:
        self._clock = clock
        self._bucket = Bucket(rate, burst)

    async def turn(self) -> None:
        """Return when one more call may be made. A cancelled wait has used up its turn."""
        delay = self._bucket.take(self._clock.monotonic())
        if delay > 0:
            await asyncio.sleep(delay)
