"""A line of tasks that wait until another one makes room."""

import asyncio
from collections import deque


class Turns:
    """First come, first served. A turn that its task no longer wants goes to the next one."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self) -> None:
        """Wait for a turn. The caller bounds it in time, and looks whether there is room."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.next()  # It was given, and isn't used.
            raise

    def next(self) -> None:
        """Give a turn to whoever has waited longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
