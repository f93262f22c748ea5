"""A driver on a small API server, with time in the test's hand."""

import importlib.util
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import pytest

from sparkbroker.broker.adapters.kubernetes_provisioner import KubernetesProvisioner
from sparkbroker.broker.adapters.kubernetes_provisioner._driver import KnownDriver
from sparkbroker.broker.adapters.kubernetes_provisioner._names import labels, object_name
from sparkbroker.broker.adapters.kubernetes_provisioner._watch import PodWatch
from sparkbroker.broker.domain.asking.pod_sizing import Role
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.asking.sizing import charge
from sparkbroker.broker.domain.lease.lease import ContainerSize, LeaseSpec
from sparkbroker.broker.domain.pods.settings import parse_pod
from sparkbroker.broker.domain.units import DriverId, WallTime
from sparkbroker.broker.ports.provisioner import DriverRequest, Observation
from tests.kubernetes.small_api import SmallApi, small_api
from tests.kubernetes.space import settings_of

SPACE: Final = "small"
SIZE: Final = ContainerSize(cores=1, memory=1 << 30)
SPEC: Final = LeaseSpec(profile="p", queue="q", driver=SIZE)
ID: Final = DriverId("d1")


class Hand:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def wall(self) -> WallTime:
        return WallTime(self.now)

    def monotonic(self) -> float:
        return self.now


class SmallDriver:
    """Its broker's provisioner, and what it calls."""

    def __init__(self, api: SmallApi, provisioner: KubernetesProvisioner, profile: Profile, clock: Hand) -> None:
        self.api = api
        self.provisioner = provisioner
        self.clock = clock
        self._profile = profile

    async def create(self) -> None:
        spec = self._profile.defaults
        request = DriverRequest(
            driver_id=ID, attempt=1, spec=spec, profile=self._profile, target=charge(spec, self._profile),
            profile_fingerprint=self._profile.fingerprint(),
        )  # fmt: skip
        await self.provisioner.create(request)

    @property
    def known(self) -> KnownDriver:
        return self.provisioner._fleet.driver(ID)

    async def observe(self) -> Observation:
        return await self.provisioner.observe(ID, {}, self._profile)

    async def until(self, told: Callable[[Observation], bool]) -> Observation:
        """As the reconciler: it is looked at, and again when something has changed."""
        while not told(seen := await self.observe()):
            await self.provisioner.wait_for_change()
        return seen

    async def add_executor(self, number: int, container: str = "c") -> None:
        """As Spark does; the watch has told of it."""
        await self.begin_executor(number, container)
        await self.seen(number)

    async def begin_executor(self, number: int, container: str = "c") -> None:
        """As Spark does."""
        driver = self.provisioner._fleet.own_pod(self.known)
        assert driver is not None
        metadata = {
            "name": f"{object_name(ID)}-exec-{number}",
            "labels": labels(self.provisioner._fleet.owner, ID, Role.EXECUTOR),
            "ownerReferences": [{"kind": "Pod", "uid": driver.metadata.uid}],
        }
        await self.api.add(SPACE, "pods", {"metadata": metadata, "spec": {"containers": [{"name": container}]}})

    async def seen(self, number: int) -> None:
        """The watch has told of this executor."""
        name = f"{object_name(ID)}-exec-{number}"
        while name not in {pod.metadata.name for pod in self.watch.store.of(ID)}:
            await self.provisioner.wait_for_change()

    @property
    def watch(self) -> PodWatch:
        return self.provisioner._fleet.watch(SPACE)

    def calls(self) -> Counter[tuple[str, str]]:
        """So far, by verb and resource."""
        return Counter(self.provisioner.calls())


@asynccontextmanager
async def small_driver(
    folder: Path, monkeypatch: pytest.MonkeyPatch, need: Callable[[object, str], None], spec: LeaseSpec = SPEC
) -> AsyncIterator[SmallDriver]:
    """One that is made."""
    need(importlib.util.find_spec("kubernetes_asyncio"), "kubernetes-asyncio (the extra `kubernetes`)")
    plain = Profile(name="p", provisioner="kubernetes", defaults=spec, pool="cluster")
    profile = msgspec.structs.replace(plain, pod=parse_pod(settings_of(SPACE), "pod"))
    async with small_api() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(folder / "kubeconfig")))
        clock = Hand()
        provisioner = KubernetesProvisioner(folder=folder / "pods", key=b"k", profiles=[profile], clock=clock)
        await provisioner.start()
        made = SmallDriver(api, provisioner, profile, clock)
        await made.create()
        try:
            yield made
        finally:
            await provisioner.close()
