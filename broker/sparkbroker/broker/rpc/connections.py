"""The TCP connections of the listeners: which there are, what came on each, and an end to those that are too many.

gRPC accepts connections itself and shows them to nobody. Within this process each is a file descriptor, by which it is
found; and shutting a socket down is what gRPC takes for the peer's end. ``crowding`` decides, this does it.
"""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv6Address
from time import perf_counter
from typing import Final, NamedTuple

import structlog

from sparkbroker.broker.ports.metrics import Limit, Metrics
from sparkbroker.broker.rpc.crowding import Connection, Surplus, surplus
from sparkbroker.broker.rpc.limits import Limits
from sparkbroker.broker.rpc.refusals import Refusals

PERIOD: Final = 1.0
"""Seconds between two looks."""
URGENT: Final = 0.05
"""… when somebody seems to attack."""
LATE: Final = 10.0
"""Seconds for which a connection that was closed is remembered."""
_FOLDER: Final = "/proc/self/fd"
_INTERNET: Final = (socket.AF_INET, socket.AF_INET6)
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})

log = structlog.get_logger()


class Socket(NamedTuple):
    """A connection that was accepted. ``inode`` tells it from another one with its descriptor, later."""

    fd: int
    inode: str
    name: str
    """gRPC's name of the peer."""
    address: str


class Connections:
    """``run`` closes what is beyond the limits; the others note what comes on which connection.

    Only of TCP: who can reach the unix socket is the broker's own user.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._ports: frozenset[int] = frozenset()
        self._known: dict[str, Connection] = {}
        self._found = Sockets()
        self._closing: dict[str, Limit] = {}
        self._urgent = asyncio.Event()
        self._closed = Refusals("connection.closed", "limit")

    def __repr__(self) -> str:
        return f"<Connections [{len(self._known)} known, {len(self._closing)} to close]>"

    def __len__(self) -> int:
        return len(self._known)

    def of(self, name: str) -> Connection:
        """The connection that a call came on, by gRPC's name of its peer."""
        connection = self._known.get(name)
        if connection is None:
            connection = self._known[name] = self._new(name, name.rpartition(":")[0])
        return connection

    def refused(self, connection: Connection) -> None:
        """A call on it had no known token."""
        if connection.refuse() >= self._limits.refusals_per_connection:
            self.close(connection.name, "refusals_per_connection")

    def cancelled(self, connection: Connection) -> None:
        """The peer has taken back a call on it."""
        if connection.cancel(perf_counter()) > self._limits.cancelled_per_connection:
            self.close(connection.name, "cancelled_per_connection")

    def close(self, name: str, limit: Limit) -> None:
        """End it soon, for this limit; ``run`` does."""
        if name.startswith("ip"):
            self.of(name).closing = True
            self._closing.setdefault(name, limit)
            self._urgent.set()

    async def run(self, ports: Iterable[int]) -> None:
        """Look after the connections of these ports until cancelled."""
        self._ports = frozenset(ports)
        # A thread of its own: whoever fills the common ones must not keep this from closing connections.
        with ThreadPoolExecutor(1, "connections") as thread:
            while True:
                crowded = await self._look(thread)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(URGENT if crowded else PERIOD):
                        await self._urgent.wait()
                self._urgent.clear()
                await asyncio.sleep(URGENT / 5)  # What comes together is closed together.

    async def _look(self, thread: ThreadPoolExecutor) -> bool:
        """Close what is too much; whether there may soon be more."""
        try:
            sockets = await asyncio.get_running_loop().run_in_executor(thread, self._found.look, self._ports)
        except (OSError, RuntimeError) as error:  # no descriptor is left, or no thread can be started
            log.warning("connections.not_seen", message=str(error))
            return True
        now = perf_counter()
        self._forget(sockets, now)
        for each in sockets.values():
            if each.name not in self._known:
                self._known[each.name] = self._new(each.name, each.address)
        present = [self._known[name] for name in sockets]
        over = [Surplus(name, limit) for name, limit in self._closing.items() if name in sockets]
        self._closing.clear()
        over += surplus(present, self._limits, now)
        for name, limit in dict(over).items():
            if shut(sockets[name], self._ports):
                self._metrics.limited(limit)
                closed = self._known[name]
                self._closed.note(now, limit, name, principal=str(closed.principal), refused=closed.refused)
        self._closed.tell(now)
        strangers = sum(not each.known for each in present)
        return strangers * 2 > self._limits.unauthenticated_connections

    def _forget(self, sockets: dict[str, Socket], now: float) -> None:
        """Those that are gone. One that isn't seen yet may have come after the look; of one that was closed there may still
        be calls on their way."""
        for name in [name for name, each in self._known.items() if name not in sockets]:
            gone = self._known[name]
            if now - gone.since > (LATE if gone.closing else PERIOD) and not gone.calls:
                del self._known[name]

    def _new(self, name: str, address: str) -> Connection:
        now = perf_counter()
        return Connection(name=name, address=address, since=now, used=now)


class Sockets:
    """Finds accepted sockets among this process' descriptors. What it has seen it asks only for its inode again."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[str, Socket | None]] = {}

    def look(self, ports: frozenset[int]) -> dict[str, Socket]:
        """Those of these ports, by gRPC's name of the peer. For a thread of its own. Raise OSError: no descriptor is left."""
        seen = {}
        for fd in map(int, os.listdir(_FOLDER)):  # noqa: PTH208 - a Path costs more than the rest
            try:
                link = os.readlink(f"{_FOLDER}/{fd}")  # noqa: PTH115 - as above
            except OSError:
                continue  # closed meanwhile
            before = self._seen.get(fd)
            seen[fd] = before if before is not None and before[0] == link else (link, _accepted(fd, link, ports))
        self._seen = seen
        return {each.name: each for _, each in seen.values() if each is not None}


def shut(found: Socket, ports: frozenset[int]) -> bool:
    """End a connection, if it is still the one that was found. gRPC sees that its peer is gone, and lets go of it."""
    with contextlib.suppress(OSError), _open(found.fd) as copy:
        if _accepted_by(copy, found.fd, found.inode, ports) == found:
            copy.shutdown(socket.SHUT_RDWR)
            return True
    return False


def _accepted(fd: int, link: str, ports: frozenset[int]) -> Socket | None:
    if not link.startswith("socket:"):
        return None
    try:
        with _open(fd) as copy:
            return _accepted_by(copy, fd, link, ports)
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise
        return None


def _accepted_by(copy: socket.socket, fd: int, link: str, ports: frozenset[int]) -> Socket | None:
    if copy.family not in _INTERNET or copy.type != socket.SOCK_STREAM:
        return None
    try:
        if copy.getsockname()[1] not in ports:
            return None
        host, port = copy.getpeername()[:2]
    except OSError:
        return None  # it listens, or its peer has gone
    address = address_name(copy.family, host)
    return Socket(fd, link, f"{address}:{port}", address)


def address_name(family: int, host: str) -> str:
    """As gRPC writes it in ``context.peer()``, before the port."""
    if family == socket.AF_INET:
        return f"ipv4:{host}"
    mapped = IPv6Address(host.partition("%")[0]).ipv4_mapped
    return f"ipv4:{mapped}" if mapped is not None else f"ipv6:%5B{host}%5D"


@contextlib.contextmanager
def _open(fd: int) -> Iterator[socket.socket]:
    """A descriptor of one's own: the one that was found may be closed, and given to something else, at any time."""
    copy = socket.socket(fileno=os.dup(fd))
    try:
        yield copy
    finally:
        copy.close()
