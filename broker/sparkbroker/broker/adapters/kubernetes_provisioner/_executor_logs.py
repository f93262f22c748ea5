"""The logs of a driver's executors: what is kept of them, and many streams as one.

Kept is the end of each of the last ``KEPT`` that ended, at most ``KEEP`` bytes of it: best effort, since Spark deletes an
executor's pod about a second after it has ended.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Final, cast

from sparkbroker.broker.adapters.kubernetes_provisioner import _logs
from sparkbroker.broker.adapters.kubernetes_provisioner._cluster import Cluster
from sparkbroker.broker.adapters.kubernetes_provisioner._pods import Pod
from sparkbroker.broker.ports.provisioner import LogChunk

KEEP: Final = 256 << 10
"""Bytes that are saved of one executor's log: its end."""
KEPT: Final = 20
"""Executors of one driver whose logs are kept; the oldest go first."""
STREAMS: Final = 50
"""Logs that one reader follows at a time; further ones follow as these end."""
_QUEUED: Final = 16
"""Pieces that wait for a slow reader."""


def path_of(folder: Path, pod: str) -> Path:
    """Where an executor's log is kept."""
    return folder / "executors" / pod


def saved(folder: Path) -> list[str]:
    """The pods of which something is kept, the oldest first."""
    found = ((path.stat().st_mtime, path.name) for path in (folder / "executors").glob("*") if path.suffix != ".new")
    return [name for _, name in sorted(found)]


async def save(cluster: Cluster, pods: Iterable[Pod], token: str, folder: Path) -> None:
    """Keep the ends of their logs, as far as they can be had within seconds; all at the same time."""
    newest = sorted(pods, key=_begun)[-KEPT:]
    await asyncio.gather(*(_logs.save(cluster, pod, token, path_of(folder, pod.metadata.name), KEEP) for pod in newest))
    await asyncio.to_thread(_drop_oldest, folder)


def _begun(pod: Pod) -> float:
    moment = pod.metadata.creation_timestamp
    return moment.timestamp() if moment is not None else 0.0


def _drop_oldest(folder: Path) -> None:
    for name in saved(folder)[:-KEPT]:
        path_of(folder, name).unlink(missing_ok=True)


class Merge:
    """Streams as one, each in its own order. ``<Merge [3 of 5 run]>``. Close it, whatever happens."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._pieces: asyncio.Queue[LogChunk] = asyncio.Queue(_QUEUED)
        self._slots = asyncio.Semaphore(STREAMS)

    def __repr__(self) -> str:
        return f"<Merge [{sum(not task.done() for task in self._tasks.values())} of {len(self._tasks)} run]>"

    def __contains__(self, name: str) -> bool:
        return name in self._tasks

    def add(self, name: str, stream: AsyncIterator[LogChunk]) -> None:
        """From now on also this one's."""
        self._tasks[name] = asyncio.get_running_loop().create_task(self._pump(stream), name=f"log {name}")

    async def _pump(self, stream: AsyncIterator[LogChunk]) -> None:
        async with self._slots, aclosing(cast("AsyncGenerator[LogChunk, None]", stream)) as pieces:
            async for piece in pieces:
                await self._pieces.put(piece)

    def running(self, name: str) -> bool:
        """Whether more may come of this one."""
        return not self._tasks[name].done()

    @property
    def busy(self) -> bool:
        """Whether more may come of any."""
        return not self._pieces.empty() or any(not task.done() for task in self._tasks.values())

    async def next(self, patience: float) -> LogChunk | None:
        """What comes next; None: nothing within so many seconds, or one of them has ended. Raise what one has failed with."""
        if not self._pieces.empty():
            return self._pieces.get_nowait()
        chunk = await self._wait(patience) if self.busy else None
        for task in self._tasks.values():
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error
        return chunk

    async def _wait(self, patience: float) -> LogChunk | None:
        getter = asyncio.get_running_loop().create_task(self._pieces.get())
        running = [task for task in self._tasks.values() if not task.done()]
        try:
            await asyncio.wait([getter, *running], timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not getter.done():
                getter.cancel()
        return getter.result() if getter.done() and not getter.cancelled() else None

    async def close(self) -> None:
        """End all, and wait until they have ended."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
