"""Who goes on when: many watches hear of one event, and others want to be answered in between."""

import asyncio
from collections import deque
from typing import Final, Protocol

from sparkbroker.broker.domain.units import Principal

AT_ONCE: Final = 32
"""Watches that go on in one turn of the loop: some milliseconds of work."""


class Sleeper(Protocol):
    """Waits for its turn. ``go`` returns whether it still does."""

    principal: Principal

    def go(self) -> bool: ...


class Wakes:
    """Those whose turn comes, ``at_once`` of them in each turn of the loop. Principals take turns: one's thousand watches hold
    up nobody else's."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._at_once = at_once
        self._waiting: dict[Principal, deque[Sleeper]] = {}
        """In the order of turns."""
        self._left = at_once
        """That may still be woken in this turn of the loop."""
        self._scheduled = False

    def add(self, sleeper: Sleeper) -> None:
        """Wake it: at once if few are, else in a later turn of the loop. Each is added once until it goes."""
        if self._go_at_once():
            sleeper.go()
        else:
            self._waiting.setdefault(sleeper.principal, deque()).append(sleeper)

    async def turn(self, principal: Principal) -> None:
        """Wait for a turn of one's own; at once if few want one. The line is as long as its callers' limits allow."""
        if not self._go_at_once():
            waiter = _Waiter(principal)
            self._waiting.setdefault(principal, deque()).append(waiter)
            await waiter.turn

    def _go_at_once(self) -> bool:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)
        if not self._left or self._waiting:
            return False
        self._left -= 1
        return True

    def _turn(self) -> None:
        self._scheduled, self._left = False, self._at_once
        while self._left and self._waiting:
            principal = next(iter(self._waiting))
            sleepers = self._waiting.pop(principal)
            self._left -= sleepers.popleft().go()
            if sleepers:
                self._waiting[principal] = sleepers  # behind the others
        if self._waiting or self._left < self._at_once:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)


class _Waiter:
    __slots__ = ("principal", "turn")

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def go(self) -> bool:
        wanted = not self.turn.done()
        if wanted:
            self.turn.set_result(None)
        return wanted
