"""A driver for tests that is small: no Spark, 10 MB, up in 50 ms, and from outside like a Connect server.

It listens on a free loopback port and greets with HTTP/2's SETTINGS. A call whose headers hold the token succeeds with an
empty message, any other is UNAUTHENTICATED; that is all it can. Run as a file, with ``-I -S``: the standard library only.

Options as arguments, name=value: ``delay`` (seconds before the port opens), ``exit`` (end with this status instead of
opening it), ``children`` (how many processes to start that leave the session and ignore SIGTERM), ``deaf=1`` (ignore
SIGTERM), ``mute=1`` (open the port, answer no call). At SIGUSR1 it takes 256 MiB, if it can.
"""

import os
import signal
import socket
import sys
import threading
import time

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING = 0, 1, 4, 6
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_STATUS_200 = b"\x88"
_CONTENT_TYPE = b"\x0f\x10\x10application/grpc"
_EMPTY_MESSAGE = b"\0\0\0\0\0"


def main() -> None:
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    if options.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, _eat)
    for _ in range(int(options.get("children", "0"))):
        _start_child()
    time.sleep(float(options.get("delay", "0")))
    if "exit" in options:
        os.write(1, b"ending as told\n")
        os._exit(int(options["exit"]))
    token = os.environ["SPARK_CONNECT_AUTHENTICATE_TOKEN"].encode()
    listener = socket.create_server(("127.0.0.1", 0))
    os.write(1, f"small driver listens on {listener.getsockname()[1]}\n".encode())
    while True:
        connection, _ = listener.accept()
        arguments = (connection, token, bool(options.get("mute")))
        threading.Thread(target=_serve, args=arguments, daemon=True).start()


def _eat(_number: int, _frame: object) -> None:
    eaten = [b"x" * (1 << 20) for _ in range(256)]
    os.write(1, f"took {len(eaten)} MiB\n".encode())


def _start_child() -> None:
    code = "import os, signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(3600)"
    argv = [sys.executable, "-I", "-S", "-c", code]
    os.posix_spawn(sys.executable, argv, os.environ, setsid=True)


def _serve(connection: socket.socket, token: bytes, mute: bool) -> None:
    with connection, connection.makefile("rb") as stream:
        try:
            connection.sendall(_frame(_SETTINGS, 0, 0))
            if stream.read(len(_PREFACE)) == _PREFACE:
                while _answer_frame(connection, stream, token, mute):
                    pass
        except OSError:
            return


_let_in: "dict[tuple[int, int], bool]" = {}


def _answer_frame(connection: socket.socket, stream: "object", token: bytes, mute: bool) -> bool:
    """Whether there was one."""
    head: bytes = stream.read(9)  # type: ignore[attr-defined]
    if len(head) < 9:
        return False
    size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
    number = int.from_bytes(head[5:], "big")
    payload: bytes = stream.read(size)  # type: ignore[attr-defined]
    if kind == _SETTINGS and not flags & _ACK:
        connection.sendall(_frame(_SETTINGS, _ACK, 0))
    elif kind == _PING and not flags & _ACK:
        connection.sendall(_frame(_PING, _ACK, 0, payload))
    elif kind == _HEADERS:
        _let_in[id(connection), number] = b"Bearer " + token in payload
    if kind in (_DATA, _HEADERS) and flags & _END_STREAM and not mute:
        connection.sendall(_answer(number, _let_in.pop((id(connection), number), False)))
    return True


def _answer(number: int, let_in: bool) -> bytes:
    headers = _frame(_HEADERS, _END_HEADERS, number, _STATUS_200 + _CONTENT_TYPE)
    body = _frame(_DATA, 0, number, _EMPTY_MESSAGE) if let_in else b""
    trailers = _literal(b"grpc-status", b"0" if let_in else b"16")
    return headers + body + _frame(_HEADERS, _END_HEADERS | _END_STREAM, number, trailers)


def _literal(name: bytes, value: bytes) -> bytes:
    """A header field of HPACK without indexing."""
    return bytes([0, len(name)]) + name + bytes([len(value)]) + value


def _frame(kind: int, flags: int, number: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + number.to_bytes(4, "big") + payload


if __name__ == "__main__":
    main()
