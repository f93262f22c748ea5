"""Calls to the broker: what the client needs of a connection, and what its two kinds have in common.

Errors of gRPC leave here as the client's own. Every call carries the token of now.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from sparkbroker.client import _fork
from sparkbroker.client._address import Address
from sparkbroker.client._clock import now
from sparkbroker.client._errors import BadAddress, BrokerUnreachable, ClientClosed, SparkbrokerError
from sparkbroker.client._status import translate, translate_status
from sparkbroker.v1.broker_pb2_grpc import BrokerServiceStub

SHORTEST_TRUST: Final = 5.0
"""Seconds before a new connection can be distrusted in its turn."""
ADMIN: Final = frozenset({"ForceRelease"})
"""Methods of AdminService; the others are BrokerService's."""
MOST_OLD_CHANNELS: Final = 3
CALLS_PER_CONNECTION: Final = 40
"""A broker lets a connection have 100 calls by default; one too many would wait, and with it the heartbeat of a lease."""
SETTLE_TIMEOUT: Final = 0.25
"""Seconds that exchanges under way get to come to their end before a fork."""
Reply = TypeVar("Reply", bound=Message)


class Interrupted(Exception):
    """A fork of this process has cut off a call. It is to be made again, at once; it has said nothing of the broker."""


class Duplex(Protocol):
    """An open stream in both directions. Errors are the client's own, and Interrupted."""

    async def send(self, request: Message) -> None: ...
    async def receive(self) -> Message | None:
        """The next message; None: the broker has ended the stream in good order."""
        ...

    def cancel(self) -> None: ...


class Transport(Protocol):
    """A connection to one broker. ``timeout`` is in seconds. What is cut off by a fork raises Interrupted."""

    async def unary(self, method: str, request: Message, reply: type[Reply], timeout: float) -> Reply: ...
    def stream(self, method: str, request: Message, reply: type[Reply], timeout: float) -> AsyncGenerator[Reply, None]:
        """The stream's messages. Closing the iterator cancels the call."""
        ...

    async def duplex(self, method: str) -> Duplex: ...
    def distrust(self) -> None:
        """The connection seems dead although nobody has said so (sleep, a lost NAT entry): use a new one from now on."""
        ...

    async def close(self) -> None: ...


def channel_options(address: Address) -> list[tuple[str, Any]]:
    """Find a restarted broker soon, and don't ask a web proxy for what is on this machine."""
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


class _Count:
    """How many are inside, and a wait for none."""

    def __init__(self) -> None:
        self._number = 0
        self._none = asyncio.Event()

    def __enter__(self) -> None:
        self._number += 1

    def __exit__(self, *_: object) -> None:
        self._number -= 1
        if self._number == 0:
            self._none.set()

    async def none(self) -> None:
        while self._number:
            self._none.clear()
            await self._none.wait()


class ChannelTransport(ABC):
    """A Transport on gRPC channels, for the event loop in which it is made.

    It is paused while the process forks (see ``_fork``): nothing of gRPC is held then. A call that is made meanwhile
    waits; one that has not ended in SETTLE_TIMEOUT is interrupted.
    """

    _insecure: Callable[..., Any]
    _secure: Callable[..., Any]

    def __init__(self, address: Address) -> None:
        self.address: Final = address
        self.closed = False
        self._answered = False
        self.calls: Final[set[Call]] = set()
        self.exchanges: Final = _Count()
        """Requests that are about to be answered: all calls but open streams that wait for what may come."""
        self.inside: Final = _Count()
        """Coroutines that hold an object of gRPC's."""
        self._channels: list[Any] = []
        self._stubs: list[Any] = []
        """Of the newest channels, each for CALLS_PER_CONNECTION calls."""
        self._running = asyncio.Event()
        self._running.set()
        self._connect()
        _fork.join(self)

    def _connect(self) -> None:
        """One more connection."""
        options = channel_options(self.address)
        if self.address.tls:
            credentials = grpc.ssl_channel_credentials(root_certificates=self.address.read_ca())
            channel = self._secure(self.address.target, credentials, options=options)
        else:
            channel = self._insecure(self.address.target, options=options)
        self._connected = now()
        self._channels.append(channel)
        self._stubs.append(BrokerServiceStub(channel))

    def distrust(self) -> None:
        # Calls on the old channel end by their own deadlines: closing it would cancel them without a reason.
        if self._channels and now() - self._connected >= SHORTEST_TRUST:
            del self._channels[: -MOST_OLD_CHANNELS * len(self._stubs)]
            self._stubs.clear()
            self._connect()

    async def _method(self, name: str) -> Any:
        """What begins a call, when no fork is under way. To be used before the next ``await``."""
        while not (self._running.is_set() or self.closed):
            await self._running.wait()
        if self.closed:
            raise ClientClosed("the client is closed")
        busy = len(self.calls) // CALLS_PER_CONNECTION
        if busy >= len(self._stubs):
            self._connect()
        if name in ADMIN:
            from sparkbroker.v1.admin_pb2_grpc import AdminServiceStub  # noqa: PLC0415  operators only

            return getattr(AdminServiceStub(self._channels[-1]), name)
        return getattr(self._stubs[min(busy, len(self._stubs) - 1)], name)

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries. Secret."""
        token = self.address.read_token()
        return (("authorization", f"Bearer {token}"),) if token else ()

    async def unary(self, method: str, request: Message, reply: type[Reply], timeout: float) -> Reply:
        with self.exchanges:
            try:
                answer = await self._unary(method, request, reply, timeout)
            except BrokerUnreachable as error:
                cause = error.__cause__
                if isinstance(cause, grpc.RpcError) and cause.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    self.distrust()
                await self._check_certificate(error)
                raise
            self._answered = True
            return answer

    async def _check_certificate(self, error: BrokerUnreachable) -> None:
        """Raise BadAddress if the broker has never answered because its certificate isn't trusted."""
        if not self.address.tls or self._answered:
            return
        from sparkbroker.client._tls import distrusted  # noqa: PLC0415  for those who are in trouble

        if problem := await distrusted(self.address):
            advice = "give the CA's certificate as ca_file, and the host by a name that is in the broker's certificate"
            raise BadAddress(f"{self.address.source}: {self.address.url}: {problem}; {advice}") from error

    async def stream(
        self, method: str, request: Message, reply: type[Reply], timeout: float
    ) -> AsyncGenerator[Reply, None]:
        call = await self._streamed(method, request, timeout)
        try:
            while (message := await call.receive()) is not None:
                yield message  # type: ignore[misc]
        finally:
            call.cancel()

    async def pause(self) -> None:
        try:
            async with asyncio.timeout(SETTLE_TIMEOUT):
                await self.exchanges.none()
        except TimeoutError:
            pass  # they are interrupted
        self._running.clear()
        for call in list(self.calls):
            call.interrupt()
        await self._close_channels()
        await self.inside.none()

    def resume(self) -> None:
        self._running.set()

    async def close(self) -> None:
        self.closed = True
        self._running.set()
        await self._close_channels()
        _fork.leave(self)

    async def _close_channels(self) -> None:
        channels, self._channels, self._stubs = self._channels, [], []
        for channel in channels:
            await self._close_channel(channel)

    @abstractmethod
    async def _unary(self, method: str, request: Message, reply: type[Reply], timeout: float) -> Reply: ...
    @abstractmethod
    async def _streamed(self, method: str, request: Message, timeout: float) -> "Call":
        """Begin a call with a stream of answers."""

    @abstractmethod
    async def duplex(self, method: str) -> "Call": ...
    @abstractmethod
    async def _close_channel(self, channel: Any) -> None: ...


class Call(ABC):
    """A Duplex, known to its transport until it is cancelled. ``raw`` is gRPC's call."""

    def __init__(self, transport: ChannelTransport, method: str, raw: Any) -> None:
        self._transport = transport
        self._method = method
        self._raw = raw
        self._interrupted = False
        self._answer_due = False
        transport.calls.add(self)

    async def send(self, request: Message) -> None:
        with self.guard() as raw:
            if not self._answer_due:
                self._answer_due = True
                self._transport.exchanges.__enter__()
            await self._send(raw, request)

    async def receive(self) -> Message | None:
        try:
            with self.guard() as raw:
                return await self._receive(raw)
        finally:
            self._answered()

    def cancel(self) -> None:
        self._transport.calls.discard(self)
        self._answered()
        raw, self._raw = self._raw, None
        if raw is not None:
            self._end(raw)

    def interrupt(self) -> None:
        """Cancel it; who uses it sees Interrupted."""
        self._interrupted = True
        self.cancel()

    def _answered(self) -> None:
        if self._answer_due:
            self._answer_due = False
            self._transport.exchanges.__exit__()

    @contextmanager
    def guard(self) -> Iterator[Any]:
        """Lend gRPC's call, to be held inside only. What it raises leaves as the client's own error."""
        if self._raw is None:
            raise self._cut_off()
        with self._transport.inside:
            try:
                yield self._raw
            except (grpc.RpcError, grpc.FutureCancelledError, SparkbrokerError) as error:
                if self._interrupted or self._transport.closed:
                    raise self._cut_off() from None
                if isinstance(error, grpc.RpcError):
                    raise translate(error, where=self._transport.address.url, method=self._method) from error
                raise
            except asyncio.CancelledError:
                # The call's, since it was cut off, or the caller's?
                task = asyncio.current_task()
                if (self._interrupted or self._transport.closed) and not (task and task.cancelling()):
                    raise self._cut_off() from None
                raise

    def _cut_off(self) -> Exception:
        if self._interrupted and not self._transport.closed:
            return Interrupted(f"{self._method} was cut off by a fork")
        return ClientClosed(f"the client was closed during {self._method}")

    def translated(self, code: grpc.StatusCode, text: str | None, trailers: Iterable[Any] | None) -> SparkbrokerError:
        return translate_status(code, text, trailers, where=self._transport.address.url, method=self._method)

    def _end(self, raw: Any) -> None:
        raw.cancel()

    @abstractmethod
    async def _send(self, raw: Any, request: Message) -> None: ...
    @abstractmethod
    async def _receive(self, raw: Any) -> Message | None: ...
