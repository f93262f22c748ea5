"""The bridge from blocking callers to the event loop that the process keeps for them, in one background thread."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from concurrent.futures import wait as wait_for_futures
from typing import Any, Final, TypeVar

from sparkbroker.client._errors import SparkbrokerError
from sparkbroker.client._fork import after_fork_in_child

T = TypeVar("T")
_CANCEL_TIMEOUT: Final = 15.0
"""Seconds that a caller who was interrupted waits for the work to be undone."""


class Portal:
    """An event loop in a daemon thread. It works from any thread, also from one that runs a loop of its own."""

    def __init__(self) -> None:
        self.loop: Final = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="sparkbroker-loop", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def call(self, work: Coroutine[Any, Any, T], undo: Callable[[T], Coroutine[Any, Any, object]] | None = None) -> T:
        """Do ``work`` in the loop and wait for it. It has to bound itself.

        If the waiting is interrupted (KeyboardInterrupt), the work is cancelled and given a moment to undo itself; what
        it has made all the same is given to ``undo``.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise SparkbrokerError(
                "a blocking call of sparkbroker was made in its own event loop (from a callback); make it elsewhere"
            )
        result: Future[T] = Future()
        tasks: list[asyncio.Task[T]] = []
        self.loop.call_soon_threadsafe(_start, work, result, tasks)
        try:
            return result.result()
        except BaseException as error:
            if not (result.done() and result.exception() is error):
                self.loop.call_soon_threadsafe(lambda: [task.cancel() for task in tasks])
                wait_for_futures([result], timeout=_CANCEL_TIMEOUT)
                if undo is not None and result.done() and result.exception() is None:
                    made: Future[object] = Future()
                    self.loop.call_soon_threadsafe(_start, undo(result.result()), made, [])
                    wait_for_futures([made], timeout=_CANCEL_TIMEOUT)
            raise

    def iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        """The items of ``source``, one at a time; closing the iterator closes it."""
        try:
            while True:
                item = self.call(_next(source))
                if item is _END:
                    return
                yield item
        finally:
            self.call(_aclose(source))


_END: Final = object()


async def _next(source: AsyncIterator[Any]) -> Any:
    try:
        return await anext(source)
    except StopAsyncIteration:
        return _END


async def _aclose(source: AsyncIterator[Any]) -> None:
    await source.aclose()  # type: ignore[attr-defined]


def _start(work: Coroutine[Any, Any, T], result: "Future[T]", tasks: "list[asyncio.Task[T]]") -> None:
    task = asyncio.get_running_loop().create_task(work)
    tasks.append(task)

    def finish(done: "asyncio.Task[T]") -> None:
        if done.cancelled():
            result.set_exception(asyncio.CancelledError())
        elif (error := done.exception()) is not None:
            result.set_exception(error)
        else:
            result.set_result(done.result())

    task.add_done_callback(finish)


_portal: Portal | None = None
_lock = threading.Lock()
_from_parent: Final[list[object]] = []
"""Kept for ever: what belongs to a parent's loop must not be torn down in a child, where it can't be."""


def portal() -> Portal:
    """This process's portal."""
    global _portal  # noqa: PLW0603  there is one per process
    with _lock:
        if _portal is None:
            _portal = Portal()
        return _portal


def keep_from_parent(thing: object) -> None:
    """Never tear this down in this process."""
    _from_parent.append(thing)


def _forget() -> None:
    global _portal, _lock  # noqa: PLW0603
    if _portal is not None:
        keep_from_parent(_portal)
    _portal = None
    _lock = threading.Lock()


after_fork_in_child(_forget)
