"""The owner of the client's background tasks."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Tasks:
    """Starts tasks and, when closed, ends and awaits them. The only place of the client that makes tasks."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        return f"<Tasks [{len(self._running)} running]>"

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> "asyncio.Task[Any]":
        """Start ``work``. It has to deal with its own errors; one that it lets out is the event loop's to report."""
        task = asyncio.get_running_loop().create_task(work, name=f"sparkbroker-{name}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        """``start`` for who doesn't look back."""
        self._running.add(self.start(work, name))

    async def finish(self, work: Coroutine[Any, Any, Any], name: str) -> Any:
        """Do ``work`` to its end even if the caller is cancelled meanwhile; then the cancellation goes on.

        ``work`` must be bounded in time. A second cancellation leaves it to ``close``.
        """
        task = self.start(work, name)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                await asyncio.wait([task])
            raise

    async def close(self) -> None:
        """Cancel what runs and wait for it."""
        while running := [task for task in self._running if task is not asyncio.current_task()]:
            for task in running:
                task.cancel()
            await asyncio.wait(running)
