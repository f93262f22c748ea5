"""Whose a pod is: by the broker's key, or by a value that it is given, which is still there when the key is lost."""

import importlib.util
from contextlib import asynccontextmanager

import msgspec
import pytest

from sparkbroker.broker.adapters.kubernetes_provisioner import KubernetesProvisioner
from sparkbroker.broker.adapters.system_clock import SystemClock
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.asking.sizing import charge
from sparkbroker.broker.domain.lease.lease import ContainerSize, LeaseSpec
from sparkbroker.broker.domain.pods.settings import parse_pod
from sparkbroker.broker.domain.units import DriverId
from sparkbroker.broker.ports.provisioner import DriverRequest
from tests.kubernetes.small_api import small_api
from tests.kubernetes.space import settings_of

pytestmark = pytest.mark.timeout(60)
SPEC = LeaseSpec(profile="p", queue="q", driver=ContainerSize(cores=1, memory=1 << 30))
PLAIN = Profile(name="p", provisioner="kubernetes", defaults=SPEC, pool="cluster")
PROFILE = msgspec.structs.replace(PLAIN, pod=parse_pod(settings_of("small"), "pod"))
REQUEST = DriverRequest(
    driver_id=DriverId("d1"), attempt=1, spec=SPEC, profile=PROFILE, target=charge(SPEC, PROFILE),
    profile_fingerprint=PROFILE.fingerprint(),
)  # fmt: skip


@pytest.fixture
async def broker(tmp_path, monkeypatch, need):
    """``broker(key, owner)``: a provisioner that has started, in a folder of its own, on the same small cluster."""
    need(importlib.util.find_spec("kubernetes_asyncio"), "kubernetes-asyncio (the extra `kubernetes`)")

    @asynccontextmanager
    async def start(key, owner):
        made = KubernetesProvisioner(
            folder=tmp_path / key.decode(), key=key, owner=owner, profiles=[PROFILE], clock=SystemClock()
        )
        await made.start()
        try:
            yield made
        finally:
            await made.close()

    async with small_api() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig")))
        yield start


@pytest.mark.parametrize(
    ("before", "after", "known"),
    [
        pytest.param((b"key", ""), (b"key", ""), True, id="the same key"),
        pytest.param((b"key", ""), (b"another", ""), False, id="another key"),
        pytest.param((b"key", "r-1"), (b"another", "r-1"), True, id="another key, the same owner"),
        pytest.param((b"key", "r-1"), (b"key", "r-2"), False, id="another owner"),
        pytest.param((b"key", "r-1"), (b"key", ""), False, id="an owner that isn't said any more"),
    ],
)
async def test_the_next_broker_finds_the_pods_of_its_owner_and_no_other_s(broker, before, after, known):
    async with broker(*before) as first:
        await first.create(REQUEST)
    async with broker(*after) as second:
        assert [seen.driver_id for seen in await second.inventory()] == ([REQUEST.driver_id] if known else [])
