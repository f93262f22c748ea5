"""Small drivers under the real shim, for tests of everything around Spark."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sparkbroker.broker.adapters.local_provisioner._launch import LaunchPlan, Place, Versions
from sparkbroker.broker.adapters.local_provisioner._packages import Jars
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.ports.provisioner import DriverRequest

_SCRIPT: Final = str(Path(__file__).with_name("_small_driver.py"))
PREFIX: Final = "spark.small."


class SmallLauncher:
    """Drivers are small stand-ins, not Spark. Conf ``spark.small.NAME`` becomes the option NAME (see _small_driver). With
    ``jars`` theirs are brought, and then left alone."""

    def __init__(self, jars: Jars | None = None) -> None:
        self._jars = jars

    async def start(self) -> None:
        pass

    def unusable(self, profile: Profile) -> str:
        return ""

    def versions(self, profile: Profile) -> Versions:
        return Versions(python=f"{sys.version_info.major}.{sys.version_info.minor}", spark="0.0.0")

    async def plan(self, request: DriverRequest, place: Place, done: Callable[[], None]) -> LaunchPlan:
        if self._jars is not None:
            await self._jars.files(request, done)
        conf = {**request.spec.conf, **request.profile.conf}
        options = (
            f"{key.removeprefix(PREFIX)}={value}" for key, value in sorted(conf.items()) if key.startswith(PREFIX)
        )
        return LaunchPlan(argv=(sys.executable, "-I", "-S", _SCRIPT, *options), environment={})

    def driver_ready(self) -> None:
        pass

    async def close(self) -> None:
        if self._jars is not None:
            await self._jars.close()
