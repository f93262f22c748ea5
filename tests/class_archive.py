"""The class archive of the tests' drivers, made before the tests: they leave no idle time for it. ``python -m`` this.

Once for each environment: later runs find it. What fails is told, and the tests do without.
"""

import asyncio
import functools
import os
import time
from pathlib import Path

from sparkbroker.broker.adapters.local_provisioner import (
    Archives,
    ArchiveState,
    Jars,
    SparkLauncher,
    Toolchain,
    class_archive,
    discover,
)
from sparkbroker.broker.adapters.system_clock import SystemClock
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.lease.lease import ContainerSize, LeaseSpec
from tests.java import CACHE


def spark_launcher(cache: Path) -> SparkLauncher:
    """A broker's, with the archive if it is there; none is made. ``cache`` is for the rest of what a launcher keeps."""
    there = _is_there()
    return SparkLauncher(CACHE if there else cache, SystemClock(), archives=there, jars=Jars(cache))


async def make() -> None:
    """As the tests' brokers would, with their Java and Spark."""
    tools = _tools()
    if class_archive(CACHE, tools).state is ArchiveState.THERE:
        return
    begun, archives = time.monotonic(), Archives(CACHE)
    archives.options(tools, time.time())
    await archives.built()
    print(f"class archive: {class_archive(CACHE, tools).state}, after {time.monotonic() - begun:.0f} s")


@functools.cache
def _is_there() -> bool:
    return class_archive(CACHE, _tools()).state is ArchiveState.THERE


def _tools() -> Toolchain:
    spec = LeaseSpec(profile="default", queue="default", driver=ContainerSize(cores=1, memory=1 << 30))
    return discover(Profile(name="default", defaults=spec))


def main() -> None:
    for name in ("JAVA_HOME", "SPARK_HOME"):
        os.environ.pop(name, None)
    asyncio.run(make())


if __name__ == "__main__":
    main()
