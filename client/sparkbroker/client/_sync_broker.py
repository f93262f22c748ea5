"""The blocking client: AsyncBroker through the process's portal."""

import atexit
import os
import queue
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar, Unpack

from sparkbroker.client._address import Address, resolve_address
from sparkbroker.client._ask import Ask
from sparkbroker.client._async_broker import DEFAULT_PATIENCE, AsyncBroker, OnLease, OnProgress
from sparkbroker.client._async_lease import AsyncLease, call_logged
from sparkbroker.client._blocking import start_thread
from sparkbroker.client._errors import ClientClosed
from sparkbroker.client._portal import keep_from_parent, portal
from sparkbroker.client._sync_lease import Lease
from sparkbroker.v1 import broker_pb2 as pb

T = TypeVar("T")


class Broker:
    """A connection to a broker, for blocking programs: from any thread, inside a running event loop (a notebook), and
    after a fork, where it connects anew and has no leases yet.

    Arguments as of AsyncBroker. Nothing is connected until it is used; ``with``, ``close`` and the interpreter's end
    release what is attached. Callbacks get the Lease, one at a time, in a thread of their own.
    """

    def __init__(
        self,
        url: str | Address | None = None,
        *,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        plaintext_token: bool = False,
        patience: float = DEFAULT_PATIENCE,
        on_suspect: OnLease | None = None,
        on_resumed: OnLease | None = None,
        on_lost: OnLease | None = None,
        on_notice: OnLease | None = None,
    ) -> None:
        self._address = (
            url
            if isinstance(url, Address)
            else resolve_address(
                url, token=token, token_file=token_file, ca_file=ca_file, plaintext_token=plaintext_token
            )
        )
        self._patience = patience
        self._callbacks: dict[str, OnLease] = {
            name: callback
            for name, callback in {
                "on_suspect": on_suspect,
                "on_resumed": on_resumed,
                "on_lost": on_lost,
                "on_notice": on_notice,
            }.items()
            if callback is not None
        }
        self._pid = os.getpid()
        self._core: AsyncBroker | None = None
        self._closed = False

    def __repr__(self) -> str:
        core = self._core
        if self._closed:
            return f"<Broker {self._address.url} [closed]>"
        if core is None or self._pid != os.getpid():
            return f"<Broker {self._address.url} [not connected]>"
        return repr(core).replace("<AsyncBroker", "<Broker", 1)

    @property
    def address(self) -> Address:
        """Where the broker is."""
        return self._address

    def _opened(self) -> AsyncBroker:
        """This process's asynchronous client. Called in the portal's loop only, so one at a time."""
        if self._closed:
            raise ClientClosed("the client is closed")
        if self._core is not None and self._pid != os.getpid():
            keep_from_parent(self._core)
            self._core = None
        if self._core is None:
            dispatcher = _Dispatcher() if self._callbacks else None
            wrapped = {name: _wrapped(dispatcher, callback) for name, callback in self._callbacks.items() if dispatcher}
            self._core = AsyncBroker(self._address, patience=self._patience, **wrapped)  # type: ignore[arg-type]
            self._pid = os.getpid()
            _brokers.add(self)
        return self._core

    def _call(self, work: Callable[[AsyncBroker], Awaitable[T]]) -> T:
        async def run() -> T:
            return await work(self._opened())

        return portal().call(run())

    def _iterate(self, source: Callable[[AsyncBroker], AsyncIterator[T]]) -> Iterator[T]:
        async def items() -> AsyncIterator[T]:
            async for item in source(self._opened()):
                yield item

        return portal().iterate(items())

    def acquire(self, **ask: Unpack[Ask]) -> Lease:
        """Ask for a lease and return at once, not attached; see AsyncBroker.acquire."""

        async def run() -> AsyncLease:
            return await self._opened().acquire(**ask)

        return Lease(portal(), portal().call(run(), undo=lambda lease: lease.__aexit__(None, None, None)))

    @contextmanager
    def lease(
        self, *, on_progress: OnProgress | None = None, timeout: float | None = None, **ask: Unpack[Ask]
    ) -> Iterator[Lease]:
        """A lease that is READY and attached, for the body; then it is released."""
        with self.acquire(**ask) as lease:
            lease.wait_ready(on_progress, timeout=timeout)
            lease.attach()
            yield lease

    @contextmanager
    def session(
        self,
        *,
        on_progress: OnProgress | None = None,
        timeout: float | None = None,
        api: Literal["classic", "connect"] = "classic",
        app_name: str = "",
        **ask: Unpack[Ask],
    ) -> Iterator[Any]:
        """A Spark session on a lease of its own, for the body."""
        with (
            self.lease(on_progress=on_progress, timeout=timeout, **ask) as lease,
            lease.session(api=api, app_name=app_name) as spark,
        ):
            yield spark

    def open(self, name: str) -> Lease:
        """A handle on a lease that exists, not attached; ``attach`` makes this client its user."""
        return Lease(portal(), self._call(lambda core: core.open(name)))

    def get(self, name: str) -> pb.Lease:
        """Read a lease."""
        return self._call(lambda core: core.get(name))

    def list(self, filter: str = "", *, order_by: str = "", limit: int | None = None) -> Sequence[pb.Lease]:
        """All leases that the filter selects, at most ``limit``, newest first."""
        return self._call(lambda core: core.list(filter, order_by=order_by, limit=limit))

    def watch(self, name: str, after_revision: int = 0) -> Iterator[pb.WatchLeaseResponse]:
        """Follow a lease to its end; resumes over broken connections."""
        return self._iterate(lambda core: core.watch(name, after_revision))

    def watch_all(self, filter: str = "", after_revision: int = 0) -> Iterator[pb.WatchLeasesResponse]:
        """Follow all leases that the filter selects, for ever."""
        return self._iterate(lambda core: core.watch_all(filter, after_revision))

    def release(self, name: str, message: str = "") -> pb.Lease:
        """Release a lease, whoever is attached to it."""
        return self._call(lambda core: core.release(name, message))

    def queues(self) -> Sequence[pb.Queue]:
        """The queues that the caller may use."""
        return self._call(lambda core: core.queues())

    def profiles(self) -> Sequence[pb.Profile]:
        """The profiles that the caller may use."""
        return self._call(lambda core: core.profiles())

    def logs(
        self, name: str, *, offset: int = 0, tail_lines: int = 0, follow: bool = False, attempt: int = 0
    ) -> Iterator[bytes]:
        """A driver's log, also of a lease that has ended, in pieces of any size."""
        return self._iterate(
            lambda core: core.logs(name, offset=offset, tail_lines=tail_lines, follow=follow, attempt=attempt)
        )

    def close(self) -> None:
        """Release what is attached, within a bound, and disconnect. Idempotent."""
        core, own = self._core, self._pid == os.getpid()
        self._closed = True
        _brokers.discard(self)
        if core is not None and own:
            portal().call(core.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_brokers: Final[set[Broker]] = set()
"""Those that are connected. Held fast: a lease that is renewed is to be released, also if nobody has the Broker."""


def _close_all() -> None:
    for broker in list(_brokers):
        broker.close()


atexit.register(_close_all)


class _Dispatcher:
    """Calls callbacks one at a time, in order, in a thread: they may block and may use the client."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._started = False

    def put(self, work: Callable[[], object]) -> None:
        self._queue.put(work)
        if not self._started:
            self._started = True
            start_thread(self._run, "callbacks")

    def _run(self) -> None:
        while True:
            work = self._queue.get()
            work()


def _wrapped(dispatcher: _Dispatcher, callback: OnLease) -> OnLease:
    def called(lease: AsyncLease) -> None:
        own = Lease(portal(), lease)
        dispatcher.put(lambda: call_logged(callback, own))

    return called
