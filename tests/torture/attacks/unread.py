"""A caller with a token that asks and doesn't take, or asks and takes it back."""

import asyncio
import contextlib
import itertools
import struct
import uuid
from typing import Final

from sparkbroker.v1 import broker_pb2 as pb
from tests.torture.attacks.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    RESET,
    SERVICE,
    connect,
    frame,
    headers,
    message,
    streams,
)
from tests.torture.attacks.victim import Victim

LEASES: Final = 60
SPEC_BYTES: Final = 50_000
"""Less than a request may have."""
WATCHES: Final = 1_000
PAGES: Final = 150
CANCEL: Final = struct.pack(">I", 8)
BURST: Final = 100


async def unread_answers(victim: Victim) -> None:
    """Connections that offer no room for answers, each with 150 calls for big pages."""
    who = victim.headers("mallory")
    await _large_leases(victim)
    block = headers(SERVICE + "ListLeases", who)
    ask = message(pb.ListLeasesRequest(page_size=1000).SerializeToString())
    first = b"".join(
        frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, ask) for stream in streams(PAGES)
    )

    async def one() -> None:
        while True:
            with contextlib.suppress(OSError):
                peer = await connect(victim, first, window=0)
                victim.achieved["calls"] += PAGES
                await peer.lost
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(one())


async def _large_leases(victim: Victim) -> list[str]:
    """Their names."""
    names = []
    async with victim.channel() as channel:
        stub = victim.stub(channel)
        for number in range(LEASES):
            spec = pb.LeaseSpec(mode=pb.LEASE_MODE_LOCAL, conf={"spark.app.name": f"{number}" + "x" * SPEC_BYTES})
            request = pb.AcquireLeaseRequest(request_id=str(uuid.uuid4()), spec=spec)
            names.append((await stub.AcquireLease(request, metadata=victim.headers("mallory"))).lease.name)
            victim.achieved["large leases"] += 1
    return names


async def unread_watches(victim: Victim) -> None:
    """Connections that offer no room for answers, each with watches of large leases."""
    names = await _large_leases(victim)
    block = headers(SERVICE + "WatchLease", victim.headers("mallory"))

    async def one(number: int) -> None:
        first = b"".join(
            frame(HEADERS, END_HEADERS, stream, block)
            + frame(
                DATA, END_STREAM, stream, message(pb.WatchLeaseRequest(name=names[stream % LEASES]).SerializeToString())
            )
            for stream in streams(WATCHES // 20)
        )
        while True:
            with contextlib.suppress(OSError):
                peer = await connect(victim, first, window=0)
                victim.achieved["watches"] += WATCHES // 20
                await peer.lost
            await asyncio.sleep(0.1 + number / 100)

    async with asyncio.TaskGroup() as group:
        for number in range(40):
            group.create_task(one(number))


async def rapid_reset(victim: Victim) -> None:
    """Calls that are cancelled at once, as fast as they go."""
    block = headers(SERVICE + "ListQueues", victim.headers("mallory"))
    request = message(b"")

    async def one() -> None:
        while True:
            with contextlib.suppress(OSError):
                peer = await connect(victim, b"")
                for begin in itertools.count(1, 2 * BURST):
                    if peer.lost.done():
                        break
                    peer.transport.write(
                        b"".join(
                            frame(HEADERS, END_HEADERS, stream, block)
                            + frame(DATA, END_STREAM, stream, request)
                            + frame(RESET, 0, stream, CANCEL)
                            for stream in range(begin, begin + 2 * BURST, 2)
                        )
                    )
                    victim.achieved["calls"] += BURST
                    await asyncio.sleep(0.001)
                await peer.lost
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(one())
