"""What a lease needs of the client that it belongs to."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from sparkbroker.client._keepalive import KeepAlive
from sparkbroker.client._rpc import Rpc
from sparkbroker.client._tasks import Tasks
from sparkbroker.client._values import Connection

_log = logging.getLogger("sparkbroker.client")


@dataclass(frozen=True, slots=True, kw_only=True)
class Callbacks:
    """Called in the event loop with the lease; what they raise is logged. ``notice``: ``lease.notice`` has changed."""

    suspect: Callable[[Any], object] | None = None
    resumed: Callable[[Any], object] | None = None
    lost: Callable[[Any], object] | None = None
    notice: Callable[[Any], object] | None = None


class Handle(Protocol):
    """A program's handle on a lease, as the parts behind it see it: an AsyncLease."""

    async def connection(self) -> Connection:
        """How to connect, attached."""
        ...

    async def release(self, message: str = "", *, everyone: bool = False, timeout: float = ...) -> bool:
        """Give the lease back."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseContext:
    """See the module. ``held``: what is attached, to be released when the client is closed."""

    rpc: Rpc
    keepalive: KeepAlive
    tasks: Tasks
    held: set[Handle]
    callbacks: Callbacks


def call_logged(callback: Callable[[Any], object], lease: Any) -> None:
    """Call back; the program's own error in it is logged, since there is nobody to raise it to."""
    try:
        callback(lease)
    except Exception:  # noqa: BLE001  see above
        _log.exception("sparkbroker: a callback for %s failed", lease.name)
