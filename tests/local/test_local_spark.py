"""The local provisioner with real Spark. A start takes seconds, so each test asks much of its server."""

# A test may wait for its own helpers as it likes: its loop serves nobody else.
# ruff: noqa: ASYNC110, ASYNC240

import asyncio
import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import pytest

from sparkbroker.broker.adapters import spark_connect
from sparkbroker.broker.domain.lease.lease import ContainerSize, ExecutorSpec
from sparkbroker.broker.ports.provisioner import ConnectEndpoint, Phase
from tests import java

pytestmark = [pytest.mark.spark, pytest.mark.timeout(280)]

CLIENT = """
import os, sys
from pyspark.sql import SparkSession, functions as F
spark = SparkSession.builder.remote(os.environ["URL"]).getOrCreate()
print("connected", flush=True)
"""
SLOW = """
import time
@F.udf("long")
def slow(n):
    import os, signal
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(3600)
    open(os.environ["TMPDIR"] + "/slow", "w").close()
    while not os.path.exists(os.environ["TMPDIR"] + "/go"):
        time.sleep(0.05)
    return n * 2
print(spark.range(1).select(slow("id")).collect(), flush=True)
"""


_clients: list[subprocess.Popen[str]] = []


def client(endpoint: ConnectEndpoint, code: str, session_id: str = "") -> subprocess.Popen[str]:
    bearer = endpoint.headers["authorization"].replace(" ", "%20")
    url = f"{endpoint.endpoint};authorization={bearer};user_id={endpoint.user_id}"
    url += f";session_id={session_id}" if session_id else ""
    environment = {"PATH": os.environ["PATH"], "URL": url}
    command = [sys.executable, "-W", "ignore", "-c", CLIENT + code]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    _clients.append(process)
    return process


@pytest.fixture(autouse=True)
def _end_clients() -> Iterator[None]:
    yield
    while _clients:
        process = _clients.pop()
        process.kill()
        with process:
            pass


async def output(process: subprocess.Popen[str]) -> str:
    text, _ = await asyncio.to_thread(process.communicate)
    return text


async def appears(folder: Path, name: str) -> Path:
    async with asyncio.timeout(120):
        while not (found := list(folder.rglob(name))):
            await asyncio.sleep(0.05)
    return found[0]


def listened_at(pids: Iterable[int]) -> set[str]:
    """Addresses at which these processes listen for TCP, by the slow way."""
    sockets = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # it has been closed meanwhile
                sockets.add(str(descriptor.readlink()))
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {
        fields[1].rpartition(":")[0] for fields in lines if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets
    }


async def test_it_computes_survives_the_broker_and_is_gone_after_delete(machine, small):
    local = await machine.spark()
    seen = await machine.ready(local, machine.request("d1", small(1 << 30)))
    found = listened_at(machine.processes("d1"))
    assert found
    assert found <= {"0100007F", "0000000000000000FFFF00000100007F"}, "it listens beyond loopback"
    endpoint = await local.endpoint("d1", seen.handle, machine.ids["d1"])
    assert endpoint.spark_version.startswith("4.")
    assert "5050" in await output(client(endpoint, "print(spark.range(101).agg(F.sum('id')).collect()[0][0])"))
    token = endpoint.headers["authorization"].removeprefix("Bearer ").encode()
    for pid in machine.processes("d1"):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert token not in command
        assert b"-Dspark" not in command
    assert not (machine.folder / "drivers" / "d1" / "arguments").exists()
    server = spark_connect.Server(target=endpoint.endpoint[5:-1], headers={"authorization": "Bearer x"}, user_id="u")
    with pytest.raises(spark_connect.ConnectCallFailed) as refusal:
        await spark_connect.probe(server, 10.0)
    assert refusal.value.code == "UNAUTHENTICATED"

    going_on = client(endpoint, SLOW)
    slow = await appears(machine.folder / "scratch", "slow")
    await local.close()
    local = await machine.spark()
    assert [(found.driver_id, found.phase) for found in await local.inventory()] == [("d1", Phase.READY)]
    assert await local.endpoint("d1", {}, machine.ids["d1"]) == endpoint
    slow.with_name("go").touch()
    assert "=0)]" in await output(going_on)
    slow.with_name("go").unlink()
    slow.unlink()

    session_id = str(uuid.uuid4())
    ended = client(endpoint, SLOW, session_id)
    await appears(machine.folder / "scratch", "slow")
    await local.end_session("d1", {}, machine.ids["d1"], session_id)
    told = await output(ended)
    assert "OPERATION_CANCELED" in told or "SESSION_CLOSED" in told
    await local.end_session("d1", {}, machine.ids["d1"], session_id)

    log = (machine.folder / "drivers" / "d1" / "driver.log").read_text()
    assert "INFO DAGScheduler" in log
    assert "accessed at timestamp" not in log, "noise, which would push a cause out of the last lines"

    await local.delete("d1", {}, force=False)
    await machine.until(local, "d1", Phase.ABSENT)
    assert not machine.processes("d1")
    assert not machine.scratches()


async def test_kill_of_java_under_a_stubborn_worker_and_then_out_of_memory(oom_kills, machine, small, kill):
    local = await machine.spark()
    seen = await machine.ready(local, machine.request("d1", small(512 << 20)))
    endpoint = await local.endpoint("d1", {}, machine.ids["d1"])
    client(endpoint, SLOW)
    await appears(machine.folder / "scratch", "slow")
    assert len(machine.processes("d1")) > 3
    kill(seen.handle["driver_pid"])
    seen = await machine.until(local, "d1", Phase.EXITED)
    assert seen.exit is not None
    assert seen.exit.signal == "SIGKILL"
    assert not seen.exit.out_of_memory
    assert seen.exit.log_tail
    assert not machine.processes("d1")
    assert not machine.scratches()

    await machine.ready(local, machine.request("d2", small(512 << 20)))
    endpoint = await local.endpoint("d2", {}, machine.ids["d2"])
    client(endpoint, "spark.range(10**8).agg(F.collect_list('id').alias('a')).select(F.size('a')).collect()")
    seen = await machine.until(local, "d2", Phase.EXITED)
    assert seen.exit is not None
    assert seen.exit.out_of_memory, seen
    assert "out of memory" in seen.exit.describe()


async def test_local_cluster_has_real_executors(machine, small):
    local = await machine.spark()
    spec = small(1 << 30)
    executors = ExecutorSpec(size=ContainerSize(cores=1, memory=512 << 20), min_count=2, max_count=2)
    spec = msgspec.structs.replace(spec, executors=executors)
    await machine.ready(local, machine.request("d1", spec, master="local-cluster", conf=java.WITH_EXECUTORS))
    endpoint = await local.endpoint("d1", {}, machine.ids["d1"])
    pids = "print(sorted(spark.range(8, numPartitions=8).mapInArrow(where, 'pid long').distinct().collect()))"
    code = """
def where(batches):
    import os, time, pyarrow
    for _ in batches:
        pass
    time.sleep(1)
    yield pyarrow.RecordBatch.from_pydict({"pid": [os.getppid()]})
"""
    text = await output(client(endpoint, code + pids))
    assert text.count("Row(pid=") == 2, text
    await local.delete("d1", {}, force=False)
    await machine.until(local, "d1", Phase.ABSENT)
    assert not machine.processes("d1")
