"""Blocking work with a bound, in threads that never keep the interpreter from ending."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def start_thread(work: Callable[[], T], name: str) -> "Future[T]":
    """Do ``work`` in a daemon thread."""
    result: Future[T] = Future()

    def run() -> None:
        try:
            value = work()
        except BaseException as error:  # noqa: BLE001  it is raised where the result is asked for
            result.set_exception(error)
        else:
            result.set_result(value)

    threading.Thread(target=run, name=f"sparkbroker-{name}", daemon=True).start()
    return result


async def in_thread(work: Callable[[], T], name: str, *, undo: Callable[[T], object] | None = None) -> T:
    """Await blocking ``work``, which must bound itself. If cancelled, it goes on, and its result is given to ``undo``."""
    result = start_thread(work, name)
    try:
        return await asyncio.shield(asyncio.wrap_future(result))
    except asyncio.CancelledError:
        if undo is not None:
            result.add_done_callback(
                lambda done: None if done.exception() else start_thread(lambda: undo(done.result()), name)
            )
        else:
            result.add_done_callback(lambda done: done.exception())
        raise
