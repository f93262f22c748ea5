"""Followed logs: one look at each driver's file for all who follow it.

Readers share what was read last; one that is behind reads the file at its own offset, so that nothing is kept for it and it
holds up nobody.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeVar

from sparkbroker.broker.app.waking import Wakes
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.units import DriverId, Principal
from sparkbroker.broker.ports.provisioner import LogChunk

T = TypeVar("T")

CHUNK: Final = 64 * 1024
BUSY_PAUSE: Final = 0.05
"""Seconds between two looks at a log that grows faster than it is read; its readers read the file at their own pace."""
FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 1.0
"""Between two looks at a log that is silent: the longer, the longer."""
_GROWTH: Final = 1.2
_THREADS: Final = 2


class Source(Protocol):
    """A driver, as far as its log goes."""

    id: DriverId

    @property
    def surely_alive(self) -> bool: ...
    def lives(self) -> bool: ...
    def log_size(self) -> int: ...
    def read_log(self, offset: int, size: int) -> tuple[bytes, int]: ...
    def tail_offset(self, lines: int) -> int: ...


class Logs:
    """Of all drivers. ``<Logs [2 followed, by 7]>``."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="logs")
        self._wakes = Wakes()
        self._followers: dict[DriverId, _Follower] = {}

    def __repr__(self) -> str:
        return f"<Logs [{len(self._followers)} followed, by {sum(each.readers for each in self._followers.values())}]>"

    async def read(
        self, source: Source, *, offset: int, tail_lines: int, follow: bool
    ) -> AsyncGenerator[LogChunk, None]:
        """See the port."""
        if tail_lines and not offset:
            offset = await self._in_thread(source.tail_offset, tail_lines)
        if follow:
            with self._follow(source) as follower:
                async for chunk in self._followed(source, follower, offset):
                    yield chunk
            return
        while True:
            data, offset = await self._in_thread(source.read_log, offset, CHUNK)
            if not data:
                return
            yield LogChunk(data, offset)

    async def _followed(self, source: Source, follower: "_Follower", offset: int) -> AsyncIterator[LogChunk]:
        while True:
            if offset >= follower.end:
                if follower.over:
                    return
                await follower.more_than(offset)
            elif data := follower.last(offset):
                offset += len(data)
                yield LogChunk(data, offset)
            else:
                data, after = await self._in_thread(source.read_log, offset, CHUNK)
                if data:
                    yield LogChunk(data, after)
                # Nothing where there was something: it was cut, and what is left begins at the end.
                offset = after if data else follower.end

    @contextmanager
    def _follow(self, source: Source) -> Iterator["_Follower"]:
        follower = self._followers.get(source.id)
        if follower is None:
            follower = self._followers[source.id] = _Follower(source, self._wakes, self._in_thread)
        follower.readers += 1
        try:
            yield follower
        finally:
            follower.readers -= 1
            if not follower.readers and self._followers.get(source.id) is follower:
                del self._followers[source.id]
                follower.task.cancel()

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        except OSError as error:
            raise ProvisionerFailed(f"the log can't be read: {error}", retryable=True) from error

    async def close(self) -> None:
        """Let go of all; their readers' calls have ended."""
        tasks = [follower.task for follower in self._followers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)


class _Reader:
    """One that waits for more."""

    def __init__(self, driver_id: DriverId) -> None:
        self.principal = Principal(driver_id)
        """Whose turn it is woken in: readers of one log hold up no other's."""
        self.woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def go(self) -> bool:
        wanted = not self.woken.done()
        if wanted:
            self.woken.set_result(None)
        return wanted


class _Follower:
    """Looks at one log while it has readers."""

    def __init__(self, source: Source, wakes: Wakes, in_thread: Callable[..., Awaitable[Any]]) -> None:
        self.readers = 0
        self.over = False
        """Its driver had ended before the end of its log was read."""
        self._source = source
        self._wakes = wakes
        self._in_thread = in_thread
        self._waiting: set[_Reader] = set()
        self._begin = 0
        self._data = b""
        self._failure: ProvisionerFailed | None = None
        self.task = asyncio.get_running_loop().create_task(self._run(), name=f"follow the log of {source.id}")

    @property
    def end(self) -> int:
        """How far it has looked."""
        return self._begin + len(self._data)

    def last(self, offset: int) -> bytes:
        """What was read last, from this offset on; empty: it begins later, or ends before."""
        begin = offset - self._begin
        return self._data[begin:] if 0 <= begin < len(self._data) else b""

    async def more_than(self, offset: int) -> None:
        """Wait until there is more than this, or it is over. Raise ProvisionerFailed if it can't be read."""
        if self.over or offset < self.end:
            return
        if self._failure is not None:
            raise self._failure
        reader = _Reader(self._source.id)
        self._waiting.add(reader)
        try:
            await reader.woken
        finally:
            self._waiting.discard(reader)
        if self._failure is not None:
            raise self._failure

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        try:
            self._begin = await self._in_thread(self._source.log_size)
            self._tell()  # all that there was is for the readers to read
            while True:
                over = not (self._source.surely_alive or self._source.lives())
                data, after = await self._in_thread(self._source.read_log, self.end, CHUNK)
                if data:
                    self._begin, self._data, pause = after - len(data), data, FIRST_PAUSE
                    self._tell()
                elif over:
                    break
                await asyncio.sleep(BUSY_PAUSE if len(data) == CHUNK else pause)
                pause = min(LONGEST_PAUSE, pause * _GROWTH)
            self.over = True
        except ProvisionerFailed as error:
            self._failure = error
        self._tell()

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for reader in waiting:
            self._wakes.add(reader)
