"""What somebody without a token can begin and leave unfinished: calls, their requests, connections."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final

from tests.torture.attacks.frames import END_HEADERS, HEADERS, SERVICE, Peer, connect, frame, headers, message, streams
from tests.torture.attacks.victim import Victim

CALLS: Final = 1000
"""On each connection."""
CONNECTIONS: Final = 24
BIG: Final = 255 * 1024
"""Less than the largest request."""
SILENT: Final = 3000
"""Connections: more than many a process may have files."""
HEALTH: Final = "/grpc.health.v1.Health/Check"


async def headers_only(victim: Victim) -> None:
    """24 connections, each with 1,000 calls that have headers and no request."""
    await _hold(CONNECTIONS, lambda: _calls(victim, SERVICE + "AcquireLease"))


async def headers_only_again(victim: Victim) -> None:
    """The same, and a new connection for each that the broker closes."""
    await _again(CONNECTIONS, lambda: _calls(victim, SERVICE + "AcquireLease"))


async def health_headers_only(victim: Victim) -> None:
    """The same, of the method that needs no token."""
    await _again(CONNECTIONS, lambda: _calls(victim, HEALTH))


async def unfinished_requests(victim: Victim) -> None:
    """Five connections, each with 1,000 requests of 255 KiB that lack their last byte."""
    body = message(b"x" * BIG)[:-1]
    await _hold(5, lambda: _calls(victim, SERVICE + "AcquireLease", body))


async def unfinished_health_requests(victim: Victim) -> None:
    """The same, of the method that needs no token, and a new connection for each that the broker closes."""
    body = message(b"x" * BIG)[:-1]
    await _again(5, lambda: _calls(victim, HEALTH, body))


async def silent_connections(victim: Victim) -> None:
    """3,000 connections that say nothing, and a new one for each that the broker closes."""
    await _silent(victim, victim.port)


async def silent_metrics_connections(victim: Victim) -> None:
    """The same, to the port of the metrics."""
    await _silent(victim, victim.metrics_port)


async def _calls(victim: Victim, path: str, body: bytes = b"") -> Peer:
    block = headers(path)
    first = b"".join(frame(HEADERS, END_HEADERS, stream, block) for stream in streams(CALLS))
    peer = await connect(victim, first, bodies=dict.fromkeys(streams(CALLS), body) if body else None)
    victim.achieved["calls"] += CALLS
    return peer


async def _hold(count: int, make: Callable[[], Coroutine[Any, Any, Peer]]) -> None:
    peers = [await make() for _ in range(count)]
    await asyncio.gather(*(peer.lost for peer in peers))
    await asyncio.Event().wait()


async def _again(count: int, make: Callable[[], Coroutine[Any, Any, Peer]]) -> None:
    async def one() -> None:
        while True:
            with contextlib.suppress(OSError):
                await (await make()).lost
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(one())


async def _silent(victim: Victim, port: int) -> None:
    async def one() -> None:
        loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(OSError), socket.socket() as silent:
                silent.setblocking(False)
                await loop.sock_connect(silent, ("127.0.0.1", port))
                victim.achieved["connections"] += 1
                while await loop.sock_recv(silent, 4096):
                    pass
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as group:
        for _ in range(SILENT):
            group.create_task(one())
