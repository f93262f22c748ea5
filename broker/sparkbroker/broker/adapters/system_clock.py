"""The machine's clocks."""

import time

from sparkbroker.broker.domain.units import WallTime


class SystemClock:
    """CLOCK_BOOTTIME, which goes on while the machine sleeps and which nobody can set; and the wall clock."""

    def monotonic(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> WallTime:
        return WallTime(time.time())
