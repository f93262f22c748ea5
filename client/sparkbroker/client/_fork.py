"""What a fork does to this process.

Threads, event loops and gRPC don't survive a fork. gRPC is the worst of them: a child that inherits it at work dies of
SIGSEGV now and then. So there is none at work while this process forks: every transport whose loop can be reached lets
the exchanges under way come to their end, closes its channels, and its loop then stands still until the fork is over.
With its last channel gRPC ends its threads; the child begins without. Afterwards the transports connect anew, and what
was interrupted is done again.

Not reached are: the loop of the thread that forks (it can't run meanwhile), loops that don't run, and gRPC objects that
the program has made by itself.
"""

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol
from weakref import WeakKeyDictionary, WeakSet

from sparkbroker.client._clock import now

_log = logging.getLogger("sparkbroker.client")
PAUSE_TIMEOUT: Final = 5.0
"""Seconds that a loop's transports get to stand still."""
QUIET_TIMEOUT: Final = 0.5
"""Seconds that gRPC gets to end its threads after the client's last channel was closed.

Where others use it as well, a Spark Connect session for one, it doesn't end them, and each fork takes this long. Its own
fork handlers serve then: they need no more than that nobody is in a call."""
_LONGEST_FORK: Final = 60.0
_LOOK: Final = 0.001
_THREADS_OF_GRPC: Final = ("event_engine", "grpc_", "lifeguard", "timer_manager")


class Forkable(Protocol):
    """What stands still while this process forks. Both are called in its event loop."""

    async def pause(self) -> None:
        """Let go of all that gRPC has made. Bounds itself."""

    def resume(self) -> None:
        """The fork is over."""


_members: "Final[WeakKeyDictionary[asyncio.AbstractEventLoop, WeakSet[Forkable]]]" = WeakKeyDictionary()
_in_child: Final[list[Callable[[], None]]] = []
_forking = threading.Lock()
_over: threading.Event | None = None
_last_closed = 0.0
_at_work = False
"""At the fork that comes, or was last, gRPC could not be stopped."""
_forked_with_grpc = False


def forked_with_grpc() -> bool:
    """Whether this process is a forked child of one in which gRPC was at work: grpc.aio may be unusable here."""
    return _forked_with_grpc


def after_fork_in_child(callback: Callable[[], None]) -> None:
    """Call back in every forked child, before anything else of the program runs there."""
    _in_child.append(callback)


def join(member: Forkable) -> None:
    """Pause it during each fork from now on. It belongs to the running loop, and is not kept alive."""
    _members.setdefault(asyncio.get_running_loop(), WeakSet()).add(member)


def leave(member: Forkable) -> None:
    """It has closed its channels for good."""
    global _last_closed  # noqa: PLW0603  there is one process
    _last_closed = now()
    for members in _members.values():
        members.discard(member)


def _before() -> None:
    global _over, _at_work  # noqa: PLW0603
    _forking.acquire(timeout=_LONGEST_FORK)  # another thread's fork comes after this one
    _at_work = False
    if "grpc" not in sys.modules:
        return
    _over = threading.Event()
    reached = _pause_all(_over)
    while (running := _grpc_runs()) and now() < _last_closed + QUIET_TIMEOUT:
        threading.Event().wait(_LOOK)
    _at_work = running or not reached


def _pause_all(over: threading.Event) -> bool:
    """Let every loop that can be reached stand still. Whether that is every one."""
    reached, pausing = True, []
    for loop, members in list(_members.items()):
        if not members or loop.is_closed():
            continue
        if not loop.is_running() or asyncio._get_running_loop() is loop:  # noqa: SLF001  the public one raises for none
            reached = False
            continue
        still = threading.Event()
        asyncio.run_coroutine_threadsafe(_stand_still(list(members), still, over), loop)
        pausing.append(still)
    end = now() + PAUSE_TIMEOUT
    for still in pausing:
        still.wait(max(0.0, end - now()))
    if not all(still.is_set() for still in pausing):
        reached = False
        _log.warning("sparkbroker: the client could not be stopped for a fork; gRPC may fail in the child")
    return reached


async def _stand_still(members: list[Forkable], still: threading.Event, over: threading.Event) -> None:
    """Pause them and block this loop, on purpose, until the fork is over: nothing of it may run meanwhile."""
    try:
        async with asyncio.timeout(PAUSE_TIMEOUT):
            for member in members:
                await member.pause()
            # The ends of cancelled calls still come to this loop; the last of them lets go of the channel.
            closed = now()
            while _grpc_runs() and now() < closed + QUIET_TIMEOUT:  # noqa: ASYNC110  gRPC tells nobody
                await asyncio.sleep(_LOOK)
        still.set()
        over.wait(_LONGEST_FORK)
    except TimeoutError:
        return  # who waits for ``still`` tells
    finally:
        for member in members:
            member.resume()


def _grpc_runs() -> bool:
    """Whether gRPC has threads of its own. Where the system doesn't tell: no."""
    for task in Path("/proc/self/task").glob("*"):
        try:
            name = (task / "comm").read_text()
        except OSError:  # it has ended meanwhile
            continue
        if name.startswith(_THREADS_OF_GRPC):
            return True
    return False


def _after_in_parent() -> None:
    global _over
    over, _over = _over, None
    if over is not None:
        over.set()
    if _forking.locked():
        _forking.release()


def _after_in_child() -> None:
    global _forking, _over, _forked_with_grpc  # noqa: PLW0603
    _forking, _over = threading.Lock(), None
    _forked_with_grpc = _forked_with_grpc or _at_work
    _members.clear()
    for callback in _in_child:
        callback()


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
