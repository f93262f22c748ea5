"""The asynchronous face of the writer and the reader: each lives in its own thread."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from sparkbroker.broker.adapters.sql_store._ballast import Ballast
from sparkbroker.broker.adapters.sql_store._reader import Reader
from sparkbroker.broker.adapters.sql_store._worker import Worker
from sparkbroker.broker.adapters.sql_store._writer import Writer
from sparkbroker.broker.domain.errors import Unavailable
from sparkbroker.broker.domain.units import Epoch, Revision
from sparkbroker.broker.ports.store import Batch, CommitResult, EventPage, Loaded, RequestPage

MAX_READS: Final = 64
"""Reads of events that are handed to the reader at a time; more of them wait their turn."""

_Read = TypeVar("_Read")


class SqlStore:
    """A ``ports.store.Store`` in the file ``path``, whose folder exists. ``ballast`` is freed when the disk is full.

    It doesn't lock the file against other brokers (``StateFolder`` does): two stores over one file are two leaderships,
    of which the later one wins. After ``close`` it can't be used again.
    """

    def __init__(self, path: Path, *, ballast: Ballast | None = None) -> None:
        self._path = path
        self._writer = Writer(path, ballast)
        self._reader = Reader(path)
        self._writing: Worker | None = None
        self._reading: Worker | None = None
        self._reads = asyncio.Semaphore(MAX_READS)
        self._closed = False
        self._ended: tuple[asyncio.Future[None], ...] = ()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._writing else "new"
        return f"<SqlStore {self._path} [{state}]>"

    async def lead(self) -> Epoch:
        """See ``ports.store.Store.lead``. Creates or migrates the database."""
        return await self._write_worker().run(self._writer.lead)

    async def load(self) -> Loaded:
        """See ``ports.store.Store.load``."""
        return await self._write_worker().run(self._writer.load)

    async def answered(self, after: int, limit: int) -> RequestPage:
        """See ``ports.store.Store.answered``."""
        return await self._write_worker().run(lambda: self._writer.answered(after, limit))

    async def events(self, after: Revision, limit: int, subject: str | None = None) -> EventPage:
        """See ``ports.store.Store.events``. Raise StoreUnusable if the file can't be read."""
        if limit < 1:
            raise ValueError(f"limit: {limit} is not a number of events; it must be at least 1")
        return await self._read(lambda: self._reader.events(after, limit, subject))

    async def event_sizes(self) -> list[tuple[Revision, int]]:
        """See ``ports.store.Store.event_sizes``."""
        return await self._read(self._reader.event_sizes)

    async def _read(self, read: Callable[[], _Read]) -> _Read:
        async with self._reads:
            self._check_open()
            if self._reading is None:
                self._reading = Worker("store-reader")
            return await self._reading.run(read)

    async def commit(self, epoch: Epoch, batch: Batch) -> CommitResult:
        """See ``ports.store.Store.commit``. Raise ValueError for a batch that can't be stored as it is."""
        return await self._write_worker().run(lambda: self._writer.commit(epoch, batch))

    async def room(self, *, to_use: bool = False) -> str:
        """See ``ports.store.Store.room``."""
        self._check_open()
        if not self._writer.full:
            return ""
        return await self._write_worker().run(lambda: self._writer.make_room(to_use=to_use))

    async def close(self) -> None:
        """See ``ports.store.Store.close``."""
        if not self._closed:
            self._ended = self._end()
        for ended in self._ended:
            await asyncio.shield(ended)

    def _end(self) -> tuple[asyncio.Future[None], ...]:
        """Begin the end of both threads, which then come to it by themselves, whether or not somebody waits."""
        reading, writing = self._reading, self._writing
        self._closed = True
        ended = () if reading is None else (reading.stop(self._reader.close),)

        def close() -> None:
            # The reader first: the last connection to close moves the WAL into the database, which takes a writer.
            if reading is not None:
                reading.join()
            self._writer.close()

        return ended if writing is None else (*ended, writing.stop(close))

    def _write_worker(self) -> Worker:
        self._check_open()
        if self._writing is None:
            self._writing = Worker("store-writer", after_each=self._writer.checkpoint)
        return self._writing

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable(f"{self._path} is closed: the broker is stopping")
