"""From asking to READY, cold, through the real broker, against bare starts of the same Spark Connect server.

Peers: ``java`` directly, with the broker's own arguments and class archive, and Spark's ``spark-submit``; each until the
probe that the broker uses succeeds. Each is local[2] with 1g. In turns; the class archive is made first.

    python benchmarks/start.py [--quick] [--rounds 5] [--cache FOLDER]

The archive takes up to minutes to make, more on a busy machine; ``--cache`` keeps it for the next run.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import msgspec
from servers import Broker, broker, ended, free_port, load, row, spread, temporary_folder

from sparkbroker.broker.adapters import spark_connect
from sparkbroker.broker.adapters.local_provisioner._archive import archive_files
from sparkbroker.broker.adapters.local_provisioner._conf import MAIN_CLASS
from sparkbroker.broker.adapters.local_provisioner._launch import TOKEN_VARIABLE, Place
from sparkbroker.broker.adapters.local_provisioner._spark import SparkLauncher
from sparkbroker.broker.adapters.local_provisioner._toolchain import Toolchain, discover
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.asking.sizing import charge
from sparkbroker.broker.domain.lease.lease import ContainerSize, LeaseSpec
from sparkbroker.broker.domain.units import DriverId
from sparkbroker.broker.ports.provisioner import DriverRequest
from sparkbroker.v1 import broker_pb2 as pb
from sparkbroker.v1 import broker_pb2_grpc as stubs

TOKEN = "b" * 40
SPEC = LeaseSpec(profile="default", queue="default", driver=ContainerSize(cores=2, memory=1 << 30))
PROFILE = Profile(name="default", defaults=SPEC)
TRAINER = "sparkbroker.broker.adapters.local_provisioner._train"
BIND = "spark.connect.grpc.binding.port"
LIMIT = 180.0


def make_archive(cache: Path, tools: Toolchain) -> tuple[str, ...]:
    """The JVM's options to use it. The broker's own trainer makes it, as in the background of a broker."""
    files = archive_files(cache, tools)
    if not files.archive.exists():
        files.archive.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", TRAINER, str(cache), msgspec.json.encode(tools).decode()]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=sys.stderr) as process:
            if process.wait(timeout=1800):
                raise SystemExit("the class archive could not be made")
    return files.use()


def bare_java(tools: Toolchain, archive: tuple[str, ...], scratch: Path) -> tuple[list[str], dict[str, str], int]:
    """(argv, environment, port): the broker's plan, but for the port."""
    request = DriverRequest(
        driver_id=DriverId("bare"), attempt=1, spec=SPEC, profile=PROFILE,
        profile_fingerprint=PROFILE.fingerprint(), target=charge(SPEC, PROFILE),
    )  # fmt: skip
    place = Place(arguments=scratch / "arguments", scratch=scratch)
    plan = SparkLauncher.plan_with(request, place, tools, (), archive)
    port = free_port()
    assert f"-D{BIND}=0".encode() in plan.arguments
    place.arguments.write_bytes(plan.arguments.replace(f"-D{BIND}=0".encode(), f"-D{BIND}={port}".encode()))
    return list(plan.argv), {**plan.environment, TOKEN_VARIABLE: TOKEN}, port


def spark_submit(tools: Toolchain, scratch: Path) -> tuple[list[str], dict[str, str], int]:
    """(argv, environment, port), as Spark's own start-connect-server.sh does it."""
    port = free_port()
    conf = {BIND: port, "spark.connect.grpc.binding.address": "127.0.0.1", "spark.local.dir": scratch}
    argv = [
        f"{tools.spark.home}/bin/spark-submit", "--class", MAIN_CLASS, "--master", "local[2]", "--driver-memory", "1g",
        *(part for key, value in conf.items() for part in ("--conf", f"{key}={value}")), "spark-internal",
    ]  # fmt: skip
    environment = {
        **os.environ, TOKEN_VARIABLE: TOKEN, "JAVA_HOME": tools.java.home, "SPARK_HOME": tools.spark.home,
        "SPARK_LOCAL_IP": "127.0.0.1",
    }  # fmt: skip
    return argv, environment, port


async def until_probed(port: int, process: "subprocess.Popen[str]") -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    server = spark_connect.Server(target=f"127.0.0.1:{port}", headers=headers, user_id="bench")
    deadline = time.perf_counter() + LIMIT
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await spark_connect.probe(server, 30)
        except (OSError, spark_connect.ConnectCallFailed):
            if process.poll() is not None or time.perf_counter() > deadline:
                raise
            await asyncio.sleep(0.01)
        else:
            return


def bare(argv: list[str], environment: dict[str, str], port: int, log: Path) -> float:
    """Seconds until it can be used. It is gone when this returns."""
    with log.open("w") as output:
        begun = time.perf_counter()
        started = subprocess.Popen(argv, text=True, env=environment, stdout=output, stderr=output)
        with ended(started) as process:
            asyncio.run(until_probed(port, process))
            return time.perf_counter() - begun


@contextmanager
def stub(served: Broker) -> Iterator[tuple[stubs.BrokerServiceStub, tuple[tuple[str, str], ...]]]:
    with grpc.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        grpc.channel_ready_future(channel).result(timeout=30)
        yield stubs.BrokerServiceStub(channel), tuple(served.headers.items())


def through_broker(served: Broker) -> float:
    """Seconds from asking to the event that says READY. The driver is gone when this returns."""
    with stub(served) as (leases, metadata):
        spec = pb.LeaseSpec(driver=pb.ContainerSize(cores=2, memory="1g"))
        begun = time.perf_counter()
        name = leases.AcquireLease(pb.AcquireLeaseRequest(spec=spec), metadata=metadata, timeout=30).lease.name
        took = 0.0
        for update in leases.WatchLease(pb.WatchLeaseRequest(name=name), metadata=metadata, timeout=LIMIT):
            kind = update.WhichOneof("update")
            state = update.event.state if kind == "event" else update.snapshot.state if kind == "snapshot" else None
            if state == pb.LEASE_STATE_READY and not took:
                took = time.perf_counter() - begun
                leases.ReleaseLease(pb.ReleaseLeaseRequest(name=name), metadata=metadata, timeout=30)
            elif state == pb.LEASE_STATE_FAILED:
                raise SystemExit(f"the lease failed: {update}")
        assert took, "the watch ended without READY"
        return took


def measure(folder: Path, cache: Path, rounds: int) -> list[tuple[float, float, float]]:
    """(broker, java, spark-submit) of each round."""
    tools = discover(PROFILE)
    archive = make_archive(cache, tools)
    results = []
    with broker(folder, store=f'cache_folder = "{cache}"') as served:
        for number in range(rounds):
            scratch = folder / f"bare-{number}"
            scratch.mkdir()
            direct = bare(*bare_java(tools, archive, scratch), scratch / "java.log")
            ours = through_broker(served)
            submitted = bare(*spark_submit(tools, scratch), scratch / "submit.log")
            print(f"broker {ours:.2f} s, java {direct:.2f} s, spark-submit {submitted:.2f} s", flush=True)
            results.append((ours, direct, submitted))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cache", type=Path, help="where the archive is kept; a temporary folder by default")
    arguments = parser.parse_args()
    with temporary_folder() as folder:
        cache = (arguments.cache or folder / "cache").absolute()
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        results = measure(folder, cache, 1 if arguments.quick else arguments.rounds)
    ours, direct, submitted = (statistics.median(column) for column in zip(*results, strict=True))
    against_java = spread([one / other for one, other, _ in results])
    against_submit = spread([one / other for one, _, other in results])
    row("ask to READY, cold", f"{ours:.2f} s", f"bare java with the archive {direct:.2f} s", against_java, "<= 1.1")
    row("ask to READY, cold", f"{ours:.2f} s", f"spark-submit {submitted:.2f} s", against_submit, "<= 0.6")
    print(load())


if __name__ == "__main__":
    main()
