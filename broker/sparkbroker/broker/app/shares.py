"""Places for work that principals share: what one of them asks for holds up its own, and not the others'."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from sparkbroker.broker.domain.units import Principal

EVERYBODY: Final = 1 << 30
"""A limit for all principals together that bounds nothing."""


class Shares:
    """At most ``limit`` pieces of work at a time, and ``each`` of one principal. Principals take turns; within one it is
    first come, first served. ``<Shares [3 of 4 taken, 7 wait]>``."""

    def __init__(self, limit: int, each: int) -> None:
        self._limit = limit
        self._each = each
        self._taken: dict[Principal, int] = {}
        self._waiting: dict[Principal, deque[asyncio.Future[None]]] = {}
        """In the order of turns."""
        self._count = 0

    def __repr__(self) -> str:
        waiting = sum(map(len, self._waiting.values()))
        return f"<Shares [{self._count} of {self._limit} taken, {waiting} wait]>"

    @asynccontextmanager
    async def place(self, principal: Principal) -> AsyncIterator[None]:
        """Wait for a place, and hold it for the body. The caller bounds both in time."""
        await self._take(principal)
        try:
            yield
        finally:
            self._give_back(principal)

    async def _take(self, principal: Principal) -> None:
        if self._may(principal) and principal not in self._waiting:
            self._grant(principal)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(principal, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._drop(principal, turn)
            else:
                self._give_back(principal)  # it was granted, and in the same moment cancelled
            raise

    def _may(self, principal: Principal) -> bool:
        return self._count < self._limit and self._taken.get(principal, 0) < self._each

    def _grant(self, principal: Principal) -> None:
        self._count += 1
        self._taken[principal] = self._taken.get(principal, 0) + 1

    def _give_back(self, principal: Principal) -> None:
        self._count -= 1
        self._taken[principal] -= 1
        if not self._taken[principal]:
            del self._taken[principal]
        while (following := next(filter(self._may, self._waiting), None)) is not None:
            turns = self._waiting.pop(following)
            turn = turns.popleft()
            if turns:
                self._waiting[following] = turns  # behind the others
            if not turn.done():  # cancelled, and hasn't run yet
                self._grant(following)
                turn.set_result(None)

    def _drop(self, principal: Principal, turn: "asyncio.Future[None]") -> None:
        turns = self._waiting.get(principal, deque())
        if turn in turns:
            turns.remove(turn)
            if not turns:
                del self._waiting[principal]
