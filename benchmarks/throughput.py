"""Durable acquire + release of a whole broker, against a bare grpc.aio echo with the same number of calls.

Both run as processes of their own and are driven in turns by the same generator (machines drift; only the ratio of runs
within minutes means something). One cycle is two calls: AcquireLease and ReleaseLease of a LOCAL lease, or two echoes
of the same requests. On the broker everything is on: tokens, validation, metrics, SQLite with synchronous=FULL.

    python benchmarks/throughput.py [--pairs 5] [--seconds 4] [--clients 1 64 512]
"""

import argparse
import asyncio
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import h2_load

from sparkbroker.broker.adapters.static_tokens import new_token
from sparkbroker.v1 import broker_pb2 as pb

HERE = Path(__file__).parent
SERVICE = "/sparkbroker.v1.BrokerService/"
CONFIG = """
[server]
listen = ["tcp://127.0.0.1:{port}"]
tokens = "{folder}/tokens.toml"
metrics = "127.0.0.1:{metrics_port}"
log_level = "warning"

[store]
state_folder = "{folder}/state"

[leases]
max_live_per_principal = 100000

[capacity.local]
cpu = 100000
memory = "1000t"
"""


def request_id() -> str:
    return str(UUID(int=random.getrandbits(128), version=4))


def acquire_request() -> bytes:
    spec = pb.LeaseSpec(mode=pb.LEASE_MODE_LOCAL, driver=pb.ContainerSize(cores=1, memory="1g"))
    return pb.AcquireLeaseRequest(request_id=request_id(), spec=spec).SerializeToString()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def broker_work(token: str) -> h2_load.Work:
    metadata = {"authorization": f"Bearer {token}"}
    acquire = h2_load.headers(SERVICE + "AcquireLease", metadata)
    release = h2_load.headers(SERVICE + "ReleaseLease", metadata)

    async def work(connection: h2_load.Connection) -> None:
        answer = pb.AcquireLeaseResponse.FromString(await connection.call(acquire, acquire_request()))
        await connection.call(release, pb.ReleaseLeaseRequest(name=answer.lease.name).SerializeToString())

    return work


def echo_work() -> h2_load.Work:
    block = h2_load.headers("/bench.Echo/Echo", {})
    release = pb.ReleaseLeaseRequest(name="leases/" + "x" * 36).SerializeToString()

    async def work(connection: h2_load.Connection) -> None:
        # The same work as for the broker, so that the generator costs the same.
        pb.AcquireLeaseRequest.FromString(await connection.call(block, acquire_request()))
        await connection.call(block, release)

    return work


@contextmanager
def ended(process: "subprocess.Popen[str]") -> Iterator["subprocess.Popen[str]"]:
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def broker(folder: Path) -> Iterator[tuple[int, int, str]]:
    """(port, pid, token) of a broker that accepts connections."""
    port = free_port()
    token, entry = new_token("bench")
    (folder / "tokens.toml").touch(mode=0o600)
    (folder / "tokens.toml").write_text(entry)
    (folder / "broker.toml").write_text(CONFIG.format(port=port, metrics_port=free_port(), folder=folder))
    command = [sys.executable, "-m", "sparkbroker.broker", "serve", "--config", str(folder / "broker.toml")]
    with ended(subprocess.Popen(command, text=True)) as process:
        deadline = time.perf_counter() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.perf_counter() > deadline:
                    raise SystemExit("the broker did not start") from None
                time.sleep(0.05)
        yield port, process.pid, token


@contextmanager
def echo() -> Iterator[tuple[int, int]]:
    """(port, pid) of the echo server."""
    command = [sys.executable, str(HERE / "echo_server.py")]
    with ended(subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline()), process.pid


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(port: int, pid: int, clients: int, seconds: float, work: h2_load.Work) -> tuple[float, float, float]:
    """(cycles per second, median seconds of a cycle, server CPU microseconds per cycle)."""
    before, started = cpu_seconds(pid), time.perf_counter()
    rate, took = asyncio.run(h2_load.drive(port, clients, seconds, work))
    used, elapsed = cpu_seconds(pid) - before, time.perf_counter() - started
    return rate, statistics.median(took) if took else float("nan"), used / elapsed / rate * 1e6 if rate else 0.0


def compare(clients: int, pairs: int, seconds: float, folder: Path) -> None:
    """Alternate, and print both sides and the ratio."""
    folder.mkdir()
    ratios, latencies, rows = [], [], []
    with echo() as (echo_port, echo_pid), broker(folder) as (port, pid, token):
        asyncio.run(h2_load.drive(port, clients, 1.0, broker_work(token)))
        for _ in range(pairs):
            bare = measure(echo_port, echo_pid, clients, seconds, echo_work())
            ours = measure(port, pid, clients, seconds, broker_work(token))
            rows.append((bare, ours))
            ratios.append(ours[0] / bare[0])
            latencies.append(ours[1] / bare[1])
    print(f"\n{clients} clients       echo cycles/s  p50 ms  CPU us | broker cycles/s  p50 ms  CPU us |  ratio")
    for (bare, ours), ratio in zip(rows, ratios, strict=True):
        print(
            f"{'':18}{bare[0]:>14,.0f}{bare[1] * 1e3:8.2f}{bare[2]:8.0f} |{ours[0]:16,.0f}"
            f"{ours[1] * 1e3:8.2f}{ours[2]:8.0f} |{ratio:7.2f}"
        )
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(
        f"median ratio of throughput {statistics.median(ratios):.2f} ({spread}); of p50 {statistics.median(latencies):.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 64, 512])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sparkbroker-bench-") as folder:
        for clients in arguments.clients:
            compare(clients, arguments.pairs, arguments.seconds, Path(folder) / str(clients))


if __name__ == "__main__":
    main()
