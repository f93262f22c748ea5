"""The channel of a forked child whose parent had gRPC at work.

grpc.aio can't be used there: its poller thread is gone and is never made again. gRPC's blocking stack does work. So the
same Transport stands on that stack, with a thread for each open stream; this is not for many streams at a time.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from sparkbroker.client._transport import Call, ChannelTransport, Reply

_END: Final = object()
_MOST_UNREAD: Final = 16


class ThreadedTransport(ChannelTransport):
    """See ChannelTransport."""

    _insecure = staticmethod(grpc.insecure_channel)
    _secure = staticmethod(grpc.secure_channel)

    async def _unary(self, method: str, request: Message, reply: type[Reply], timeout: float) -> Reply:
        begin = (await self._method(method)).future
        call = _FutureCall(self, method, begin(request, timeout=timeout, metadata=self._metadata()))
        try:
            answer: Any = await call.receive()
        finally:
            call.cancel()
        return answer  # type: ignore[no-any-return]

    async def _streamed(self, method: str, request: Message, timeout: float) -> Call:
        begin = await self._method(method)
        return _ThreadedCall(self, method, begin(request, timeout=timeout, metadata=self._metadata()), None)

    async def duplex(self, method: str) -> Call:
        begin = await self._method(method)
        requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        return _ThreadedCall(self, method, begin(_drain(requests), metadata=self._metadata()), requests)

    async def _close_channel(self, channel: Any) -> None:
        channel.close()


class _FutureCall(Call):
    """One answer."""

    async def _send(self, raw: Any, request: Message) -> None:
        raise TypeError(f"{self._method} takes one request")

    async def _receive(self, raw: Any) -> Message | None:
        ended = asyncio.Event()
        wake = _waker(ended.set)
        raw.add_done_callback(lambda _: wake())
        await ended.wait()
        try:
            return raw.result()  # type: ignore[no-any-return]
        except grpc.FutureCancelledError:
            raise self.translated(grpc.StatusCode.CANCELLED, "cancelled", ()) from None


class _ThreadedCall(Call):
    """A stream, read by a thread."""

    def __init__(
        self, transport: ChannelTransport, method: str, raw: Any, requests: "queue.SimpleQueue[Any] | None"
    ) -> None:
        super().__init__(transport, method, raw)
        self._requests = requests
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self._room = threading.Semaphore(_MOST_UNREAD)
        deliver = _waker(self._answers.put_nowait)
        threading.Thread(target=self._read, args=(raw, deliver), name=f"sparkbroker-{method}", daemon=True).start()

    def _read(self, raw: Any, deliver: Callable[[Any], None]) -> None:
        last: Any = _END
        try:
            for message in raw:
                self._room.acquire()
                deliver(message)
        except grpc.RpcError as error:
            # Of an interrupted call nothing of gRPC's may remain, and this error is one with the call.
            last = _END if self._interrupted else error
        deliver(last)

    async def _send(self, raw: Any, request: Message) -> None:
        if self._requests is not None:
            self._requests.put(request)

    async def _receive(self, raw: Any) -> Message | None:
        item = await self._answers.get()
        self._room.release()
        if self._interrupted:
            raise self._cut_off()
        if item is _END:
            return None
        if isinstance(item, grpc.RpcError):
            raise item
        return item  # type: ignore[no-any-return]

    def _end(self, raw: Any) -> None:
        raw.cancel()
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
