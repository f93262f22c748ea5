"""The log of the containers of a small API server: all have written the same, and those who follow are told what comes."""

import asyncio
from collections.abc import Callable
from typing import Final

from aiohttp import web

LOG: Final = b"".join(b"line %d of a log\n" % number for number in range(1, 6))


class SmallLogs:
    """``file`` is what the node still has. ``news`` is told of what is written here, and by others of pods that go."""

    def __init__(self, news: asyncio.Condition) -> None:
        self.file = LOG
        self.followers = 0
        """Who follow now."""
        self._news = news
        self._changes = 0
        self._rotations = 0
        self._cuts = 0
        self._politely = False

    async def write(self, text: bytes) -> None:
        """The containers do."""
        self.file += text
        await self._tell()

    async def rotate(self, text: bytes = b"") -> None:
        """The node does; this is the new file."""
        self.file, self._rotations = text, self._rotations + 1
        await self._tell()

    async def cut(self, *, politely: bool = False) -> None:
        """Break the connections of all who follow; politely: as if it were the end."""
        self._cuts, self._politely = self._cuts + 1, politely
        await self._tell()

    async def _tell(self) -> None:
        self._changes += 1
        async with self._news:
            self._news.notify_all()

    async def tell(self, request: web.Request, gone: Callable[[], bool]) -> web.StreamResponse:
        """The answer to who reads."""
        response = web.StreamResponse()
        await response.prepare(request)
        if request.query["follow"] == "false":
            await response.write(self.file)
            return response
        self.followers += 1
        try:
            await self._follow(response, request, gone)
        finally:
            self.followers -= 1
        return response

    async def _follow(self, response: web.StreamResponse, request: web.Request, gone: Callable[[], bool]) -> None:
        cuts, rotations, told = self._cuts, self._rotations, 0
        while cuts == self._cuts:
            if rotations != self._rotations:
                rotations, told = self._rotations, 0
            new, seen = self.file[told:], self._changes
            told += len(new)
            if new:
                await response.write(new)
            if gone():
                return
            async with self._news:
                if seen == self._changes and not gone():
                    await self._news.wait()
        if not self._politely and request.transport is not None:
            request.transport.abort()
