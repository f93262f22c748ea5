"""A queue of keys for workers: each key at most once, never by two workers at a time, and with backoff on failure."""

import asyncio
from collections import deque
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=str)

FIRST_BACKOFF: Final = 0.2
MAX_BACKOFF: Final = 30.0
SLOW: Final = 2.0
"""Seconds after which a worker counts no more."""


class WorkQueue(Generic[K]):
    """Bounded by the number of distinct keys. ``<WorkQueue [1 ready, 2 active, 3 delayed]>``."""

    def __init__(self) -> None:
        self._ready: deque[K] = deque()
        self._queued: set[K] = set()
        self._active: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._wake = asyncio.Semaphore(0)

    def __repr__(self) -> str:
        return f"<WorkQueue [{len(self._ready)} ready, {len(self._active)} active, {len(self._timers)} delayed]>"

    def add(self, key: K) -> None:
        """Work on it as soon as may be; after the present work, if a worker has it now."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._active:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._ready.append(key)
            self._wake.release()

    def add_after(self, key: K, delay: float) -> None:
        """Work on it after this many seconds, unless it is added before."""
        if key in self._queued or key in self._again:
            return
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        self._timers[key] = asyncio.get_running_loop().call_later(delay, self.add, key)

    async def get(self) -> K:
        """The next key; pair it with ``done``."""
        await self._wake.acquire()
        key = self._ready.popleft()
        self._queued.discard(key)
        self._active.add(key)
        return key

    def done(self, key: K, *, failed: bool = False, after: float | None = None) -> None:
        """The work is over: again after ``after`` seconds, or with growing backoff if it ``failed``.

        What was added meanwhile may be news: it is worked on at once, or after a failure soon.
        """
        self._active.discard(key)
        if failed:
            count = self._failures[key] = self._failures.get(key, 0) + 1
            after = min(FIRST_BACKOFF * 2 ** min(count - 1, 16), MAX_BACKOFF)
        else:
            self._failures.pop(key, None)
        again = key in self._again
        self._again.discard(key)
        if again and not failed:
            self.add(key)
        elif after is not None:
            self.add_after(key, min(after, FIRST_BACKOFF) if again else after)


class Slot:
    """One of so many workers, given back at the end of the work, or earlier if it turns out to be slow."""

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots: asyncio.Semaphore | None = slots
        self._timer = asyncio.get_running_loop().call_later(SLOW, self.free)

    def free(self) -> None:
        """Idempotent."""
        self._timer.cancel()
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.release()
