"""Durable acquire + release of a whole broker, against a bare grpc.aio echo with the same number of calls.

Both run as processes of their own and are driven in turns by the same generator (machines drift; only the ratio of runs
within minutes means something). One cycle is two calls: AcquireLease and ReleaseLease of a LOCAL lease, or two echoes
of the same requests. On the broker everything is on: tokens, validation, metrics, SQLite with synchronous=FULL. The echo
server runs on the same event loop as the broker, uvloop; ``--echo-loop asyncio`` has it on Python's own.

    python benchmarks/throughput.py [--quick] [--pairs 5] [--seconds 4] [--clients 1 64 512]
"""

import argparse
import asyncio
import random
import statistics
import time
from pathlib import Path
from uuid import UUID

import h2_load
from servers import SERVICE, broker, cpu_seconds, echo, load, row, spread, temporary_folder

from sparkbroker.v1 import broker_pb2 as pb


def request_id() -> str:
    return str(UUID(int=random.getrandbits(128), version=4))


def acquire_request() -> bytes:
    spec = pb.LeaseSpec(mode=pb.LEASE_MODE_LOCAL, driver=pb.ContainerSize(cores=1, memory="1g"))
    return pb.AcquireLeaseRequest(request_id=request_id(), spec=spec).SerializeToString()


def broker_work(headers: dict[str, str]) -> h2_load.Work:
    acquire = h2_load.headers(SERVICE + "AcquireLease", headers)
    release = h2_load.headers(SERVICE + "ReleaseLease", headers)

    async def work(connection: h2_load.Connection) -> None:
        answer = pb.AcquireLeaseResponse.FromString(await connection.call(acquire, acquire_request()))
        await connection.call(release, pb.ReleaseLeaseRequest(name=answer.lease.name).SerializeToString())

    return work


def echo_work(headers: dict[str, str]) -> h2_load.Work:
    block = h2_load.headers("/bench.Echo/Echo", headers)
    release = pb.ReleaseLeaseRequest(name="leases/" + "x" * 36).SerializeToString()

    async def work(connection: h2_load.Connection) -> None:
        # The same work as for the broker, so that the generator costs the same.
        pb.AcquireLeaseRequest.FromString(await connection.call(block, acquire_request()))
        await connection.call(block, release)

    return work


def measure(port: int, pid: int, clients: int, seconds: float, work: h2_load.Work) -> tuple[float, float, float]:
    """(cycles per second, median seconds of a cycle, server CPU microseconds per cycle)."""
    before, started = cpu_seconds(pid), time.perf_counter()
    rate, took = asyncio.run(h2_load.drive(port, clients, seconds, work))
    used, elapsed = cpu_seconds(pid) - before, time.perf_counter() - started
    return rate, statistics.median(took) if took else float("nan"), used / elapsed / rate * 1e6 if rate else 0.0


Side = tuple[float, float, float]


def compare(clients: int, pairs: int, seconds: float, folder: Path, echo_loop: str) -> list[tuple[Side, Side]]:
    """Pairs of (echo, broker), run in turns."""
    folder.mkdir()
    with echo(echo_loop) as (echo_port, echo_pid), broker(folder) as served:
        work, bare_work = broker_work(served.headers), echo_work(served.headers)
        asyncio.run(h2_load.drive(served.port, clients, 1.0, work))
        return [
            (
                measure(echo_port, echo_pid, clients, seconds, bare_work),
                measure(served.port, served.pid, clients, seconds, work),
            )
            for _ in range(pairs)
        ]


def tell(clients: int, rows: list[tuple[Side, Side]]) -> None:
    print(f"\n{clients} clients       echo cycles/s  p50 ms  CPU us | broker cycles/s  p50 ms  CPU us |  ratio")
    for bare, ours in rows:
        print(
            f"{'':18}{bare[0]:>14,.0f}{bare[1] * 1e3:8.2f}{bare[2]:8.0f} |{ours[0]:16,.0f}"
            f"{ours[1] * 1e3:8.2f}{ours[2]:8.0f} |{ours[0] / bare[0]:7.2f}"
        )
    bare_rate, bare_p50, _ = (statistics.median(column) for column in zip(*(bare for bare, _ in rows), strict=True))
    rate, p50, _ = (statistics.median(column) for column in zip(*(ours for _, ours in rows), strict=True))
    if clients == 1:
        latencies = spread([ours[1] / bare[1] for bare, ours in rows])
        row("one client, p50 of a cycle", f"{p50 * 1e3:.2f} ms", f"{bare_p50 * 1e3:.2f} ms", latencies, "<= 5")
    else:
        what = f"acquire + release, {clients} clients"
        ratios = spread([ours[0] / bare[0] for bare, ours in rows])
        row(what, f"{rate:,.0f} cycles/s", f"bare echo {bare_rate:,.0f} cycles/s", ratios, ">= 0.6 (aim 0.8)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short pair of each: to see that it works")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 64, 512])
    parser.add_argument("--echo-loop", choices=("asyncio", "uvloop"), default="uvloop")
    arguments = parser.parse_args()
    pairs, seconds = (1, 1.0) if arguments.quick else (arguments.pairs, arguments.seconds)
    with temporary_folder() as folder:
        for clients in arguments.clients:
            tell(clients, compare(clients, pairs, seconds, folder / str(clients), arguments.echo_loop))
    print(load())


if __name__ == "__main__":
    main()
