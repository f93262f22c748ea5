"""What a blocking Broker works with. It is loaded when one is first used: with it come gRPC and the protocol."""

import atexit
import os
import queue
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, TypeVar

from sparkbroker.client._address import Address
from sparkbroker.client._async_broker import AsyncBroker, OnLease
from sparkbroker.client._async_lease import AsyncLease
from sparkbroker.client._blocking import start_thread
from sparkbroker.client._errors import ClientClosed
from sparkbroker.client._lease_context import call_logged
from sparkbroker.client._portal import keep_from_parent, portal
from sparkbroker.client._sync_lease import Lease

if TYPE_CHECKING:
    from sparkbroker.client._ask import Ask

T = TypeVar("T")


class Engine:
    """An AsyncBroker in the process's portal, another one in each process that it is used in. Works from any thread."""

    def __init__(self, address: Address, *, patience: float, callbacks: Mapping[str, OnLease]) -> None:
        self._address = address
        self._patience = patience
        self._callbacks = callbacks
        self._pid = os.getpid()
        self._core: AsyncBroker | None = None
        self._closed = False

    def __repr__(self) -> str:
        if self._core is None or self._pid != os.getpid():
            return f"<AsyncBroker {self._address.url} [not connected]>"
        return repr(self._core)

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
            _engines.add(self)
        return self._core

    def call(self, work: Callable[[AsyncBroker], Awaitable[T]]) -> T:
        """Do it with the asynchronous client."""

        async def run() -> T:
            return await work(self._opened())

        return portal().call(run())

    def iterate(self, source: Callable[[AsyncBroker], AsyncIterator[T]]) -> Iterator[T]:
        """Likewise for what it gives out one by one."""

        async def items() -> AsyncIterator[T]:
            async for item in source(self._opened()):
                yield item

        return portal().iterate(items())

    def acquire(self, ask: "Ask") -> Lease:
        """Given back again if the waiting for it is interrupted."""

        async def run() -> AsyncLease:
            return await self._opened().acquire(**ask)

        return Lease(portal(), portal().call(run(), undo=lambda lease: lease.__aexit__(None, None, None)))

    def open(self, name: str) -> Lease:
        """A handle on a lease that exists."""
        return Lease(portal(), self.call(lambda core: core.open(name)))

    def close(self) -> None:
        """Release what is attached by this process, and disconnect. Idempotent."""
        core, own = self._core, self._pid == os.getpid()
        self._closed = True
        _engines.discard(self)
        if core is not None and own:
            portal().call(core.close())


_engines: Final[set[Engine]] = set()
"""Those that are connected. Held fast: a lease that is renewed is to be released, also if nobody has the Broker."""


def _close_all() -> None:
    for engine in list(_engines):
        engine.close()


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
