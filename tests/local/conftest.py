"""A local provisioner over small processes or real Spark, and what tests need to look behind it."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from sparkbroker.broker.adapters.local_provisioner import Launcher, LocalProvisioner, SmallLauncher
from sparkbroker.broker.adapters.system_clock import SystemClock
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.asking.sizing import charge
from sparkbroker.broker.domain.lease.lease import ContainerSize, LeaseSpec
from sparkbroker.broker.domain.units import DriverId
from sparkbroker.broker.ports.provisioner import DriverRequest, Observation, Phase
from tests import java
from tests.class_archive import spark_launcher

GONE = (Phase.ABSENT, Phase.EXITED)


def own_key(folder: Path) -> bytes:
    """Of the tests in this folder: drivers belong to a key, and other runs on this machine have theirs."""
    return sha256(bytes(folder)).digest()


class Machine:
    """Folders and provisioners of one test; every driver that it made is removed at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ids: dict[DriverId, Profile] = {}
        self.provisioners: list[LocalProvisioner] = []
        self.keys = {own_key(folder)}

    async def provisioner(
        self, launcher: Launcher | None = None, *, embedded: bool = False, key: bytes = b"", grace: float = 5.0
    ) -> LocalProvisioner:
        self.keys.add(key := key or own_key(self.folder))
        made = LocalProvisioner(
            folder=self.folder / "drivers",
            cache=self.folder / "cache",
            key=key,
            embedded=embedded,
            clock=SystemClock(),
            scratch=self.folder / "scratch",
            launcher=launcher or SmallLauncher(),
            stop_grace=grace,
        )
        await made.start()
        self.provisioners.append(made)
        return made

    async def spark(self) -> LocalProvisioner:
        return await self.provisioner(spark_launcher(self.folder / "cache"))

    def request(self, driver_id: str, spec: LeaseSpec | None = None, **profile: Any) -> DriverRequest:
        spec = spec or size()
        made = Profile(name="p", defaults=size(), **({"conf": java.CONF} | profile))
        self.ids[DriverId(driver_id)] = made
        return DriverRequest(
            driver_id=DriverId(driver_id),
            attempt=1,
            spec=spec,
            profile=made,
            profile_fingerprint=made.fingerprint(),
            target=charge(spec, made),
        )

    async def until(self, provisioner: LocalProvisioner, driver_id: str, *phases: Phase) -> Observation:
        name = DriverId(driver_id)
        async with asyncio.timeout(200):
            while (seen := await provisioner.observe(name, {}, self.ids[name])).phase not in phases:
                await provisioner.wait_for_change()
        return seen

    async def ready(self, provisioner: LocalProvisioner, request: DriverRequest) -> Observation:
        await provisioner.create(request)
        seen = await self.until(provisioner, request.driver_id, Phase.READY, *GONE)
        assert seen.phase is Phase.READY, seen
        return seen

    def scratches(self) -> list[Path]:
        return list((self.folder / "scratch").glob("*/*"))

    def processes(self, driver_id: str) -> set[int]:
        """Found in another way than the code under test does: by the raw environment only.

        The owner's mark keeps those of other runs out, whose drivers may have the same ids.
        """
        mark = f"SPARKBROKER_DRIVER_ID={driver_id}".encode()
        owners = {b"SPARKBROKER_OWNER=" + sha256(b"owner\0" + key).hexdigest()[:16].encode() for key in self.keys}
        found = set()
        for path in Path("/proc").glob("[0-9]*"):
            try:
                environment = (path / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if mark in environment and not owners.isdisjoint(environment):
                found.add(int(path.name))
        return found

    async def close(self) -> None:
        last = await self.provisioner()
        for name in self.ids:
            await last.delete(name, {}, force=True)
            await self.until(last, name, *GONE)
        for provisioner in self.provisioners:
            await provisioner.close()


def size(memory: int = 1 << 30, **conf: object) -> LeaseSpec:
    named = {f"spark.small.{name}": str(value) for name, value in conf.items()}
    return LeaseSpec(profile="p", queue="q", driver=ContainerSize(cores=1, memory=memory), conf=named)


@pytest.fixture
async def machine(tmp_path) -> AsyncIterator[Machine]:
    made = Machine(tmp_path)
    yield made
    await made.close()


@pytest.fixture
def small() -> Callable[..., LeaseSpec]:
    """A spec whose conf tells the small driver what to do."""
    return size


@pytest.fixture
def kill() -> Callable[[object], None]:
    def send(pid: object) -> None:
        os.kill(int(str(pid)), signal.SIGKILL)

    return send
