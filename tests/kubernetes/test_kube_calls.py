"""How often the API server is called for a lease, as the broker's metric counts it: on a small API server, with time in the
test's hand."""

import asyncio
import importlib.util
from collections import Counter

import msgspec
import pytest

from sparkbroker.broker.adapters.kubernetes_provisioner import KubernetesProvisioner
from sparkbroker.broker.adapters.kubernetes_provisioner._driver import ASK_AGAIN
from sparkbroker.broker.adapters.kubernetes_provisioner._errors import ApiFailed
from sparkbroker.broker.adapters.kubernetes_provisioner._executor_logs import saved
from sparkbroker.broker.adapters.kubernetes_provisioner._logs import SAVE_TRIES
from sparkbroker.broker.adapters.kubernetes_provisioner._names import labels, object_name
from sparkbroker.broker.domain.lease import ContainerSize, LeaseSpec
from sparkbroker.broker.domain.plan import STOP_GRACE
from sparkbroker.broker.domain.pod_settings import EXECUTOR_CONTAINER, parse_pod
from sparkbroker.broker.domain.pod_sizing import Role
from sparkbroker.broker.domain.profile import Profile
from sparkbroker.broker.domain.sizing import charge
from sparkbroker.broker.domain.units import DriverId, WallTime
from sparkbroker.broker.ports.provisioner import DriverRequest, Phase
from tests.kubernetes.small_api import LOG, small_api
from tests.kubernetes.space import settings_of

pytestmark = pytest.mark.timeout(60)
SPEC = LeaseSpec(profile="p", queue="q", driver=ContainerSize(cores=1, memory=1 << 30))
ID = DriverId("d1")


class Hand:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.now = 1000.0

    def wall(self):
        return WallTime(self.now)

    def monotonic(self):
        return self.now


class Driver:
    """One that is made, with an executor; and what its release calls."""

    def __init__(self, api, provisioner, profile, clock):
        self.api = api
        self.provisioner = provisioner
        self.clock = clock
        self._profile = profile
        self._before = Counter[tuple[str, str]]()

    async def start(self):
        request = DriverRequest(
            driver_id=ID, attempt=1, spec=SPEC, profile=self._profile, target=charge(SPEC, self._profile),
            profile_fingerprint=self._profile.fingerprint(),
        )  # fmt: skip
        await self.provisioner.create(request)
        await self.add_executor(1)
        self._before = Counter(self.provisioner.calls())

    async def add_executor(self, number, container="c"):
        driver = self.provisioner._fleet.own_pod(self.provisioner._fleet.driver(ID))
        name = f"{object_name(ID)}-exec-{number}"
        metadata = {
            "name": name,
            "labels": labels(self.provisioner._fleet.owner, ID, Role.EXECUTOR),
            "ownerReferences": [{"kind": "Pod", "uid": driver.metadata.uid}],
        }
        await self.api.add("small", "pods", {"metadata": metadata, "spec": {"containers": [{"name": container}]}})
        await self.seen(number + 1)

    async def seen(self, count):
        """The watch has told of so many pods."""
        while len(self.provisioner._fleet.pods(self.provisioner._fleet.driver(ID))) != count:
            await self.provisioner.wait_for_change()

    async def delete(self, *, force=False):
        await self.provisioner.delete(ID, {}, force=force)

    async def log(self):
        """What is kept of its log."""
        chunks = self.provisioner.logs(ID, {}, offset=0, tail_lines=0, follow=False)
        return b"".join([chunk.data async for chunk in chunks])

    def asked(self):
        """(requests to end its pods, its Secret) since it started."""
        made = Counter(self.provisioner.calls()) - self._before
        return made["deletecollection", "pods"], made["delete", "secrets"]

    async def until_gone(self):
        while (await self.provisioner.observe(ID, {}, self._profile)).phase is not Phase.ABSENT:
            await self.provisioner.wait_for_change()


@pytest.fixture
async def driver(tmp_path, monkeypatch, need):
    need(importlib.util.find_spec("kubernetes_asyncio"), "kubernetes-asyncio (the extra `kubernetes`)")
    plain = Profile(name="p", provisioner="kubernetes", defaults=SPEC, pool="cluster")
    profile = msgspec.structs.replace(plain, pod=parse_pod(settings_of("small"), "pod"))
    async with small_api() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig")))
        clock = Hand()
        provisioner = KubernetesProvisioner(folder=tmp_path / "pods", key=b"k", profiles=[profile], clock=clock)
        await provisioner.start()
        made = Driver(api, provisioner, profile, clock)
        await made.start()
        try:
            yield made
        finally:
            await provisioner.close()


async def test_a_release_asks_once_however_often_it_is_looked_at(driver):
    driver.api.linger = True
    for _ in range(10):
        await driver.delete()
    assert driver.asked() == (1, 1)
    await driver.api.end_all()
    await driver.until_gone()
    assert driver.asked() == (1, 1)
    assert driver.api.names("small", "pods") == driver.api.names("small", "secrets") == []


async def test_a_watch_that_is_behind_makes_it_ask_no_more(driver):
    driver.api.linger = driver.api.silent = True
    for _ in range(10):
        await driver.delete()
    assert driver.asked() == (1, 1)
    await driver.api.speak()
    await driver.api.end_all()
    await driver.until_gone()


async def test_what_has_come_up_since_is_asked_for(driver):
    driver.api.linger = True
    await driver.delete()
    await driver.add_executor(2)
    for _ in range(3):
        await driver.delete()
    assert driver.asked() == (2, 1)


async def test_what_was_not_taken_is_asked_for_again(driver):
    driver.api.linger, driver.api.failing = True, {"DELETE": 1}
    with pytest.raises(ApiFailed):
        await driver.delete()
    for _ in range(3):
        await driver.delete()
    assert driver.asked() == (2, 1)


async def test_what_was_taken_and_has_no_effect_is_asked_for_again(driver):
    driver.api.linger = True
    await driver.delete()
    driver.clock.now += ASK_AGAIN
    for _ in range(3):
        await driver.delete()
    assert driver.asked() == (2, 1)


async def test_force_waits_for_the_grace_that_began_when_the_request_was_taken(driver):
    """The broker's own calls may have waited longer than that for their turn."""
    driver.api.linger = True
    await driver.delete()
    driver.clock.now += STOP_GRACE - 0.1
    await driver.delete(force=True)
    assert driver.asked() == (1, 1)
    driver.clock.now += 0.1
    for _ in range(3):
        await driver.delete(force=True)
    assert driver.asked() == (2, 1)


async def test_an_operators_word_waits_for_nothing(driver):
    driver.api.linger = True
    await driver.delete()
    await driver.provisioner.abandon(ID, {})
    assert driver.asked() == (2, 1)


async def test_force_from_the_start_is_at_once(driver):
    driver.api.linger = True
    await driver.delete(force=True)
    assert driver.provisioner._fleet.driver(ID).forced
    assert driver.asked() == (1, 1)


@pytest.mark.parametrize(("failures", "kept"), [(SAVE_TRIES - 1, LOG), (SAVE_TRIES, b"")])
async def test_the_end_of_a_log_that_can_t_be_had_is_asked_for_again_and_delays_no_release(driver, failures, kept):
    driver.api.failing = {"GET": failures}
    await driver.delete()
    assert driver.api.failing == {"GET": 0}
    await driver.until_gone()
    assert await driver.log() == kept


async def test_a_call_that_is_cut_off_has_saved_no_log(driver):
    """The next one does it: the driver's, and its executor's."""
    await driver.add_executor(2, EXECUTOR_CONTAINER)
    driver.api.failing = {"GET": 2 * SAVE_TRIES}
    task = asyncio.get_running_loop().create_task(driver.delete())
    while driver.api.failing["GET"] > 2 * SAVE_TRIES - 2:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    driver.api.failing = {}
    await driver.delete()
    await driver.until_gone()
    assert await driver.log() == LOG
    assert saved(driver.provisioner._folder / ID) == [f"{object_name(ID)}-exec-2"]
