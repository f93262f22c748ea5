"""How many logs people may read at a time: each holds a connection, and memory, for as long as its reader likes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from sparkbroker.broker.domain.errors import ProvisionerFailed

DRIVERS_LOGS: Final = 200
"""Drivers' logs that are read at a time, by all readers."""
EXECUTORS_LOGS: Final = 200
"""Executors' logs likewise. Counted by themselves: a few who read those of large leases keep nobody from a driver's."""
PATIENCE: Final = 10.0
"""Seconds for which one more waits. Its reader's client tries again after the refusal, and tells it in the end."""


class Seats:
    """So many of ``what``, in words. ``<Seats [3 of 200 logs of drivers]>``."""

    def __init__(self, limit: int, what: str) -> None:
        self._limit = limit
        self._what = what
        self._taken = 0
        self._free = asyncio.Semaphore(limit)

    def __repr__(self) -> str:
        return f"<Seats [{self._taken} of {self._limit} {self._what}]>"

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Take one, and give it back. Raise ProvisionerFailed, retryable, if none becomes free in time."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._free.acquire()
        except TimeoutError as error:
            raise ProvisionerFailed(
                f"{self._limit} {self._what} are read at this time, the most that this broker allows; "
                "end some of the readers, or try again later",
                retryable=True,
            ) from error
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
            self._free.release()
