"""HTTP/2 as an attacker speaks it: frames of its own making, which no library would send."""

import asyncio
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final

from tests.torture.attacks.victim import Victim

DATA: Final = 0
HEADERS: Final = 1
RESET: Final = 3
SETTINGS: Final = 4
PING: Final = 6
WINDOW: Final = 8
ACK: Final = 1
END_STREAM: Final = 1
END_HEADERS: Final = 4
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FIRST_WINDOW: Final = 65_535
LARGEST_FRAME: Final = 16_384
INITIAL_WINDOW: Final = 4
"""The setting."""
SERVICE: Final = "/sparkbroker.v1.BrokerService/"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def headers(path: str, metadata: Iterable[tuple[str, str]] = ()) -> bytes:
    """A call's header block: literals, neither indexed nor compressed."""
    fields = {
        ":method": "POST", ":scheme": "http", ":path": path, ":authority": "broker", "te": "trailers",
        "content-type": "application/grpc", **dict(metadata),
    }  # fmt: skip
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields.items())


def _text(text: str) -> bytes:
    data = text.encode()
    assert len(data) < 127 + 128
    length = bytes([len(data)]) if len(data) < 127 else bytes([127, len(data) - 127])
    return length + data


def message(body: bytes) -> bytes:
    """As gRPC frames it."""
    return struct.pack(">BI", 0, len(body)) + body


class Peer(asyncio.Protocol):
    """A connection that begins with ``first`` and keeps to the protocol otherwise. ``lost`` is set at its end.

    ``bodies`` of open streams are sent as far as the server's windows allow. ``window`` is what it offers the server for
    each stream's answers.
    """

    def __init__(self, first: bytes, *, window: int = FIRST_WINDOW, bodies: dict[int, bytes] | None = None) -> None:
        self._first = first
        self._window = window
        self._bodies = dict(bodies or {})
        self._sent = dict.fromkeys(self._bodies, 0)
        self._stream_window = FIRST_WINDOW
        self._room = FIRST_WINDOW
        self._buffer = b""
        self.transport: Any = None
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        settings = frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW, self._window))
        self.transport.write(PREFACE + settings + self._first)
        self._send_bodies()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        data, position = self._buffer + data, 0
        while len(data) - position >= 9:
            length = int.from_bytes(data[position : position + 3], "big")
            if position + 9 + length > len(data):
                break
            kind, flags = data[position + 3], data[position + 4]
            stream = int.from_bytes(data[position + 5 : position + 9], "big")
            self._received(kind, flags, stream, data[position + 9 : position + 9 + length])
            position += 9 + length
        self._buffer = data[position:]
        self._send_bodies()

    def _received(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            for begin in range(0, len(payload), 6):
                name, value = struct.unpack(">HI", payload[begin : begin + 6])
                if name == INITIAL_WINDOW:
                    for each in self._sent:
                        self._sent[each] -= value - self._stream_window
                    self._stream_window = value
            self.transport.write(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.transport.write(frame(PING, ACK, 0, payload))
        elif kind == WINDOW:
            more = int.from_bytes(payload, "big")
            if stream == 0:
                self._room += more
            elif stream in self._sent:
                self._sent[stream] -= more
        elif kind == RESET:
            self._bodies.pop(stream, None)

    def _send_bodies(self) -> None:
        for stream, body in list(self._bodies.items()):
            may = min(len(body), self._stream_window - self._sent[stream], self._room)
            for begin in range(0, may, LARGEST_FRAME):
                part = body[begin : min(begin + LARGEST_FRAME, may)]
                self.transport.write(frame(DATA, 0, stream, part))
            if may > 0:
                self._sent[stream] += may
                self._room -= may
                self._bodies[stream] = body[may:]
            if not self._bodies[stream]:
                del self._bodies[stream]


async def connect(
    victim: Victim, first: bytes, *, window: int = FIRST_WINDOW, bodies: dict[int, bytes] | None = None
) -> Peer:
    _, peer = await asyncio.get_running_loop().create_connection(
        lambda: Peer(first, window=window, bodies=bodies), "127.0.0.1", victim.port
    )
    victim.achieved["connections"] += 1
    return peer


def streams(count: int) -> Sequence[int]:
    """So many that a client may open."""
    return range(1, 2 * count, 2)
