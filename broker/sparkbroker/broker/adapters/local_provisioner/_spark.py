"""Drivers that are Spark Connect servers, started with ``java`` directly."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from sparkbroker.broker.adapters.local_provisioner._archive import Archives
from sparkbroker.broker.adapters.local_provisioner._conf import (
    LIBRARY_PATH,
    argument_file,
    driver_host,
    heap,
    jvm_arguments,
)
from sparkbroker.broker.adapters.local_provisioner._launch import LaunchPlan, Place, Versions
from sparkbroker.broker.adapters.local_provisioner._packages import Jars
from sparkbroker.broker.adapters.local_provisioner._toolchain import Toolchain, discover
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.profile import Profile
from sparkbroker.broker.ports.clock import Clock
from sparkbroker.broker.ports.provisioner import DriverRequest

T = TypeVar("T")
_THREADS: Final = 2
"""For what profiles name: Java, Spark, a master."""
_LIBRARIES: Final = "LD_LIBRARY_PATH"
_PASSED_ON: Final = ("HOME", _LIBRARIES, "TZ")


class SparkLauncher:
    """See the module. ``cache`` holds class archives and resolved packages; brokers may share it."""

    def __init__(self, cache: Path, clock: Clock, *, archives: bool = True, jars: Jars | None = None) -> None:
        self._cache = cache
        self._clock = clock
        self._jars = jars if jars is not None else Jars(cache)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="plan")
        self._archives = Archives(cache) if archives else None

    async def start(self) -> None:
        await asyncio.to_thread(self._cache.mkdir, parents=True, exist_ok=True, mode=0o700)

    def unusable(self, profile: Profile) -> str:
        try:
            discover(profile)
        except ProvisionerFailed as error:
            return error.message
        return ""

    def versions(self, profile: Profile) -> Versions:
        tools = discover(profile)
        return Versions(python=tools.python.version, spark=tools.spark.version)

    async def plan(self, request: DriverRequest, place: Place, done: Callable[[], None]) -> LaunchPlan:
        tools = await self._in_thread(discover, request.profile)
        heap(request)  # before anything that takes long: it may never start
        jars = await self._jars.resolve(request, tools, done)
        archive = self._archives.options(tools, self._clock.wall()) if self._archives is not None else ()
        # The name of a profile's master is looked up, which takes as long as the name server likes.
        return await self._in_thread(self.plan_with, request, place, tools, jars, archive)

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    @staticmethod
    def plan_with(
        request: DriverRequest, place: Place, tools: Toolchain, jars: tuple[str, ...], archive: tuple[str, ...]
    ) -> LaunchPlan:
        """The plan, once everything is known."""
        arguments = jvm_arguments(request, tools, place.scratch, jars, archive)
        return LaunchPlan(
            argv=(tools.java.executable, f"@{place.arguments}"),
            environment=_environment(tools, place.scratch, driver_host(request.profile.master)) | _libraries(request),
            arguments=argument_file(arguments),
        )

    def driver_ready(self) -> None:
        if self._archives is not None:
            self._archives.build_wanted()

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._jars.close()
        if self._archives is not None:
            await self._archives.close()


def _libraries(request: DriverRequest) -> dict[str, str]:
    """Where native libraries are, before where the broker's own environment has them."""
    given = {**request.spec.conf, **request.profile.conf}.get(LIBRARY_PATH)
    known = os.environ.get(_LIBRARIES)
    return {_LIBRARIES: ":".join(filter(None, (given, known)))} if given else {}


def _environment(tools: Toolchain, scratch: Path, host: str) -> dict[str, str]:
    """From nothing: what the broker's own environment holds is nobody's business."""
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {
        "HOME": str(scratch),
        **passed,
        "PATH": os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin"),
        "LANG": "C.UTF-8",
        "TMPDIR": str(scratch),
        "JAVA_HOME": tools.java.home,
        "SPARK_HOME": tools.spark.home,
        # Else a local-cluster's workers look for a source tree to learn it, and start no executor.
        "SPARK_SCALA_VERSION": tools.spark.scala,
        "PYSPARK_PYTHON": tools.python.executable,
        "PYSPARK_DRIVER_PYTHON": tools.python.executable,
        # Else the RPC, block manager and UI ports leave loopback.
        "SPARK_LOCAL_IP": host,
    }
