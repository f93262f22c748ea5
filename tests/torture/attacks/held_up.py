"""A user who holds up what everybody waits for: downloads that never end, logs that are followed by thousands, heartbeats of a
lease with a thousand attachments, and watches that match nothing."""

import asyncio
import contextlib
import uuid
from typing import Any, Final

import grpc

from sparkbroker.v1 import broker_pb2 as pb
from tests.torture.attacks.victim import Victim

WHO: Final = "mallory"
LEASES: Final = 16
FOLLOWERS: Final = 4000
ATTACHMENTS: Final = 1000
WATCHES: Final = 9900
OWN_WATCHES: Final = 2000
PER_CONNECTION: Final = 200


async def slow_jars(victim: Victim) -> None:
    """Jars of a server that sends a byte each five seconds."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.readuntil(b"\r\n\r\n")
            victim.achieved["downloads"] += 1
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while True:
                writer.write(b"P")
                await writer.drain()
                await asyncio.sleep(5)

    async with asyncio.TaskGroup() as group, victim.channel() as channel:
        # A task of ours: one of the library's own complains when it is cancelled.
        server = await asyncio.start_server(lambda *streams: group.create_task(serve(*streams)), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            for number in range(LEASES):
                await _acquire(victim, channel, jars=[f"http://127.0.0.1:{port}/{number}.jar"])
            await asyncio.Event().wait()


async def followed_logs(victim: Victim) -> None:
    """Thousands follow the logs of two drivers, and begin again when they are refused."""
    async with victim.channel() as channel:
        names = [await _acquire(victim, channel) for _ in range(2)]

    async def follow(stub: Any, name: str) -> None:
        while True:
            request = pb.StreamLogsRequest(name=name, follow=True)
            await _stay(victim, stub.StreamLogs(request, metadata=victim.headers(WHO)))
            await asyncio.sleep(5)

    await _many(victim, FOLLOWERS, lambda stub, number: follow(stub, names[number % 2]))


async def shared_heartbeats(victim: Victim) -> None:
    """A shared lease's thousand attachments, renewed over one stream without a pause."""
    headers = victim.headers(WHO)
    async with victim.channel() as channel:
        name, stub = await _acquire(victim, channel, sharing=pb.LEASE_SHARING_SHARED), victim.stub(channel)
        renewals = []
        for _ in range(ATTACHMENTS):
            request = pb.AttachLeaseRequest(name=name, request_id=str(uuid.uuid4()))
            attached = await stub.AttachLease(request, metadata=headers)
            renewals.append(pb.Renewal(name=name, generation=attached.attachment.generation))
        call = stub.KeepAlive(metadata=headers)
        while True:
            await call.write(pb.KeepAliveRequest(renewals=renewals))
            answer = await call.read()
            victim.achieved["renewals"] += sum(not result.code for result in answer.results)


async def watches_of_nothing(victim: Victim) -> None:
    """Watches whose filters match nothing; each another one."""

    async def watch(stub: Any, number: int) -> None:
        while True:
            request = pb.WatchLeasesRequest(filter=f"key=nothing{number}")
            await _stay(victim, stub.WatchLeases(request, metadata=victim.headers(WHO)))
            await asyncio.sleep(5)

    await _many(victim, WATCHES, watch)


async def watched_churn(victim: Victim) -> None:
    """As many watches as one may have, all of them of what one asks for and releases without a pause."""
    headers = victim.headers(WHO)

    async def watch(stub: Any, _: int) -> None:
        while True:
            await _stay(victim, stub.WatchLeases(pb.WatchLeasesRequest(), metadata=headers))
            await asyncio.sleep(5)

    async def churn() -> None:
        async with victim.channel() as channel:
            stub = victim.stub(channel)
            while True:
                try:
                    name = await _acquire(victim, channel, mode=pb.LEASE_MODE_LOCAL)
                    await stub.ReleaseLease(pb.ReleaseLeaseRequest(name=name), metadata=headers)
                except grpc.aio.AioRpcError:
                    victim.achieved["calls refused"] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(churn())
        await _many(victim, OWN_WATCHES, watch)


async def _stay(victim: Victim, call: Any) -> None:
    """Take what a stream brings, until it ends."""
    victim.achieved["streams"] += 1
    try:
        async for _ in call:
            victim.achieved["messages"] += 1
    except grpc.aio.AioRpcError:
        victim.achieved["streams refused or ended"] += 1


async def _acquire(victim: Victim, channel: grpc.aio.Channel, **spec: Any) -> str:
    request = pb.AcquireLeaseRequest(request_id=str(uuid.uuid4()), spec=pb.LeaseSpec(**spec))
    acquired = await victim.stub(channel).AcquireLease(request, metadata=victim.headers(WHO))
    victim.achieved["leases"] += 1
    name: str = acquired.lease.name
    return name


async def _many(victim: Victim, count: int, work: Any) -> None:
    """Tasks, some of them over each connection."""
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        for numbers in _batches(count):
            stub = victim.stub(await stack.enter_async_context(victim.channel()))
            for number in numbers:
                group.create_task(work(stub, number))
            await asyncio.sleep(0.05)


def _batches(count: int) -> list[range]:
    return [range(begin, min(count, begin + PER_CONNECTION)) for begin in range(0, count, PER_CONNECTION)]
