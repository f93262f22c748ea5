"""A load generator for unary gRPC calls: one HTTP/2 connection per client, one call at a time on each.

A grpc client costs as much as the server that it measures. This speaks just enough HTTP/2 (constant header blocks, no
Huffman, no dynamic table) to cost a fraction of that. A call has succeeded if its answer holds a message.
"""

import asyncio
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any

DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, _ACK = 0x1, 0x4, 0x1
_BIG = (1 << 31) - 1
_REFILL = 1 << 29


class CallFailed(Exception):
    """The call was answered with an error, or the connection ended."""


def _literal(name: str, value: str) -> bytes:
    """A header without indexing (RFC 7541, 6.2.2)."""
    return b"\x00" + _text(name) + _text(value)


def _text(text: str) -> bytes:
    data = text.encode()
    length = len(data)
    if length < 127:
        return bytes([length]) + data
    rest, prefix = length - 127, bytearray([127])
    while rest >= 128:
        prefix.append(rest % 128 + 128)
        rest //= 128
    return bytes([*prefix, rest]) + data


def headers(path: str, metadata: dict[str, str]) -> bytes:
    """The header block of every call to a method."""
    fields = {
        ":method": "POST", ":scheme": "http", ":path": path, ":authority": "127.0.0.1", "te": "trailers",
        "content-type": "application/grpc", "grpc-timeout": "30S", **metadata,
    }  # fmt: skip
    return b"".join(_literal(name, value) for name, value in fields.items())


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


class Frames(asyncio.Protocol, ABC):
    """One HTTP/2 connection: what every use of it needs. ``frame_received`` gets the rest."""

    def __init__(self) -> None:
        self._buffer = b""
        self._received = 0
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        window = struct.pack(">HI", 4, _BIG)
        transport.write(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(SETTINGS, 0, 0, window)
            + _frame(WINDOW, 0, 0, struct.pack(">I", _BIG - 65_535))
        )

    def send_call(self, stream: int, block: bytes, request: bytes) -> None:
        """Headers and the one message of a call."""
        body = struct.pack(">BI", 0, len(request)) + request
        self._transport.write(_frame(HEADERS, END_HEADERS, stream, block) + _frame(DATA, END_STREAM, stream, body))

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        position, end = 0, len(data)
        while end - position >= 9:
            length = int.from_bytes(data[position : position + 3], "big")
            stop = position + 9 + length
            if stop > end:
                break
            kind, flags = data[position + 3], data[position + 4]
            if kind == DATA:
                self._refill(length)
            if kind == SETTINGS:
                if not flags & _ACK:
                    self._transport.write(_frame(SETTINGS, _ACK, 0, b""))
            elif kind == PING:
                if not flags & _ACK:
                    self._transport.write(_frame(PING, _ACK, 0, data[position + 9 : stop]))
            elif kind != WINDOW:
                stream = int.from_bytes(data[position + 5 : position + 9], "big")
                self.frame_received(kind, flags, stream, data[position + 9 : stop])
            position = stop
        self._buffer = data[position:]

    def _refill(self, length: int) -> None:
        self._received += length
        if self._received > _REFILL:
            self._transport.write(_frame(WINDOW, 0, 0, struct.pack(">I", self._received)))
            self._received = 0

    @abstractmethod
    def frame_received(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """DATA, HEADERS, RESET or GOAWAY (or what HTTP/2 may bring later)."""


class Connection(Frames):
    """One HTTP/2 connection with at most one call on it."""

    def __init__(self) -> None:
        super().__init__()
        self._stream = -1
        self._message = bytearray()
        self._waiter: asyncio.Future[bytes] | None = None

    def call(self, block: bytes, request: bytes) -> "asyncio.Future[bytes]":
        """The answer's message, or CallFailed."""
        self._stream += 2
        self._message.clear()
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        self.send_call(self._stream, block, request)
        return waiter

    def connection_lost(self, _error: Exception | None) -> None:
        self._fail("the connection has ended")

    def frame_received(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == DATA:
            self._message += payload
        elif kind in {GOAWAY, RESET}:
            self._fail(f"frame {kind}: {payload[8:]!r}")
        if kind in {DATA, HEADERS} and flags & END_STREAM and self._waiter is not None and not self._waiter.done():
            if len(self._message) >= 5:
                self._waiter.set_result(bytes(self._message[5:]))
            else:
                self._fail(f"an answer without a message: {payload!r}")

    def _fail(self, why: str) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(CallFailed(why))


Work = Callable[[Connection], Coroutine[Any, Any, None]]


async def drive(port: int, clients: int, seconds: float, work: Work) -> tuple[float, list[float]]:
    """Repeat ``work`` on each of ``clients`` connections: (completed per second, their seconds, sorted).

    A fifth of the time is for warming up and isn't counted.
    """
    loop = asyncio.get_running_loop()
    connections = [(await loop.create_connection(Connection, "127.0.0.1", port))[1] for _ in range(clients)]
    begin = time.perf_counter() + seconds / 5
    finish = begin + seconds
    took: list[float] = []

    async def client(connection: Connection) -> None:
        while (started := time.perf_counter()) < finish:
            await work(connection)
            ended = time.perf_counter()
            # By their end alone: asking for the start too would count fewer of whoever is slower.
            if begin <= ended <= finish:
                took.append(ended - started)

    try:
        async with asyncio.TaskGroup() as group:
            for connection in connections:
                group.create_task(client(connection))
    finally:
        for connection in connections:
            connection.close()
    return len(took) / seconds, sorted(took)
