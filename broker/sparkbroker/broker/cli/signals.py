"""Signals as messages to the event loop, with who sent them.

A terminal's Ctrl-C reaches the whole foreground process group, the child of ``run`` included; a ``kill`` reaches only
whom it names. Handlers of Python's ``signal`` module can't tell the two apart, and passing on the first kind would
interrupt the child twice. So the signals are blocked, and one thread takes them with their sender.
"""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

PASSED_ON: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
_STOP: Final = signal.SIGRTMIN + 7


@dataclass(frozen=True, slots=True)
class Received:
    """A signal. ``by_kernel``: a terminal sent it, and so to our whole process group."""

    number: int
    by_kernel: bool


@contextlib.contextmanager
def signals_to(loop: asyncio.AbstractEventLoop, deliver: Callable[[Received], None]) -> Iterator[None]:
    """Call ``deliver`` in the loop for each of PASSED_ON while the context lasts.

    Enter it in the main thread before other threads start: they inherit that the signals are blocked. So do processes,
    unless they are spawned with ``setsigmask=()``.
    """
    taken = {*PASSED_ON, _STOP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, taken)
    thread = threading.Thread(target=_take, args=(loop, deliver, taken), name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        if thread.ident is not None:
            signal.pthread_kill(thread.ident, _STOP)
        thread.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _take(loop: asyncio.AbstractEventLoop, deliver: Callable[[Received], None], taken: set[int]) -> None:
    while True:
        info = signal.sigwaitinfo(taken)
        if info.si_signo == _STOP:
            return
        received = Received(info.si_signo, by_kernel=info.si_pid == 0)
        with contextlib.suppress(RuntimeError):  # The loop has closed: nobody is left to tell.
            loop.call_soon_threadsafe(deliver, received)
