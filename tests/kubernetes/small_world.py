"""A broker's provisioner on a small API server, which can be a new one on the same cluster."""

import importlib.util
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from sparkbroker.broker.adapters.kubernetes_provisioner import KubernetesProvisioner
from sparkbroker.broker.adapters.kubernetes_provisioner._names import object_name
from sparkbroker.broker.adapters.system_clock import SystemClock
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.asking.sizing import charge
from sparkbroker.broker.domain.lease.lease import ContainerSize, ExecutorSpec, HolderPod, LeaseMode, LeaseSpec
from sparkbroker.broker.domain.pods.settings import parse_pod
from sparkbroker.broker.domain.units import DriverId, Principal
from sparkbroker.broker.ports.provisioner import DriverRequest, Handle, Observation, Phase
from tests.kubernetes.holder import idle_pod
from tests.kubernetes.small_api import SmallApi, small_api
from tests.kubernetes.space import settings_of

ID: Final = DriverId("d1")
ANN: Final = Principal("ann")
PREFIX: Final = "sparkbroker.io/"
SIZE: Final = ContainerSize(cores=1, memory=512 << 20, overhead=768 << 20)


class World:
    """A cluster and a broker's provisioner, which can be a new one on the same cluster."""

    def __init__(self, api: SmallApi, folder: Path) -> None:
        self.api = api
        self._folder = folder
        self.spec = LeaseSpec(profile="p", queue="q", driver=SIZE)
        plain = Profile(name="p", provisioner="kubernetes", defaults=self.spec, pool="cluster")
        modes = (LeaseMode.CONNECT, LeaseMode.CLIENT)
        self.profile = msgspec.structs.replace(plain, pod=parse_pod(settings_of("small"), "pod"), modes=modes)
        self.provisioner = self._new()

    def _new(self) -> KubernetesProvisioner:
        folder = self._folder / "pods"
        return KubernetesProvisioner(folder=folder, key=b"k", profiles=[self.profile], clock=SystemClock())

    async def restart(self) -> None:
        await self.provisioner.close()
        self.provisioner = self._new()
        await self.provisioner.start()

    async def ready(self) -> Observation:
        request = DriverRequest(
            driver_id=ID, attempt=1, spec=self.spec, profile=self.profile, principal=ANN,
            profile_fingerprint=self.profile.fingerprint(), target=charge(self.spec, self.profile),
        )  # fmt: skip
        await self.provisioner.create(request)
        return await self.until(Phase.READY, {})

    async def ready_in_its_holders_pod(self) -> Observation:
        """In mode CLIENT, with three executors."""
        asked = (await self.api.add("small", "pods", idle_pod("idle", ANN)))["metadata"]
        holder = HolderPod(namespace="small", name="idle", uid=asked["uid"])
        executors = ExecutorSpec(size=SIZE, min_count=3, max_count=3)
        self.spec = msgspec.structs.replace(self.spec, mode=LeaseMode.CLIENT, holder_pod=holder, executors=executors)
        return await self.ready()

    async def observe(self, handle: Handle) -> Observation:
        return await self.provisioner.observe(ID, handle, self.profile)

    async def until(self, phase: Phase, handle: Handle) -> Observation:
        while (seen := await self.observe(handle)).phase is not phase:
            await self.provisioner.wait_for_change()
        return seen

    async def found(self) -> list[str]:
        return [seen.driver_id for seen in await self.provisioner.inventory()]

    async def stray(self, name: str, kind: str = "pods", **labels: str) -> None:
        """Somebody's, with these labels of the broker's."""
        own = {"owner": self.provisioner._fleet.owner, **labels}
        metadata = {"name": name, "labels": {PREFIX + key: value for key, value in own.items()}}
        await self.api.add("small", kind, {"metadata": metadata, "spec": {"containers": [{"name": "c"}]}})

    async def copy(self, name: str, **labels: str) -> None:
        """A pod of this name with all that says of the driver's own that it is that."""
        (own,) = [pod for pod in await self.pods() if pod["metadata"]["name"] in (object_name(ID), "idle")]
        metadata = {key: own["metadata"][key] for key in ("labels", "annotations")}
        metadata["labels"] = {**metadata["labels"], **{PREFIX + key: value for key, value in labels.items()}}
        await self.api.add("small", "pods", {"metadata": {**metadata, "name": name}, "spec": own["spec"]})

    async def pods(self) -> list[dict[str, Any]]:
        return [found for key, found in self.api._objects.items() if key[:2] == ("small", "pods")]


@asynccontextmanager
async def small_world(
    folder: Path, monkeypatch: pytest.MonkeyPatch, need: Callable[[object, str], None]
) -> AsyncIterator[World]:
    """One that has started."""
    need(importlib.util.find_spec("kubernetes_asyncio"), "kubernetes-asyncio (the extra `kubernetes`)")
    async with small_api() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(folder / "kubeconfig")))
        made = World(api, folder)
        await made.provisioner.start()
        try:
            yield made
        finally:
            await made.provisioner.close()
