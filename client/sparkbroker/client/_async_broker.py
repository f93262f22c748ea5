"""The asynchronous client."""

import asyncio
import logging
import os
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, Literal, Self, Unpack

from sparkbroker.client._address import Address, resolve_address
from sparkbroker.client._ask import Ask, acquire_request
from sparkbroker.client._async_lease import AsyncLease
from sparkbroker.client._errors import BrokerUnreachable, ClientClosed, SparkbrokerError, WrongProcess
from sparkbroker.client._fork import forked_with_grpc
from sparkbroker.client._keepalive import KeepAlive
from sparkbroker.client._lease_context import Callbacks, Handle, LeaseContext
from sparkbroker.client._messages import Messages
from sparkbroker.client._retry import DEFAULT_PATIENCE
from sparkbroker.client._rpc import Rpc
from sparkbroker.client._tasks import Tasks
from sparkbroker.client._transport import Transport
from sparkbroker.client._values import Progress
from sparkbroker.client.visible import VisibleMessages
from sparkbroker.v1 import broker_pb2 as pb

_log = logging.getLogger("sparkbroker.client")
_log.addFilter(VisibleMessages())  # all modules of the client log by this name
_UNDO_TIMEOUT: Final = 5.0
_CLOSE_TIMEOUT: Final = 10.0

OnProgress = Callable[[Progress], object]
OnLease = Callable[[Any], object]


class AsyncBroker:
    """A connection to a broker, for one event loop; use it with ``async with``, or ``close`` it.

    ``patience``: seconds for which a broker that doesn't answer is tried again, for each call. Closing releases the
    leases that are attached through it. Callbacks get the lease, in the event loop: ``on_suspect`` (the broker can't be
    asked, the session goes on), ``on_resumed``, ``on_lost``, ``on_notice``.
    """

    def __init__(
        self,
        url: str | Address | None = None,
        *,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        allow_plaintext: bool = False,
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
                url, token=token, token_file=token_file, ca_file=ca_file, allow_plaintext=allow_plaintext
            )
        )
        self._patience = patience
        self._callbacks = Callbacks(suspect=on_suspect, resumed=on_resumed, lost=on_lost, notice=on_notice)
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opened: LeaseContext | None = None
        self._closed = False

    def __repr__(self) -> str:
        if self._closed:
            state = "closed"
        elif self._opened is None:
            state = "not connected"
        else:
            state = f"{len(self._opened.held)} attached"
        return f"<{type(self).__name__} {self._address.url} [{state}]>"

    @property
    def address(self) -> Address:
        """Where the broker is."""
        return self._address

    def _context(self) -> LeaseContext:
        if self._closed:
            raise ClientClosed("the client is closed")
        if self._pid != os.getpid():
            raise WrongProcess("an AsyncBroker doesn't survive a fork; make one in this process")
        loop = asyncio.get_running_loop()
        if self._opened is None:
            transport = _transport(self._address)
            tasks = Tasks()
            self._loop = loop
            self._opened = LeaseContext(
                rpc=Rpc(transport, patience=self._patience),
                keepalive=KeepAlive(transport, tasks),
                tasks=tasks,
                held=set(),
                callbacks=self._callbacks,
            )
        elif self._loop is not loop:
            raise ClientClosed("an AsyncBroker belongs to the event loop in which it was first used")
        return self._opened

    async def acquire(self, **ask: Unpack[Ask]) -> AsyncLease:
        """Ask for a lease and return at once, not attached: it is QUEUED, or further.

        It waits for wait_ttl unless it is watched (``wait_ready``). If the caller is cancelled meanwhile, a lease
        that was made is released again. Errors: InvalidRequest, NeverFits, LeaseKeyInUse, NotAllowed, ….
        """
        request = acquire_request(ask, str(uuid.uuid4()))
        context = self._context()
        try:
            response = await context.rpc.call("AcquireLease", request, pb.AcquireLeaseResponse)
        except asyncio.CancelledError:
            await context.tasks.finish(_undo_acquire(context.rpc, request), "undo-acquire")
            raise
        # One that somebody has attached to before us isn't ours alone, whatever a replayed answer says.
        return AsyncLease(context, response.lease, joined=response.existing or response.lease.generation > 0)

    @asynccontextmanager
    async def lease(
        self, *, on_progress: OnProgress | None = None, timeout: float | None = None, **ask: Unpack[Ask]
    ) -> AsyncIterator[AsyncLease]:
        """A lease that is READY and attached, for the body; then it is released.

        ``timeout``: seconds that this program waits; ``acquire_timeout`` tells the broker as well.
        """
        async with await self.acquire(**ask) as lease:
            await lease.wait_ready(on_progress, timeout=timeout)
            await lease.attach()
            yield lease

    @asynccontextmanager
    async def session(
        self,
        *,
        on_progress: OnProgress | None = None,
        timeout: float | None = None,
        api: Literal["classic", "connect"] = "classic",
        app_name: str = "",
        **ask: Unpack[Ask],
    ) -> AsyncIterator[Any]:
        """A Spark session on a lease of its own, for the body. pyspark's calls block: use ``asyncio.to_thread``."""
        async with (
            self.lease(on_progress=on_progress, timeout=timeout, **ask) as lease,
            lease.session(api=api, app_name=app_name) as spark,
        ):
            yield spark

    async def open(self, name: str) -> AsyncLease:
        """A handle on a lease that exists, not attached; ``attach`` makes this client its user."""
        context = self._context()
        response = await context.rpc.call("GetLease", pb.GetLeaseRequest(name=name), pb.GetLeaseResponse)
        return AsyncLease(context, response.lease, joined=True)

    @property
    def messages(self) -> Messages:
        """The same answers as the protocol's messages, for programs that pass them on."""
        return Messages(lambda: self._context().rpc)

    async def get(self, name: str) -> pb.Lease:
        """Read a lease."""
        return await self.messages.get(name)

    async def list(self, filter: str = "", *, order_by: str = "", limit: int | None = None) -> Sequence[pb.Lease]:
        """All leases that the filter selects, at most ``limit``, newest first. The filter's form is ListLeasesRequest's."""
        return await self.messages.list(filter, order_by=order_by, limit=limit)

    def watch(self, name: str, after_revision: int = 0) -> AsyncIterator[pb.WatchLeaseResponse]:
        """Follow a lease to its end; resumes over broken connections. Raise EventsCompacted, BrokerUnreachable."""
        return self.messages.watch(name, after_revision)

    def watch_all(self, filter: str = "", after_revision: int = 0) -> AsyncIterator[pb.WatchLeasesResponse]:
        """Follow all leases that the filter selects, for ever; otherwise as ``watch``."""
        return self.messages.watch_all(filter, after_revision)

    async def release(self, name: str, message: str = "") -> pb.Lease:
        """Release a lease, whoever is attached to it."""
        return await self.messages.release(name, message)

    async def force_release(self, name: str, message: str = "") -> tuple[pb.Lease, str]:
        """For operators: end a lease, and stop waiting for what can't be confirmed gone, such as pods on a dead node.

        Returns the lease and what was done, for people. Its capacity is free once nothing of it is on record.
        """
        return await self.messages.force_release(name, message)

    async def queues(self) -> Sequence[pb.Queue]:
        """The queues that the caller may use."""
        return await self.messages.queues()

    async def profiles(self) -> Sequence[pb.Profile]:
        """The profiles that the caller may use."""
        return await self.messages.profiles()

    async def logs(
        self, name: str, *, offset: int = 0, tail_lines: int = 0, follow: bool = False, attempt: int = 0
    ) -> AsyncIterator[bytes]:
        """A driver's log, also of a lease that has ended, in pieces of any size."""
        request = pb.StreamLogsRequest(name=name, offset=offset, tail_lines=tail_lines, follow=follow, attempt=attempt)
        async for chunk in self._context().rpc.logs(request):
            yield chunk.data

    def all_logs(
        self, name: str, *, tail_lines: int = 0, follow: bool = False, attempt: int = 0
    ) -> AsyncIterator[pb.StreamLogsResponse]:
        """The logs of a driver and of its executors, in pieces that say whose they are: ``source`` is the executor's pod,
        or empty."""
        return self.messages.all_logs(name, tail_lines=tail_lines, follow=follow, attempt=attempt)

    async def close(self) -> None:
        """Release what is attached, within a bound, and disconnect. Idempotent."""
        if self._closed or self._opened is None or self._pid != os.getpid():
            self._closed = True
            return
        context = self._context()
        self._closed = True
        try:
            await context.tasks.finish(_release_all(list(context.held)), "close")
        finally:
            await context.tasks.close()
            await context.rpc.transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _transport(address: Address) -> Transport:
    if forked_with_grpc():
        from sparkbroker.client._threaded_transport import ThreadedTransport  # noqa: PLC0415  for few forked children

        return ThreadedTransport(address)
    from sparkbroker.client._aio_transport import AioTransport  # noqa: PLC0415

    return AioTransport(address)


async def _undo_acquire(rpc: Rpc, request: pb.AcquireLeaseRequest) -> None:
    """The caller has gone: find out, by the same request id, what it would have got, and give that back."""
    try:
        async with asyncio.timeout(_UNDO_TIMEOUT):
            response = await rpc.call("AcquireLease", request, pb.AcquireLeaseResponse, patience=_UNDO_TIMEOUT)
            if response.existing or response.lease.generation:
                return  # it was there before, or is in use already: it isn't this request's to end
            release = pb.ReleaseLeaseRequest(name=response.lease.name, message="the acquire was cancelled")
            await rpc.call("ReleaseLease", release, pb.ReleaseLeaseResponse, patience=_UNDO_TIMEOUT)
    except (BrokerUnreachable, TimeoutError) as error:
        _log.warning("sparkbroker: a cancelled acquire may leave a lease, which ends by its wait_ttl: %s", error)
    except SparkbrokerError:
        return  # the request was refused: there is no lease


async def _release_all(leases: list[Handle]) -> None:
    async with asyncio.TaskGroup() as group:
        for lease in leases:
            group.create_task(lease.release("the client was closed", timeout=_CLOSE_TIMEOUT))
