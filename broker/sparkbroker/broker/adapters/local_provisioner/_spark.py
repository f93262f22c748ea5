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
from sparkbroker.broker.adapters.local_provisioner._scratch import private_folder
from sparkbroker.broker.adapters.local_provisioner._toolchain import Toolchain, discover
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.ports.clock import Clock
from sparkbroker.broker.ports.provisioner import DriverRequest
from sparkbroker.client.nameless_user import java_options, user_name

T = TypeVar("T")
_THREADS: Final = 2
"""For what profiles name: Java, Spark, a master."""
_LIBRARIES: Final = "LD_LIBRARY_PATH"
_PASSED_ON: Final = (_LIBRARIES, "TZ")


class SparkLauncher:
    """See the module. ``cache`` holds class archives and resolved packages; brokers may share it."""

    def __init__(self, cache: Path, clock: Clock, *, archives: bool = True, jars: Jars | None = None) -> None:
        self._cache = cache
        self._clock = clock
        self._jars = jars if jars is not None else Jars(cache)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="plan")
        # A JVM for a user without a name can neither use one nor make one.
        self._archives = Archives(cache) if archives and user_name(os.getuid()) is not None else None

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
        user = await self._in_thread(options_for_user, place)
        # The name of a profile's master is looked up, which takes as long as the name server likes.
        return await self._in_thread(self.plan_with, request, place, tools, jars, archive, user)

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    @staticmethod
    def plan_with(
        request: DriverRequest,
        place: Place,
        tools: Toolchain,
        jars: tuple[str, ...],
        archive: tuple[str, ...],
        user: tuple[str, ...] = (),
    ) -> LaunchPlan:
        """The plan, once everything is known. ``user``: the JVM's options for a user without a name."""
        arguments = jvm_arguments(request, tools, place.scratch, jars, archive, user)
        return LaunchPlan(
            argv=(tools.java.executable, f"@{place.arguments}"),
            environment=environment(tools, place.scratch, driver_host(request.profile.master)) | _libraries(request),
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


def options_for_user(place: Place) -> tuple[str, ...]:
    """The JVM's options for a user without a name; none for others."""
    if user_name(os.getuid()) is not None:
        return ()
    try:
        private_folder(place.scratch)
        return java_options(place.scratch, {"HOME": _home(place.scratch)})
    except OSError as error:
        raise ProvisionerFailed(f"the driver's scratch folder can't be made: {error}", retryable=True) from error


def _home(scratch: Path) -> str:
    """The broker's own, if something can be written there: a container's random user often has none, or /."""
    home = os.environ.get("HOME", "")
    return home if Path(home).is_absolute() and os.access(home, os.W_OK | os.X_OK) else str(scratch)


def _libraries(request: DriverRequest) -> dict[str, str]:
    """Where native libraries are, before where the broker's own environment has them."""
    given = {**request.spec.conf, **request.profile.conf}.get(LIBRARY_PATH)
    known = os.environ.get(_LIBRARIES)
    return {_LIBRARIES: ":".join(filter(None, (given, known)))} if given else {}


def environment(tools: Toolchain, scratch: Path, host: str) -> dict[str, str]:
    """From nothing: what the broker's own environment holds is nobody's business."""
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {
        "HOME": _home(scratch),
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
