"""Calls to the broker: what the client needs of a channel, and the channel on grpc.aio.

Errors of gRPC leave here as the client's own. Every call carries the token of now.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final, Protocol, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from sparkbroker.client._address import Address
from sparkbroker.client._clock import now
from sparkbroker.client._errors import ClientClosed
from sparkbroker.client._status import translate, translate_status
from sparkbroker.v1.broker_pb2_grpc import BrokerServiceStub

SHORTEST_TRUST: Final = 5.0
"""Seconds before a new connection can be distrusted in its turn."""
MOST_OLD_CHANNELS: Final = 3
Reply = TypeVar("Reply", bound=Message)


class Duplex(Protocol):
    """An open stream in both directions. Errors are the client's own."""

    async def send(self, request: Message) -> None: ...
    async def receive(self) -> Message | None:
        """The next message; None: the broker has ended the stream in good order."""
        ...

    def cancel(self) -> None: ...


class Transport(Protocol):
    """A connection to one broker. ``timeout`` is in seconds."""

    async def unary(self, method: str, request: Message, reply: type[Reply], timeout: float) -> Reply: ...
    def stream(self, method: str, request: Message, reply: type[Reply], timeout: float) -> AsyncIterator[Reply]:
        """The stream's messages. Closing the iterator cancels the call."""
        ...

    def duplex(self, method: str) -> Duplex: ...
    def distrust(self) -> None:
        """The connection seems dead although nobody has said so (sleep, a lost NAT entry): use a new one from now on."""
        ...

    async def close(self) -> None: ...


def channel_options(address: Address) -> list[tuple[str, Any]]:
    """For both kinds of channel: find a restarted broker soon, and don't ask a web proxy for what is on this machine."""
    options: list[tuple[str, Any]] = [
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 500),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.max_receive_message_length", 16 << 20),
        # Else a new channel would be given the connection that the old one's was distrusted for.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if address.loopback:
        options.append(("grpc.enable_http_proxy", 0))
    return options


def call_metadata(address: Address) -> tuple[tuple[str, str], ...]:
    """What every call carries. Secret."""
    token = address.read_token()
    return (("authorization", f"Bearer {token}"),) if token else ()


class AioTransport:
    """See Transport. Belongs to the event loop in which it is made."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._channels: list[grpc.aio.Channel] = []
        self._closed = False
        self._connect()

    def _connect(self) -> None:
        options = channel_options(self._address)
        if self._address.tls:
            credentials = grpc.ssl_channel_credentials(root_certificates=self._address.read_ca())
            channel = grpc.aio.secure_channel(self._address.target, credentials, options=options)
        else:
            channel = grpc.aio.insecure_channel(self._address.target, options=options)
        self._connected = now()
        self._channels.append(channel)
        self._stub = BrokerServiceStub(channel)

    def distrust(self) -> None:
        # Calls on the old channel end by their own deadlines: closing it would cancel them without a reason.
        if not self._closed and now() - self._connected >= SHORTEST_TRUST:
            del self._channels[:-MOST_OLD_CHANNELS]
            self._connect()

    def _open(self, method: str) -> Any:
        if self._closed:
            raise ClientClosed("the client is closed")
        return getattr(self._stub, method)

    def _cancelled(self) -> bool:
        """Whether a CancelledError is the channel's (it was closed under the call) and not the caller's."""
        task = asyncio.current_task()
        return self._closed and (task is None or not task.cancelling())

    async def unary(self, method: str, request: Message, reply: type[Reply], timeout: float) -> Reply:
        try:
            answer: Reply = await self._open(method)(request, timeout=timeout, metadata=call_metadata(self._address))
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                self.distrust()
            raise translate(error, where=self._address.url, method=method) from error
        except asyncio.CancelledError as error:
            if self._cancelled():
                raise ClientClosed(f"the client was closed during {method}") from error
            raise
        return answer

    async def stream(self, method: str, request: Message, reply: type[Reply], timeout: float) -> AsyncIterator[Reply]:
        call = self._open(method)(request, timeout=timeout, metadata=call_metadata(self._address))
        try:
            async for message in call:
                yield message
        except grpc.RpcError as error:
            raise translate(error, where=self._address.url, method=method) from error
        except asyncio.CancelledError as error:
            if self._cancelled():
                raise ClientClosed(f"the client was closed during {method}") from error
            raise
        finally:
            call.cancel()

    def duplex(self, method: str) -> Duplex:
        call = self._open(method)(metadata=call_metadata(self._address))
        return _AioDuplex(call, self._address.url, method)

    async def close(self) -> None:
        self._closed = True
        for channel in self._channels:
            await channel.close(None)


class _AioDuplex:
    def __init__(self, call: Any, where: str, method: str) -> None:
        self._call = call
        self._where = where
        self._method = method

    async def send(self, request: Message) -> None:
        try:
            await self._call.write(request)
        except asyncio.InvalidStateError:
            # The call has ended: why is told by ``receive``, which comes next.
            return
        except grpc.RpcError as error:
            raise translate(error, where=self._where, method=self._method) from error

    async def receive(self) -> Message | None:
        try:
            message = await self._call.read()
        except grpc.RpcError as error:
            raise translate(error, where=self._where, method=self._method) from error
        if message is not grpc.aio.EOF:  # type: ignore[attr-defined]
            return message  # type: ignore[no-any-return]
        code = await self._call.code()
        if code is grpc.StatusCode.OK:
            return None
        trailers, text = await self._call.trailing_metadata(), await self._call.details()
        raise translate_status(code, text, trailers, where=self._where, method=self._method)

    def cancel(self) -> None:
        self._call.cancel()
