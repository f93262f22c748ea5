"""What all listeners of a server share: an account of the calls, streams and connections, and who keeps it."""

import asyncio
from collections.abc import Iterable
from time import perf_counter
from typing import Final

from sparkbroker.broker.app.shares import EVERYBODY, Shares
from sparkbroker.broker.app.waking import Wakes
from sparkbroker.broker.ports.authenticator import Authenticator
from sparkbroker.broker.ports.metrics import Metrics
from sparkbroker.broker.rpc.connections import Connections
from sparkbroker.broker.rpc.inflight import InFlight
from sparkbroker.broker.rpc.limits import Limits
from sparkbroker.broker.rpc.refusals import Refusals
from sparkbroker.broker.rpc.streams import Streams

CALLS_AT_ONCE: Final = 16
"""Calls that begin in one turn of the loop: some milliseconds of work."""
PERIOD: Final = 1.0
"""Seconds between two looks at what has become too old."""


class Calls:
    """``run`` ends what has become too old, or isn't allowed any more."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self.streams = Streams(limits, metrics)
        self.connections = Connections(limits, metrics)
        self.inflight = InFlight(limits, metrics, self.connections)
        self.beginning = Wakes(CALLS_AT_ONCE)
        """Whose turn it is to begin a call."""
        self.paging = Shares(EVERYBODY, 1)
        """Whose turn it is to make a page: each principal makes one at a time, which is megabytes."""
        self.refusals = Refusals("rpc.refused", "code")

    def __repr__(self) -> str:
        return f"<Calls {self.streams!r} {self.inflight!r} {self.connections!r}>"

    async def run(self, ports: Iterable[int], authenticators: Iterable[Authenticator]) -> None:
        """Until cancelled. ``ports`` are those of the TCP listeners."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.connections.run(ports), name="connections")
            group.create_task(self._look_after(tuple(authenticators)), name="calls")

    async def _look_after(self, authenticators: tuple[Authenticator, ...]) -> None:
        changes = [each.changes for each in authenticators]
        while True:
            await asyncio.sleep(PERIOD)
            now = perf_counter()
            self.inflight.interrupt_late(now)
            for name in set(self.inflight.stalled(now)):
                self.connections.close(name, "answer_seconds")
            self.refusals.tell(now)
            before, changes = changes, [each.changes for each in authenticators]
            if changes != before:
                self.streams.admit_again()
