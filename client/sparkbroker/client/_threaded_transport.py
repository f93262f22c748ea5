"""The channel of a forked child.

grpc.aio can't be used in a process whose parent has used it: its poller thread is gone and is never made again. gRPC's
blocking stack does work there. So in a forked child the same Transport stands on that stack, with a thread for each
open stream; this is not for many streams at a time.
"""

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from sparkbroker.client._address import Address
from sparkbroker.client._clock import now
from sparkbroker.client._errors import ClientClosed
from sparkbroker.client._status import translate
from sparkbroker.client._transport import (
    MOST_OLD_CHANNELS,
    SHORTEST_TRUST,
    Duplex,
    Reply,
    call_metadata,
    channel_options,
)
from sparkbroker.v1.broker_pb2_grpc import BrokerServiceStub

_END: Final = object()
_MOST_UNREAD: Final = 16


class ThreadedTransport:
    """See Transport. Belongs to the event loop in which it is made."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._channels: list[grpc.Channel] = []
        self._closed = False
        self._connect()

    def _connect(self) -> None:
        options = channel_options(self._address)
        if self._address.tls:
            credentials = grpc.ssl_channel_credentials(root_certificates=self._address.read_ca())
            channel = grpc.secure_channel(self._address.target, credentials, options=options)
        else:
            channel = grpc.insecure_channel(self._address.target, options=options)
        self._connected = now()
        self._channels.append(channel)
        self._stub = BrokerServiceStub(channel)

    def distrust(self) -> None:
        if not self._closed and now() - self._connected >= SHORTEST_TRUST:
            del self._channels[:-MOST_OLD_CHANNELS]
            self._connect()

    def _open(self, method: str) -> Any:
        if self._closed:
            raise ClientClosed("the client is closed")
        return getattr(self._stub, method)

    async def unary(self, method: str, request: Message, reply: type[Reply], timeout: float) -> Reply:
        call = self._open(method).future(request, timeout=timeout, metadata=call_metadata(self._address))
        ended = asyncio.Event()
        wake = _waker(ended.set)
        call.add_done_callback(lambda _: wake())
        try:
            await ended.wait()
            answer: Reply = call.result()
        except (grpc.RpcError, grpc.FutureCancelledError) as error:
            if self._closed:
                raise ClientClosed(f"the client was closed during {method}") from error
            if call.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                self.distrust()
            raise translate(call, where=self._address.url, method=method) from error
        finally:
            call.cancel()
        return answer

    async def stream(self, method: str, request: Message, reply: type[Reply], timeout: float) -> AsyncIterator[Reply]:
        call = self._open(method)(request, timeout=timeout, metadata=call_metadata(self._address))
        duplex = _ThreadedDuplex(call, None, self._address.url, method)
        try:
            while (message := await duplex.receive()) is not None:
                yield message  # type: ignore[misc]
        finally:
            duplex.cancel()

    def duplex(self, method: str) -> Duplex:
        requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        call = self._open(method)(_drain(requests), metadata=call_metadata(self._address))
        return _ThreadedDuplex(call, requests, self._address.url, method)

    async def close(self) -> None:
        self._closed = True
        for channel in self._channels:
            channel.close()


class _ThreadedDuplex:
    def __init__(self, call: Any, requests: "queue.SimpleQueue[Any] | None", where: str, method: str) -> None:
        self._call = call
        self._requests = requests
        self._where = where
        self._method = method
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self._room = threading.Semaphore(_MOST_UNREAD)
        deliver = _waker(self._answers.put_nowait)
        threading.Thread(target=self._read, args=(deliver,), name=f"sparkbroker-{method}", daemon=True).start()

    def _read(self, deliver: Callable[[Any], None]) -> None:
        last: Any = _END
        try:
            for message in self._call:
                self._room.acquire()
                deliver(message)
        except grpc.RpcError as error:
            last = error
        deliver(last)

    async def send(self, request: Message) -> None:
        if self._requests is not None:
            self._requests.put(request)

    async def receive(self) -> Message | None:
        item = await self._answers.get()
        self._room.release()
        if item is _END:
            return None
        if isinstance(item, grpc.RpcError):
            raise translate(item, where=self._where, method=self._method) from item
        return item  # type: ignore[no-any-return]

    def cancel(self) -> None:
        self._call.cancel()
        self._room.release(_MOST_UNREAD)
        if self._requests is not None:
            self._requests.put(_END)


def _drain(requests: "queue.SimpleQueue[Any]") -> Iterator[Any]:
    while (request := requests.get()) is not _END:
        yield request


def _waker(callback: Callable[..., None]) -> Callable[..., None]:
    """``callback``, called in this loop from any thread; a loop that has ended needs no call."""
    loop = asyncio.get_running_loop()

    def wake(*arguments: Any) -> None:
        try:
            loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            if not loop.is_closed():
                raise

    return wake
