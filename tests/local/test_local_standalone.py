"""Drivers on an existing standalone cluster: a real master and a real worker, on loopback."""

# A test may wait for its own helpers as it likes: its loop serves nobody else.
# ruff: noqa: ASYNC110

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from sparkbroker.broker.adapters.local_provisioner import Toolchain, discover
from sparkbroker.broker.adapters.local_provisioner._conf import JVM_OPTIONS
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.lease.lease import ContainerSize, ExecutorSpec, LeaseSpec
from sparkbroker.broker.ports.provisioner import ConnectEndpoint, Phase
from tests import java

pytestmark = [pytest.mark.spark, pytest.mark.timeout(280)]

CLIENT = """
import os
from pyspark.sql import SparkSession, functions as F
spark = SparkSession.builder.remote(os.environ["URL"]).getOrCreate()

def above(batches):
    # The ids of all processes above the one that computes, and what it computes.
    import os, pyarrow
    pid, pids = os.getpid(), []
    while pid > 1:
        pids.append(pid)
        pid = int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
    total = sum(value for batch in batches for value in batch["id"].to_pylist())
    yield pyarrow.RecordBatch.from_pydict({"total": [total], "pids": [" ".join(map(str, pids))]})

rows = spark.range(101, numPartitions=4).mapInArrow(above, "total long, pids string").collect()
print("total", sum(row.total for row in rows))
for row in rows:
    print("above", row.pids)
"""


class Cluster:
    """A master and a worker with two cores; ``url`` is the master's, ``worker`` the worker's process."""

    def __init__(self, tools: Toolchain, folder: Path) -> None:
        self._tools = tools
        self._folder = folder
        self._processes: list[subprocess.Popen[str]] = []
        self.url = ""

    def start(self) -> None:
        deploy = "org.apache.spark.deploy"
        master = self._java("master", f"{deploy}.master.Master")
        self.url = self._says(master, r"Starting Spark master at (spark://127\.0\.0\.1:\d+)")
        size = ["--cores", "2", "--memory", "2g", "--work-dir", str(self._folder / "work")]
        self.worker = self._java("worker", f"{deploy}.worker.Worker", *size, self.url)
        self._says(self.worker, r"(Successfully registered with master)")

    def _java(self, name: str, main: str, *arguments: str) -> subprocess.Popen[str]:
        spark, jvm = self._tools.spark, self._tools.java
        options = [
            "-Xmx256m",
            java.QUICK,
            "-Dspark.master.rest.enabled=false",
            *JVM_OPTIONS,
            "-cp",
            ":".join(spark.jars),
        ]
        where = ["--host", "127.0.0.1", "--port", "0", "--webui-port", "0"]
        environment = {
            "PATH": os.environ["PATH"], "JAVA_HOME": jvm.home, "SPARK_HOME": spark.home, "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_SCALA_VERSION": spark.scala, "TMPDIR": str(self._folder),
        }  # fmt: skip
        process = subprocess.Popen(
            [jvm.executable, *options, main, *where, *arguments],
            env=environment, cwd=self._folder, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._processes.append(process)
        return process

    def _says(self, process: subprocess.Popen[str], pattern: str) -> str:
        """What it has written when the pattern appears; the rest goes where nothing has to be read."""
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if match := re.search(pattern, line):
                with process.stdout as rest:
                    drain = subprocess.Popen(["cat"], stdin=rest, stdout=subprocess.DEVNULL, text=True)
                self._processes.append(drain)
                return match[1]
        pytest.fail("".join(lines[-20:]))

    def executors(self) -> list[int]:
        """The worker's children."""
        children = Path(f"/proc/{self.worker.pid}/task").glob("*/children")
        return [int(pid) for path in children for pid in path.read_text().split()]

    def close(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            with process:
                pass


@pytest.fixture
def cluster(tmp_path) -> Iterator[Cluster]:
    made = Cluster(discover(Profile(name="p", defaults=_defaults())), tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.close()


def _defaults() -> LeaseSpec:
    return LeaseSpec(profile="p", queue="q", driver=ContainerSize(cores=1, memory=1 << 30))


async def output(endpoint: ConnectEndpoint) -> str:
    bearer = endpoint.headers["authorization"].replace(" ", "%20")
    url = f"{endpoint.endpoint};authorization={bearer};user_id={endpoint.user_id}"
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore", "-c", CLIENT,
        env={"PATH": os.environ["PATH"], "URL": url}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        told, _ = await client.communicate()
    finally:
        if client.returncode is None:
            client.kill()
            await client.wait()
    return told.decode()


async def test_a_session_computes_on_the_clusters_executors_and_gives_them_back(machine, cluster):
    local = await machine.spark()
    executors = ExecutorSpec(size=ContainerSize(cores=1, memory=512 << 20), min_count=2, max_count=2)
    request = machine.request(
        "d1", msgspec.structs.replace(_defaults(), executors=executors), master=cluster.url, conf=java.WITH_EXECUTORS
    )
    await machine.ready(local, request)
    text = await output(await local.endpoint("d1", {}, machine.ids["d1"]))
    assert "total 5050" in text, text
    chains = [set(map(int, line.split()[1:])) for line in text.splitlines() if line.startswith("above")]
    assert len(chains) == 4
    drivers, ours = machine.processes("d1"), set(cluster.executors())
    assert len(ours) == 2
    for chain in chains:
        assert cluster.worker.pid in chain
        assert chain & ours
        assert not chain & drivers
    await local.delete("d1", {}, force=False)
    await machine.until(local, "d1", Phase.ABSENT)
    assert not machine.processes("d1")
    async with asyncio.timeout(60):
        while cluster.executors():
            await asyncio.sleep(0.05)
