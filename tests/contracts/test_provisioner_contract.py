"""One behavioural suite over all provisioners: the fake, local with small processes, static, local with Spark, and
kubernetes, with pods of its own and with a holder's (mode CLIENT), on a small API server and on the cluster of KUBECONFIG."""

import asyncio
import importlib.util
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sparkbroker.broker.adapters.fake_provisioner import FakeProvisioner, FakeWorld
from sparkbroker.broker.adapters.kubernetes_provisioner import KubernetesProvisioner
from sparkbroker.broker.adapters.local_provisioner import LocalProvisioner, SmallLauncher, SparkLauncher
from sparkbroker.broker.adapters.static_provisioner import StaticProvisioner
from sparkbroker.broker.adapters.system_clock import SystemClock
from sparkbroker.broker.domain.asking.pod_sizing import holder_request
from sparkbroker.broker.domain.asking.profile import Profile, StaticEndpoint
from sparkbroker.broker.domain.asking.sizing import charge
from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.lease.lease import ContainerSize, ExecutorSpec, HolderPod, LeaseMode, LeaseSpec
from sparkbroker.broker.domain.pods.settings import parse_pod
from sparkbroker.broker.domain.units import DriverId, Principal
from sparkbroker.broker.ports.provisioner import DriverRequest, Observation, Phase, Provisioner
from tests import java
from tests.class_archive import spark_launcher
from tests.kubernetes.holder import idle, idle_pod
from tests.kubernetes.small_api import SmallApi, small_api
from tests.kubernetes.space import Space, check_needs, settings_of, space

SPEC = LeaseSpec(profile="p", queue="q", driver=ContainerSize(cores=1, memory=1 << 30))
PRINCIPAL = Principal("ann")
GONE = (Phase.ABSENT, Phase.EXITED)
pytestmark = pytest.mark.timeout(240)


class Setup:
    """A provisioner over a world that outlives it."""

    def __init__(self, profile: Profile, make: Callable[[], Provisioner]) -> None:
        self.profile = profile
        self.make = make
        self.provisioner = make()
        self.id = DriverId(f"d-{uuid.uuid4().hex[:12]}")
        self.spec = SPEC

    @property
    def takes(self) -> Resources:
        """What is seen of it once it is ready."""
        return charge(self.spec, self.profile)

    def request(self, driver_id: DriverId | None = None) -> DriverRequest:
        return DriverRequest(
            driver_id=driver_id or self.id,
            attempt=1,
            spec=self.spec,
            profile=self.profile,
            profile_fingerprint=self.profile.fingerprint(),
            target=charge(self.spec, self.profile),
            principal=PRINCIPAL,
        )

    async def connect(self, seen: Observation) -> tuple[str, str]:
        """Its token, and its Python's version."""
        assert seen.port_open is not None
        assert seen.process_started is not None
        assert seen.ready is not None
        assert (seen.pod_scheduled or 0.0) <= (seen.sandbox_ready or seen.process_started) <= seen.process_started
        assert seen.process_started <= seen.port_open <= seen.ready
        endpoint = await self.provisioner.endpoint(self.id, seen.handle, self.profile)
        assert endpoint.endpoint.startswith("sc://")
        return endpoint.headers["authorization"].removeprefix("Bearer "), endpoint.python_version

    async def observe(self) -> Observation:
        return await self.provisioner.observe(self.id, {}, self.profile)

    async def until(self, *phases: Phase) -> Observation:
        async with asyncio.timeout(200):
            while (seen := await self.observe()).phase not in phases:
                await self.provisioner.wait_for_change()
        return seen

    async def ready(self) -> Observation:
        await self.provisioner.create(self.request())
        return await self.until(Phase.READY)

    async def restart(self) -> None:
        await self.provisioner.close()
        self.provisioner = self.make()
        await self.provisioner.start()

    async def remove(self) -> None:
        await self.provisioner.delete(self.id, {}, force=True)
        await self.until(*GONE)


class ClientSetup(Setup):
    """A driver that is a holder's own pod."""

    def __init__(self, profile: Profile, make: Callable[[], Provisioner], pod: HolderPod) -> None:
        super().__init__(profile, make)
        size = ContainerSize(cores=1, memory=512 << 20, overhead=768 << 20)
        executors = ExecutorSpec(size=size, min_count=1, max_count=1)
        self.spec = msgspec.structs.replace(
            SPEC, mode=LeaseMode.CLIENT, holder_pod=pod, driver=size, executors=executors
        )

    @property
    def takes(self) -> Resources:
        return holder_request(self.spec, self.profile, self.profile.pod)  # Spark makes no executors here

    async def connect(self, seen: Observation) -> tuple[str, str]:
        access = await self.provisioner.client_access(self.request(), seen.handle)
        assert access.conf["spark.kubernetes.driver.pod.name"] == seen.handle["pod"]
        return access.token, access.python_version


def fake(folder: Path) -> Setup:
    world = FakeWorld()
    return Setup(Profile(name="p", defaults=SPEC), lambda: FakeProvisioner(world, SystemClock()))


def local(folder: Path, launcher: Callable[[], SmallLauncher | SparkLauncher]) -> Setup:
    def make() -> LocalProvisioner:
        return LocalProvisioner(
            folder=folder / "drivers",
            cache=folder / "cache",
            key=sha256(bytes(folder)).digest(),
            embedded=False,
            clock=SystemClock(),
            scratch=folder / "scratch",
            launcher=launcher(),
        )

    return Setup(Profile(name="p", defaults=SPEC, conf=java.CONF), make)


def small(folder: Path) -> Setup:
    return local(folder, SmallLauncher)


def spark(folder: Path) -> Setup:
    return local(folder, lambda: spark_launcher(folder / "cache"))


async def static(folder: Path) -> tuple[Setup, Callable[[], Awaitable[None]]]:
    """Its endpoint is a small process's."""
    host = small(folder / "host")
    await host.provisioner.start()
    await host.ready()
    endpoint = await host.provisioner.endpoint(host.id, {}, host.profile)
    token = folder / "token"
    token.write_text(endpoint.headers["authorization"].removeprefix("Bearer ") + "\n")
    listed = StaticEndpoint(url=endpoint.endpoint, token_file=str(token))
    profile = Profile(name="p", provisioner="static", defaults=SPEC, endpoints=(listed,))
    clock = SystemClock()

    async def close() -> None:
        await host.remove()
        await host.provisioner.close()

    return Setup(profile, lambda: StaticProvisioner(folder=folder / "loans", clock=clock)), close


def kubernetes(folder: Path, settings: Mapping[str, Any]) -> Setup:
    """Drivers of their own size in pods of a test's namespace."""
    profile = Profile(name="p", provisioner="kubernetes", defaults=SPEC, pod=parse_pod(settings, "pod"), pool="cluster")

    def make() -> KubernetesProvisioner:
        return KubernetesProvisioner(folder=folder / "pods", key=b"k" * 32, profiles=[profile], clock=SystemClock())

    return Setup(profile, make)


def client(folder: Path, settings: Mapping[str, Any], pod: HolderPod) -> Setup:
    """The same, in mode CLIENT."""
    made = kubernetes(folder, settings)
    profile = msgspec.structs.replace(made.profile, modes=(LeaseMode.CLIENT,), client_role="client")

    def make() -> KubernetesProvisioner:
        return KubernetesProvisioner(folder=folder / "pods", key=b"k" * 32, profiles=[profile], clock=SystemClock())

    return ClientSetup(profile, make, pod)


async def on_cluster(kind: str, folder: Path, where: Space) -> Setup:
    if kind == "kubernetes":
        return kubernetes(folder, where.settings())
    await where.give_client_rights()
    return client(folder, where.settings(), await idle(where, PRINCIPAL))


async def on_small_api(kind: str, folder: Path, api: SmallApi) -> Setup:
    settings = settings_of("small")
    if kind == "small-kubernetes":
        return kubernetes(folder, settings)
    pod = (await api.add("small", "pods", idle_pod("idle", PRINCIPAL)))["metadata"]
    return client(folder, settings, HolderPod(namespace="small", name="idle", uid=pod["uid"]))


@pytest.fixture(
    params=[
        "fake",
        "small",
        "static",
        "small-kubernetes",
        "small-client",
        pytest.param("spark", marks=pytest.mark.spark),
        pytest.param("kubernetes", marks=pytest.mark.kubernetes),
        pytest.param("client", marks=pytest.mark.kubernetes),
    ]
)
async def setup(request, need, tmp_path, monkeypatch) -> AsyncIterator[Setup]:
    async with AsyncExitStack() as stack:
        if request.param == "static":
            made, close = await static(tmp_path)
            stack.push_async_callback(close)
        elif request.param in ("kubernetes", "client"):
            check_needs(need)
            made = await on_cluster(request.param, tmp_path, await stack.enter_async_context(space()))
        elif request.param in ("small-kubernetes", "small-client"):
            need(importlib.util.find_spec("kubernetes_asyncio"), "kubernetes-asyncio (the extra `kubernetes`)")
            api = await stack.enter_async_context(small_api())
            monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig")))
            made = await on_small_api(request.param, tmp_path, api)
        else:
            made = {"fake": fake, "small": small, "spark": spark}[request.param](tmp_path)
        await made.provisioner.start()
        yield made
        await made.remove()
        await made.provisioner.close()


async def test_a_life(setup):
    first = await setup.provisioner.create(setup.request())
    assert first.phase in (Phase.STARTING, Phase.READY)
    seen = await setup.until(Phase.READY)
    assert seen.profile_fingerprint == setup.profile.fingerprint()
    assert seen.resources == setup.takes
    assert seen.ready is not None
    token, python_version = await setup.connect(seen)
    assert token not in repr(seen)
    assert python_version in ("", f"{sys.version_info.major}.{sys.version_info.minor}")
    assert [other.driver_id for other in await setup.provisioner.inventory()] == [setup.id]
    await setup.provisioner.end_session(setup.id, seen.handle, setup.profile, str(uuid.uuid4()))
    await setup.provisioner.delete(setup.id, seen.handle, force=False)
    gone = await setup.until(*GONE)
    assert gone.resources == Resources()
    await setup.provisioner.delete(setup.id, seen.handle, force=False)
    await setup.provisioner.forget(setup.id)
    assert (await setup.observe()).phase is Phase.ABSENT
    assert await setup.provisioner.inventory() == []
    await setup.provisioner.forget(setup.id)


async def test_create_twice_makes_one(setup):
    await setup.ready()
    before = await setup.observe()
    again = await setup.provisioner.create(setup.request())
    assert again.driver_id == setup.id
    assert (await setup.until(Phase.READY)).handle == before.handle
    assert len(await setup.provisioner.inventory()) == 1


async def test_another_fingerprint_is_not_adopted(setup):
    await setup.ready()
    with pytest.raises(ProvisionerFailed) as refusal:
        await setup.provisioner.create(msgspec.structs.replace(setup.request(), profile_fingerprint="another"))
    assert not refusal.value.retryable


@pytest.mark.promise(4)
async def test_a_new_provisioner_finds_it_ready(setup):
    before = await setup.ready()
    await setup.restart()
    found = await setup.provisioner.inventory()
    assert [seen.driver_id for seen in found] == [setup.id]
    assert found[0].resources == before.resources
    assert found[0].profile_fingerprint == setup.profile.fingerprint()
    assert (await setup.until(Phase.READY)).handle == before.handle


async def test_what_never_existed(setup):
    other = DriverId("d-never")
    assert (await setup.provisioner.observe(other, {}, setup.profile)).phase is Phase.ABSENT
    await setup.provisioner.delete(other, {}, force=True)
    await setup.provisioner.forget(other)
    await setup.provisioner.end_session(other, {}, setup.profile, str(uuid.uuid4()))
    with pytest.raises(ProvisionerFailed):
        await setup.provisioner.endpoint(other, {}, setup.profile)
    chunks = setup.provisioner.logs(other, {}, offset=0, tail_lines=0, follow=True)
    assert [chunk async for chunk in chunks] == []


async def test_logs_resume_and_follow_to_the_end(setup):
    seen = await setup.ready()
    plain = setup.provisioner.logs(setup.id, seen.handle, offset=0, tail_lines=0, follow=False)
    chunks = [chunk async for chunk in plain]
    whole = b"".join(chunk.data for chunk in chunks)
    if chunks:
        assert chunks[-1].next_offset == len(whole)
        resumed = setup.provisioner.logs(setup.id, seen.handle, offset=3, tail_lines=0, follow=False)
        assert b"".join([chunk.data async for chunk in resumed]).startswith(whole[3:])
        tail = setup.provisioner.logs(setup.id, seen.handle, offset=0, tail_lines=1, follow=False)
        assert b"".join([chunk.data async for chunk in tail]).rstrip(b"\n").count(b"\n") <= 1

    everyone = setup.provisioner.logs(setup.id, seen.handle, offset=0, tail_lines=0, follow=False, executors={})
    own = b"".join([chunk.data async for chunk in everyone if not chunk.source])
    assert own.startswith(whole)

    async def follow() -> bytes:
        chunks = setup.provisioner.logs(setup.id, seen.handle, offset=0, tail_lines=0, follow=True)
        return b"".join([chunk.data async for chunk in chunks])

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        following = group.create_task(follow())
        await setup.provisioner.delete(setup.id, seen.handle, force=False)
        await setup.until(*GONE)
    assert following.result().startswith(whole)


async def test_capacity_and_usability(setup):
    assert all(size.quantities for size in setup.provisioner.capacity().values())
    assert setup.provisioner.unusable(setup.profile) == ""
