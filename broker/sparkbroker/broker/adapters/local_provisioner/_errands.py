"""What has to be brought before a driver can start, and may take long: downloads, and packages that are resolved.

An errand goes on when the call that asked for it is given up, and ends when nobody has asked for it for a while: a call is
repeated as long as its driver is wanted. None of it holds up anything else: it is a process, with a deadline, and a principal
has a share of those that run at a time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

import structlog

from sparkbroker.broker.app.shares import Shares
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.units import Principal

log = structlog.get_logger()

T = TypeVar("T")

PATIENCE: Final = 0.5
"""Seconds for which a call waits. Whoever asked is told when the errand is done."""
LINGER: Final = 60.0
"""Seconds after which an errand that nobody asked for again ends, and how long its failure is remembered: longer than between
two tries of the broker."""


class _Errand(Generic[T]):
    def __init__(self, task: "asyncio.Task[T]") -> None:
        self.task = task
        self.tell: set[Callable[[], None]] = set()
        self.end: asyncio.TimerHandle | None = None


class Errands(Generic[T]):
    """At most ``limit`` run at a time, and ``each`` of one principal; more wait. ``limited`` hears of those that wait for
    their own principal's others. ``<Errands [3 under way]>``, those that wait included."""

    def __init__(self, limit: int, each: int, limited: Callable[[], None]) -> None:
        self._shares = Shares(limit, each)
        self._limited = limited
        self._each = each
        self._running: dict[tuple[Principal, str], _Errand[T]] = {}

    def __repr__(self) -> str:
        return f"<Errands [{len(self._running)} under way]>"

    async def run(
        self, principal: Principal, name: str, work: Callable[[], Awaitable[T]], done: Callable[[], None]
    ) -> T:
        """The result of the work, which is begun unless it is under way. Raise what it raises; ProvisionerFailed, retryable,
        if it isn't done soon: ``done`` is called when it is."""
        key = (principal, name)
        errand = self._running.get(key)
        if errand is None:
            if sum(other == principal for other, _ in self._running) >= self._each:
                self._limited()
            task = asyncio.get_running_loop().create_task(self._work(principal, work), name=f"bring {name[:100]}")
            errand = self._running[key] = _Errand(task)
            task.add_done_callback(lambda _: self._done(key))
        self._keep(key, errand)
        await asyncio.wait([errand.task], timeout=PATIENCE)
        if not errand.task.done():
            errand.tell.add(done)
            raise ProvisionerFailed(f"{name} is being brought to the broker's machine", retryable=True)
        self._drop(key)
        return await errand.task

    async def _work(self, principal: Principal, work: Callable[[], Awaitable[T]]) -> T:
        async with self._shares.place(principal):
            return await work()

    def _keep(self, key: tuple[Principal, str], errand: _Errand[T]) -> None:
        if errand.end is not None:
            errand.end.cancel()
        errand.end = asyncio.get_running_loop().call_later(LINGER, self._drop, key)

    def _done(self, key: tuple[Principal, str]) -> None:
        errand = self._running.get(key)
        if errand is None:
            return
        tell, errand.tell = errand.tell, set()
        for each in tell:
            each()

    def _drop(self, key: tuple[Principal, str]) -> None:
        errand = self._running.pop(key, None)
        if errand is None:
            return
        if errand.end is not None:
            errand.end.cancel()
        if not errand.task.cancel() and not errand.task.cancelled():
            errand.task.exception()  # told, or of no interest any more

    async def close(self) -> None:
        """End all of them."""
        tasks = [errand.task for errand in self._running.values()]
        for key in list(self._running):
            self._drop(key)
        await asyncio.gather(*tasks, return_exceptions=True)
