"""What a fork does to this process: threads, event loops and grpc.aio don't survive it."""

import os
import sys
from collections.abc import Callable
from typing import Final

_in_child: Final[list[Callable[[], None]]] = []
_forked_with_grpc = False


def forked_with_grpc() -> bool:
    """Whether this process is a forked child of one that had gRPC loaded: grpc.aio may be unusable here."""
    return _forked_with_grpc


def after_fork_in_child(callback: Callable[[], None]) -> None:
    """Call back in every forked child, before anything else of the program runs there."""
    _in_child.append(callback)


def _child() -> None:
    global _forked_with_grpc  # noqa: PLW0603  there is one process
    _forked_with_grpc = _forked_with_grpc or "grpc" in sys.modules
    for callback in _in_child:
        callback()


os.register_at_fork(after_in_child=_child)
