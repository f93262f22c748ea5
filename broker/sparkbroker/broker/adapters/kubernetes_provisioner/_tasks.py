"""What runs in the background, by name: owned, and ended with its owner."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

log = structlog.get_logger()


class Tasks:
    """Not safe across threads. One that fails is a bug: it is logged, and the others go on."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[None]] = {}
        self._closing = False

    def __repr__(self) -> str:
        return f"<Tasks [{len(self._running)} running]>"

    def __contains__(self, name: str) -> bool:
        return name in self._running

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run it; after ``close`` nothing begins any more."""
        if self._closing:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running[name] = task
        task.add_done_callback(lambda done: self._ended(name, done))

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        if self._running.get(name) is task:
            del self._running[name]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("kubernetes.bug", task=name, exc_info=error)

    async def close(self) -> None:
        """Cancel all, and wait until they have ended."""
        self._closing = True
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
