"""Names for new things: unique, and in the order of time, which a store's index likes (about twice as fast)."""

import os
import uuid

from sparkbroker.broker.domain.units import DriverId, LeaseId
from sparkbroker.broker.ports.clock import Clock


class Ids:
    """40 bits of milliseconds (34 years), and 64 random bits."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._random = b""

    def lease(self) -> LeaseId:
        return LeaseId(self._make())

    def driver(self) -> DriverId:
        return DriverId(f"d{self._make()}")

    def attachment(self) -> str:
        return f"a{self._make()}"

    def session(self) -> str:
        """A Spark session id: a UUID that can't be guessed."""
        return str(uuid.uuid4())

    def _make(self) -> str:
        milliseconds = int(self._clock.wall() * 1000) & 0xFF_FFFF_FFFF
        if not self._random:
            self._random = os.urandom(4096)  # one call of the kernel for many: it costs more than all else here
        random, self._random = self._random[:8], self._random[8:]
        return f"{milliseconds:010x}{random.hex()}"
