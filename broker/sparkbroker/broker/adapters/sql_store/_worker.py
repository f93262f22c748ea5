"""One thread that makes calls in the order in which they were asked for, and answers to an event loop."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, Generic, TypeVar, cast

import structlog

from sparkbroker.broker.domain.errors import Unavailable

LIMIT: Final = 256

_log = structlog.get_logger(__name__)
_Result = TypeVar("_Result")


class _Job(Generic[_Result]):
    """A call, and the future that waits for it. ``run`` is the thread's, ``_resolve`` the loop's."""

    def __init__(self, call: Callable[[], _Result], done: Callable[[], None]) -> None:
        self._call = call
        self._done = done
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[_Result] = self._loop.create_future()

    def run(self) -> None:
        result: _Result | None = None
        failure: BaseException | None = None
        try:
            result = self._call()
        except BaseException as error:  # noqa: BLE001 - the thread must go on; whoever asked gets it
            failure = error
        # RuntimeError: the loop was closed, so nobody waits any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._resolve, result, failure)

    def _resolve(self, result: _Result | None, failure: BaseException | None) -> None:
        self._done()
        if self.future.done():  # whoever asked was cancelled
            if failure is not None:
                _log.error("store.unobserved_failure", error=repr(failure))
        elif failure is not None:
            self.future.set_exception(failure)
        else:
            self.future.set_result(cast("_Result", result))


class Worker:
    """The thread begins with it, and ends with ``stop``. Calls of one event loop only.

    ``after_each`` is called in the thread once a call's result is on its way; it must not raise.
    """

    def __init__(self, name: str, after_each: Callable[[], None] | None = None) -> None:
        self._after_each = after_each
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._pending = 0
        # A daemon: if nobody stops it, the process's end is as a kill is, and commits survive that.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<Worker {self._thread.name} [{self._pending} pending]>"

    async def run(self, call: Callable[[], _Result]) -> _Result:
        """Make the call in the thread. If this is cancelled, the call is made all the same.

        Raise what it raises, and Unavailable if ``LIMIT`` calls are pending: it is not made then.
        """
        if self._pending >= LIMIT:
            raise Unavailable(f"{LIMIT} calls of the store are pending; try again", retry_after=1.0)
        return await self._start(call)

    def stop(self, last: Callable[[], _Result]) -> asyncio.Future[_Result]:
        """End the thread after what is pending and one last call, whose result the future gets. Nothing may follow it."""
        future = self._start(last)
        self._jobs.put(None)
        return future

    def join(self) -> None:
        """Wait for the thread's end."""
        self._thread.join()

    def _start(self, call: Callable[[], _Result]) -> asyncio.Future[_Result]:
        job = _Job(call, self._finished)
        self._pending += 1
        self._jobs.put(job.run)
        return job.future

    def _finished(self) -> None:
        self._pending -= 1

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            if self._after_each is not None:
                self._after_each()
