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
        self._silent: set[int] = set()
        self._silent_since = 0.0

    async def find(self, pid: int, budget: float) -> int | None:
        """The port, or None if there is none within ``budget`` seconds."""
        now = self._clock.monotonic()
        if now - self._silent_since > _FORGET_AFTER:
            self._silent.clear()
            self._silent_since = now
        async with asyncio.TaskGroup() as group:
            sniffs: dict[asyncio.Task[bool], tuple[int, int]] = {}
            try:
                while self._clock.monotonic() < now + budget:
                    known = self._silent | {inode for inode, _ in sniffs.values()}
                    for inode, port in _new_listeners(pid, known).items():
                        sniff = spark_connect.speaks_http2(LOOPBACK, port, _SNIFF_TIMEOUT)
                        sniffs[group.create_task(sniff)] = (inode, port)
                    found = await self._first_greeting(sniffs)
                    if found is not None:
                        return found
            finally:
                for task in sniffs:
                    task.cancel()
        return None

    async def _first_greeting(self, sniffs: dict[asyncio.Task[bool], tuple[int, int]]) -> int | None:
        """The port of a listener that has greeted, if any does before the next look."""
        if not sniffs:
            await asyncio.sleep(_LOOK_EVERY)
            return None
        done, _ = await asyncio.wait(sniffs, timeout=_LOOK_EVERY, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            inode, port = sniffs.pop(task)
            if task.result():
                return port
            self._silent.add(inode)
        return None


def _new_listeners(pid: int, known: set[int]) -> dict[int, int]:
    """Ports by inode of the process's listeners that aren't known yet."""
    listening = {inode: port for inode, port in _sockets.listening_on_loopback(pid).items() if inode not in known}
    if not listening:
        return {}
    own = _sockets.sockets_of(pid)
    return {inode: port for inode, port in listening.items() if inode in own}
