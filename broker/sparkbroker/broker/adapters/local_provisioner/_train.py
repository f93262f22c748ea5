"""The process that makes a class archive: ``python -m … CACHE TOOLCHAIN``. Ends with its standard input.

Status 0: the archive exists. It holds a lock meanwhile, so that of several only one works and the others end at once.
"""

import asyncio
import fcntl
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from sparkbroker.broker.adapters.local_provisioner._archive import KEPT, ArchiveFiles, archive_files
from sparkbroker.broker.adapters.local_provisioner._launch import LaunchPlan, Place
from sparkbroker.broker.adapters.local_provisioner._provisioner import LocalProvisioner
from sparkbroker.broker.adapters.local_provisioner._spark import SparkLauncher
from sparkbroker.broker.adapters.local_provisioner._toolchain import Toolchain
from sparkbroker.broker.adapters.system_clock import SystemClock
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.asking.sizing import charge
from sparkbroker.broker.domain.lease.lease import ContainerSize, LeaseSpec
from sparkbroker.broker.domain.units import DriverId
from sparkbroker.broker.ports.provisioner import ConnectEndpoint, DriverRequest, Phase

_ID: Final = DriverId("training")
_START_TIMEOUT: Final = 900.0
_STOP_GRACE: Final = 600.0
_QUERIES_TIMEOUT: Final = 600.0
_SPEC: Final = LeaseSpec(profile="training", queue="training", driver=ContainerSize(cores=2, memory=1 << 30))

_ENDS_WITH_US: Final = """
import os, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
"""
"""Whatever ends this process ends the queries: their standard input is a pipe that only we hold."""
QUERIES: Final = """
import os, sys
try:
    from pyspark.sql import SparkSession, Window, functions as F
except ImportError:
    sys.exit(0)  # no client for this Python: the archive holds what the start needs
spark = SparkSession.builder.remote(os.environ["TRAINING_URL"]).getOrCreate()
rows = spark.range(10000).withColumn("key", F.col("id") % 7).withColumn("text", F.col("id").cast("string"))
rows.groupBy("key").agg(F.sum("id"), F.max("text"), F.countDistinct("id")).collect()
rows.join(rows.groupBy("key").count(), "key").orderBy("id").limit(10).toPandas()
rows.withColumn("n", F.row_number().over(Window.partitionBy("key").orderBy("id"))).filter("n < 3").collect()
path = os.path.join(os.environ["TRAINING_FOLDER"], "rows")
rows.write.mode("overwrite").parquet(path)
spark.read.parquet(path).filter("key = 1").select("text").toPandas()
rows.write.mode("overwrite").csv(path)
spark.createDataFrame([(1, "a"), (2, "b")], "n int, t string").createOrReplaceTempView("pairs")
spark.sql("select t, count(*) from pairs group by t").show()
print(spark.range(3).count())
spark.stop()
"""


class _TrainingLauncher(SparkLauncher):
    """Drivers that write an archive when they end."""

    def __init__(self, cache: Path, tools: Toolchain, options: tuple[str, ...]) -> None:
        super().__init__(cache, SystemClock(), archives=False)
        self._tools = tools
        self._options = options

    async def plan(self, request: DriverRequest, place: Place, done: Callable[[], None]) -> LaunchPlan:
        return self.plan_with(request, place, self._tools, (), self._options)


def _say(text: str) -> None:
    """Into the log: the broker has our standard output there."""
    sys.stdout.write(f"{text}\n")


def main() -> int:
    cache, tools = Path(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=Toolchain)
    threading.Thread(target=_end_with_input, daemon=True).start()
    os.nice(19)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    files = archive_files(cache, tools)
    with (cache / "archives" / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another process is making an archive")
            return 0
        if files.there():
            return 0
        return _build_all(cache, tools, files)


def _end_with_input() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)  # the driver's shim sees the end of its own pipe and ends it


def _build_all(cache: Path, tools: Toolchain, files: ArchiveFiles) -> int:
    for left in (cache / "archives").glob("new-*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix="new-", dir=cache / "archives"))
    try:
        if files.base is not None and not files.base.exists():
            _make_base(tools, folder / "base", files.base)
        asyncio.run(_make_archive(cache, tools, files, folder))
    except Exception as error:
        files.failed.write_text(f"{error}\n")
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _prune(cache / "archives")
    return 0


def _make_base(tools: Toolchain, new: Path, path: Path) -> None:
    command = [tools.java.executable, f"-XX:SharedArchiveFile={new}", "-Xshare:dump"]
    subprocess.run(command, check=True, timeout=300)
    _publish(new, path)


def _publish(new: Path, path: Path) -> None:
    """On the disk first: the JVM checks an archive's header only, and would believe the rest after a power failure."""
    with new.open("rb") as file:
        os.fsync(file.fileno())
    new.replace(path)


async def _make_archive(cache: Path, tools: Toolchain, files: ArchiveFiles, folder: Path) -> None:
    new = folder / "archive"
    provisioner = LocalProvisioner(
        folder=folder / "drivers",
        cache=cache,
        key=secrets.token_bytes(32),
        embedded=True,
        clock=SystemClock(),
        scratch=folder / "scratch",
        launcher=_TrainingLauncher(cache, tools, files.make(new)),
        stop_grace=_STOP_GRACE,
    )
    profile = Profile(name="training", defaults=_SPEC, spark_home=tools.spark.home, java_home=tools.java.home)
    await provisioner.start()
    try:
        async with asyncio.timeout(_START_TIMEOUT):
            request = DriverRequest(
                driver_id=_ID, attempt=1, spec=_SPEC, profile=profile,
                profile_fingerprint=profile.fingerprint(), target=charge(_SPEC, profile),
            )  # fmt: skip
            await provisioner.create(request)
            await _wait_for(provisioner, profile, Phase.READY)
        await asyncio.to_thread(_run_queries, await provisioner.endpoint(_ID, {}, profile), tools, folder)
        async with asyncio.timeout(_STOP_GRACE):
            await provisioner.delete(_ID, {}, force=False)
            await _wait_for(provisioner, profile, Phase.ABSENT)
    finally:
        await provisioner.close()
    if not new.exists():
        raise RuntimeError(f"the JVM wrote no archive: {tools.java.home}")
    files.size.write_text(str(new.stat().st_size))
    _publish(new, files.archive)


async def _wait_for(provisioner: LocalProvisioner, profile: Profile, phase: Phase) -> None:
    while True:
        seen = await provisioner.observe(_ID, {}, profile)
        if seen.phase is phase:
            return
        if seen.phase in (Phase.EXITED, Phase.ABSENT):
            how = seen.exit.describe() if seen.exit else "gone"
            tail = "\n".join(seen.exit.log_tail) if seen.exit else ""
            raise RuntimeError(f"the training driver ended: {how}\n{tail}")
        await provisioner.wait_for_change()


def _run_queries(endpoint: ConnectEndpoint, tools: Toolchain, folder: Path) -> None:
    """What fails here makes the archive smaller, not useless."""
    bearer = endpoint.headers["authorization"].replace(" ", "%20")
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "TRAINING_URL": f"{endpoint.endpoint};authorization={bearer};user_id={endpoint.user_id}",
        "TRAINING_FOLDER": str(folder),
    }
    command = [tools.python.executable, "-c", _ENDS_WITH_US + QUERIES]
    try:
        with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE) as process:
            try:
                status = process.wait(_QUERIES_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    except (OSError, subprocess.SubprocessError) as error:
        _say(f"the queries did not end: {error}")
        return
    _say(f"the queries ended with status {status}")


def _prune(folder: Path) -> None:
    archives = sorted((*folder.glob("*.jsa"), *folder.glob("*.aot")), key=lambda path: path.stat().st_mtime)
    for old in archives[:-KEPT]:
        for path in folder.glob(f"{old.stem}.*"):
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
