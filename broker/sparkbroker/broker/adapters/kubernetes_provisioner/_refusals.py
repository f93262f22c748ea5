"""Why executors that are wanted don't exist, of drivers that are the broker's own.

Spark makes executors itself, so that a quota is full, or what admission and rights refuse, is answered to the driver alone, which
writes it to its log. There it is looked up, while executors are missing: seldom, and never while all exist.
"""

import asyncio
from typing import Final

from sparkbroker.broker.adapters.kubernetes_provisioner import _logs
from sparkbroker.broker.adapters.kubernetes_provisioner._driver import KnownDriver
from sparkbroker.broker.adapters.kubernetes_provisioner._errors import ApiFailed, refusal
from sparkbroker.broker.adapters.kubernetes_provisioner._fleet import Fleet
from sparkbroker.broker.ports.provisioner import Observation, Phase

FIRST_LOOK: Final = 5.0
"""Seconds for which executors are missing before the log is read; then twice as long each time, up to LONGEST_PAUSE."""
LONGEST_PAUSE: Final = 300.0
RECENT: Final = 60
"""Seconds of the log that are read: Spark tries again at least every 30 s, and what it no longer says holds no more."""
READ_TIMEOUT: Final = 5.0


class Refusals:
    """Of the drivers of one fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def __repr__(self) -> str:
        return f"<Refusals of {self._fleet!r}>"

    def attend(self, known: KnownDriver, seen: Observation) -> None:
        """See to it that a lease tells why executors are missing, and tells it no longer than that."""
        name = f"executors {known.id}"
        if known.client or seen.phase is not Phase.READY:
            return  # one that has ended may have ended of it
        if not _missing(seen):
            known.refused = ""
        elif name not in self._fleet.tasks:
            self._fleet.tasks.start(name, self._find_out(known))

    async def _find_out(self, known: KnownDriver) -> None:
        """Until none is missing."""
        clock, pause = self._fleet.clock, FIRST_LOOK
        due = clock.monotonic() + pause
        while True:
            known.changed.clear()
            if not _missing(self._fleet.look(known.id)):
                return
            if clock.monotonic() >= due:
                pause = min(2 * pause, LONGEST_PAUSE)
                due = clock.monotonic() + pause
                await self._read(known)
            await known.until_changed()

    async def _read(self, known: KnownDriver) -> None:
        own = self._fleet.own_pod(known)
        if own is None:
            return
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                lines = await _logs.recent(self._fleet.cluster, own, known.token, RECENT)
        except (ApiFailed, TimeoutError):
            return  # a hint that isn't given: what was said goes on being told
        found = refusal(lines, own.metadata.namespace)
        if found != known.refused:
            known.refused = found
            self._fleet.note([known.id])


def _missing(seen: Observation) -> bool:
    """Whether fewer executors exist than are wanted, whatever becomes of those that do."""
    there = seen.executors
    return seen.phase is Phase.READY and there is not None and there.running + there.pending < there.wanted
