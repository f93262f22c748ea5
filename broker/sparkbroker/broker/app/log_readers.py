"""Who reads logs: how many at a time, and how fast, so that others are answered in between."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from sparkbroker.broker.app.allowance import Allowance
from sparkbroker.broker.domain.errors import TooMany
from sparkbroker.broker.domain.units import Principal
from sparkbroker.broker.ports.clock import Clock
from sparkbroker.broker.ports.metrics import Metrics

RETRY_AFTER = 5.0


class LogReader:
    """One principal's, together. ``busy_until``: the moment at which what it was told would have been told at its rate."""

    __slots__ = ("_clock", "_metrics", "_rate", "busy_until", "open")

    def __init__(self, rate: float, clock: Clock, metrics: Metrics) -> None:
        self.open = 0
        self.busy_until = 0.0
        self._rate = rate
        self._clock = clock
        self._metrics = metrics

    async def told(self, size: int) -> None:
        """So many bytes were told: wait until more may be. A second's worth is told at once."""
        now = self._clock.monotonic()
        self.busy_until = max(self.busy_until, now) + size / self._rate
        if (ahead := self.busy_until - now - 1.0) > 0:
            self._metrics.limited("log_rate_per_principal")
            await asyncio.sleep(ahead)


class LogReaders:
    """``<LogReaders [3 open]>``."""

    def __init__(self, allowance: Allowance, clock: Clock, metrics: Metrics) -> None:
        self._allowance = allowance
        self._clock = clock
        self._metrics = metrics
        self._readers: dict[Principal, LogReader] = {}

    def __repr__(self) -> str:
        return f"<LogReaders [{sum(reader.open for reader in self._readers.values())} open]>"

    @contextmanager
    def one(self, principal: Principal) -> Iterator[LogReader]:
        """While a log is read. Raise TooMany."""
        reader = self._readers.get(principal)
        if reader is None:
            reader = self._readers[principal] = LogReader(self._allowance.log_rate, self._clock, self._metrics)
        if reader.open >= self._allowance.logs:
            self._metrics.limited("logs_per_principal")
            raise TooMany(
                f"{principal} reads {reader.open} logs, the most that one principal may read at a time; end some of the "
                "readers, or try again later",
                retry_after=RETRY_AFTER,
                limit=str(self._allowance.logs),
            )
        reader.open += 1
        try:
            yield reader
        finally:
            reader.open -= 1
            if not reader.open and reader.busy_until <= self._clock.monotonic() + 1.0:
                self._readers.pop(principal, None)
