"""10,000 watches on a real broker: their memory, the idle broker's CPU, an event's way, and fan-out.

10,000 leases, each watched by a WatchLease over one of 20 connections; the clients are in this process. An event's way:
from sending the call that causes it (so its commit is part of it) to its arrival at the watch. Fan-out: 100 WatchLeases
that each get every event.

    python benchmarks/watches.py [--quick] [--watches 10000]
"""

import argparse
import asyncio
import statistics
import struct
import time
from collections.abc import Awaitable, Callable

import h2_load
from servers import SERVICE, Broker, broker, cpu_seconds, load, resident_bytes, row, temporary_folder
from throughput import acquire_request

from sparkbroker.v1 import broker_pb2 as pb

KIB = 1024
SERVER = """
max_watches_per_principal = 20000
max_concurrent_streams = 1000
"""
LEASES = """
ttl = "1h"
wait_ttl = "1h"
unattended_ttl = "1h"
"""
PER_CONNECTION = 500
FANNED = 100


class Watches(h2_load.Frames):
    """One connection with many server streams; ``received`` counts each one's messages."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 1
        self.received: dict[int, int] = {}
        self.last = 0.0
        self.on_message: Callable[[int], None] = lambda _: None

    def open(self, block: bytes, request: bytes) -> int:
        """The stream's number."""
        stream, self._next = self._next, self._next + 2
        self.received[stream] = 0
        self.send_call(stream, block, request)
        return stream

    def frame_received(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == h2_load.DATA:
            # Messages are small: one in each frame, or several, never a part of one that counts.
            position = 0
            while position + 5 <= len(payload):
                (length,) = struct.unpack_from(">I", payload, position + 1)
                position += 5 + length
                self.received[stream] += 1
                self.last = time.perf_counter()
                self.on_message(stream)
        if kind in {h2_load.RESET, h2_load.GOAWAY} or (kind == h2_load.HEADERS and flags & h2_load.END_STREAM):
            raise SystemExit(f"a watch has ended: {payload!r}")


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.perf_counter() + 120
    while not condition():
        if time.perf_counter() > deadline:
            raise SystemExit(f"waited too long for {what}")
        await asyncio.sleep(0.01)


class Bench:
    """The connections to one broker."""

    def __init__(self, served: Broker) -> None:
        self._served = served
        self._blocks = {
            name: h2_load.headers(SERVICE + name, {**served.headers, "grpc-timeout": "1H"})
            for name in ("AcquireLease", "AttachLease", "WatchLease", "WatchLeases")
        }

    async def connect(self, kind: Callable[[], h2_load.Frames]) -> h2_load.Frames:
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(kind, "127.0.0.1", self._served.port))[1]

    async def each(self, count: int, work: Callable[[h2_load.Connection, int], Awaitable[None]]) -> None:
        """The work for each number below the count, 32 at a time."""
        numbers = iter(range(count))

        async def client() -> None:
            connection = await self.connect(h2_load.Connection)
            assert isinstance(connection, h2_load.Connection)
            for number in numbers:
                await work(connection, number)
            connection.close()

        async with asyncio.TaskGroup() as group:
            for _ in range(32):
                group.create_task(client())

    async def leases(self, count: int) -> list[str]:
        names = [""] * count

        async def acquire(connection: h2_load.Connection, number: int) -> None:
            answer = await connection.call(self._blocks["AcquireLease"], acquire_request())
            names[number] = pb.AcquireLeaseResponse.FromString(answer).lease.name

        await self.each(count, acquire)
        return names

    async def attach(self, connection: h2_load.Connection, name: str) -> None:
        await connection.call(self._blocks["AttachLease"], pb.AttachLeaseRequest(name=name).SerializeToString())

    async def watch(self, names: list[str]) -> list[Watches]:
        """Open them, and wait until each has its snapshot."""
        connections = []
        for begin in range(0, len(names), PER_CONNECTION):
            connection = await self.connect(Watches)
            assert isinstance(connection, Watches)
            connections.append(connection)
            for name in names[begin : begin + PER_CONNECTION]:
                connection.open(self._blocks["WatchLease"], pb.WatchLeaseRequest(name=name).SerializeToString())
            await until(lambda each=connection: all(each.received.values()), "the snapshots")  # type: ignore[misc]
        return connections

    async def latencies(self, names: list[str], watches: list[Watches], count: int) -> list[float]:
        """Seconds, sorted: one event at a time, each to the one watch of its lease."""
        connection = await self.connect(h2_load.Connection)
        assert isinstance(connection, h2_load.Connection)
        took = []
        for number in range(count):
            index = number * len(names) // count
            watch, stream = watches[index // PER_CONNECTION], index % PER_CONNECTION * 2 + 1
            before, begun = watch.received[stream], time.perf_counter()
            arrived = asyncio.get_running_loop().create_future()

            def tell(which: int, stream: int = stream, arrived: "asyncio.Future[None]" = arrived) -> None:
                if which == stream and not arrived.done():
                    arrived.set_result(None)

            watch.on_message = tell
            await self.attach(connection, names[index])
            async with asyncio.timeout(30):
                await arrived
            assert watch.received[stream] == before + 1
            took.append(watch.last - begun)
        connection.close()
        return sorted(took)

    async def fan_out(self, names: list[str]) -> float:
        """Messages per second: each name's event to ``FANNED`` watches of all, and to its own."""
        connection = await self.connect(Watches)
        assert isinstance(connection, Watches)
        for _ in range(FANNED):
            connection.open(self._blocks["WatchLeases"], pb.WatchLeasesRequest().SerializeToString())
        await until(lambda: all(connection.received.values()), "the watches of all")
        begun = time.perf_counter()
        await self.each(len(names), lambda each, number: self.attach(each, names[number]))
        await until(lambda: min(connection.received.values()) > len(names), "the events")
        assert set(connection.received.values()) == {len(names) + 1}
        rate = FANNED * len(names) / (connection.last - begun)
        connection.close()
        return rate


async def measure(served: Broker, count: int) -> None:
    bench = Bench(served)
    names = await bench.leases(count)
    await asyncio.sleep(2)
    before = resident_bytes(served.pid)
    watches = await bench.watch(names)
    each = (resident_bytes(served.pid) - before) / count
    await asyncio.sleep(3)
    used, begun = cpu_seconds(served.pid), time.perf_counter()
    await asyncio.sleep(10)
    idle = (cpu_seconds(served.pid) - used) / (time.perf_counter() - begun)
    events = count // 10
    took = await bench.latencies(names[: count // 2], watches, events)
    rate = await bench.fan_out(names[count // 2 : count // 2 + events])
    for connection in watches:
        connection.close()
    p99 = took[int(len(took) * 0.99)]
    row(f"{count:,} watches, memory of each", f"{each / KIB:.1f} KiB", "none", "", "<= 32 KiB")
    row(f"{count:,} watches, idle CPU of the broker", f"{idle:.1%}", "none", "", "<= 1 %")
    way = f"p50 {statistics.median(took) * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms"
    row("an event, from the call that causes it to its watch", way, "none", "", "p99 <= 10 ms")
    row(f"fan-out to {FANNED} watches of all", f"{rate:,.0f} messages/s", "none", "", ">= 10,000/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1,000 watches")
    parser.add_argument("--watches", type=int, default=10_000)
    arguments = parser.parse_args()
    count = 1000 if arguments.quick else arguments.watches
    with temporary_folder() as folder, broker(folder, server=SERVER, leases=LEASES) as served:
        asyncio.run(measure(served, count))
    print(load())


if __name__ == "__main__":
    main()
