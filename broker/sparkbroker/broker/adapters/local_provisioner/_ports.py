"""Finds the port of a driver's Connect server among those that its process listens on."""

import asyncio
from typing import Final

from sparkbroker.broker.adapters import spark_connect
from sparkbroker.broker.adapters.local_provisioner import _sockets
from sparkbroker.broker.adapters.local_provisioner._conf import LOOPBACK
from sparkbroker.broker.ports.clock import Clock

_SNIFF_TIMEOUT: Final = 1.0
_LOOK_EVERY: Final = 0.02
_FORGET_AFTER: Final = 5.0


class PortFinder:
    """Of one driver. Listeners that stayed silent are left alone for a while, then tried again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: set[int] = set()
        self._seen_since = 0.0

    async def find(self, pid: int, budget: float) -> int | None:
        """The port, or None if there is none within ``budget`` seconds."""
        now = self._clock.monotonic()
        if now - self._seen_since > _FORGET_AFTER:
            self._seen.clear()
            self._seen_since = now
        async with asyncio.TaskGroup() as group:
            sniffs: dict[asyncio.Task[bool], tuple[int, int]] = {}
            try:
                while self._clock.monotonic() < now + budget:
                    for inode, port in self._new_listeners(pid).items():
                        sniff = spark_connect.speaks_http2(LOOPBACK, port, _SNIFF_TIMEOUT)
                        sniffs[group.create_task(sniff)] = (inode, port)
                    found = await self._first_greeting(sniffs)
                    if found is not None:
                        return found
            finally:
                for task, (inode, _) in sniffs.items():
                    task.cancel()
                    self._seen.discard(inode)
        return None

    async def _first_greeting(self, sniffs: dict[asyncio.Task[bool], tuple[int, int]]) -> int | None:
        """The port of a listener that has greeted, if any does before the next look."""
        if not sniffs:
            await asyncio.sleep(_LOOK_EVERY)
            return None
        done, _ = await asyncio.wait(sniffs, timeout=_LOOK_EVERY, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            _, port = sniffs.pop(task)
            if task.result():
                return port
        return None

    def _new_listeners(self, pid: int) -> dict[int, int]:
        """Ports by inode of the process's listeners that weren't seen before. Its descriptors, of which a JVM has
        hundreds, are looked at only when anybody has a new listener."""
        listening = _sockets.listening_on_loopback()
        new = listening.keys() - self._seen
        if not new:
            return {}
        own = _sockets.sockets_of(pid)
        self._seen |= new
        return {inode: listening[inode] for inode in new & own}
