"""Time, as an argument of everything else."""

from typing import Protocol

from sparkbroker.broker.domain.units import WallTime


class Clock(Protocol):
    """The only source of time."""

    def monotonic(self) -> float:
        """Seconds that never go back and that count sleep of the machine (CLOCK_BOOTTIME)."""
        ...

    def wall(self) -> WallTime:
        """Unix seconds, as the machine believes."""
        ...
