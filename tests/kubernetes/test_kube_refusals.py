"""Why executors are missing, which Spark alone is told: found in its driver's log, on a small API server."""

import asyncio

import msgspec
import pytest

from sparkbroker.broker.adapters.kubernetes_provisioner._errors import refusal
from sparkbroker.broker.adapters.kubernetes_provisioner._refusals import FIRST_LOOK, LONGEST_PAUSE
from sparkbroker.broker.domain.lease.lease import ExecutorSpec
from sparkbroker.broker.domain.lease.observation import Executors
from sparkbroker.broker.ports.provisioner import Phase
from tests.kubernetes.small_driver import SIZE, SPEC, small_driver

pytestmark = pytest.mark.timeout(60)


def failed(text, code=403):
    """As fabric8 words it."""
    status = (
        f"Status(apiVersion=v1, code={code}, details=StatusDetails(causes=[], kind=pods), kind=Status, status=Failure)"
    )
    return f"Failure executing: POST at: https://10.1.0.1:443/api/v1/namespaces/small/pods. Message: {text}. Received status: {status}."


QUOTA = failed('pods "x-exec-1" is forbidden: exceeded quota: little, requested: pods=1, used: pods=1, limited: pods=1')
TOLD = "Spark can't make more: the quota 'little' of namespace 'small' is full: this takes pods=1, pods=1 of pods=1 is used"


def log(*messages):
    return "".join(
        f"26/11/22 13:00:00 WARN X: Exception\nio.fabric8.kubernetes.client.KubernetesClientException: {message}\n\tat a.b(C.java:1)\n"
        for message in messages
    ).encode()


@pytest.fixture
async def driver(tmp_path, monkeypatch, need):
    two = ExecutorSpec(size=SIZE, min_count=2, max_count=2)
    async with small_driver(tmp_path, monkeypatch, need, msgspec.structs.replace(SPEC, executors=two)) as small:
        await small.until(lambda seen: seen.phase is Phase.READY)
        yield small


def reads(driver):
    return driver.calls()["get", "pods/log"]


def pass_time(driver, seconds):
    driver.clock.now += seconds
    driver.known.changed.set()


async def test_a_quota_that_is_full_for_executors(driver):
    driver.api.log = log(QUOTA)
    assert (await driver.observe()).message == "0 of 2 executors run"
    pass_time(driver, FIRST_LOOK)
    seen = await driver.until(lambda seen: "quota" in seen.message)
    assert seen.phase is Phase.READY
    assert seen.message == f"0 of 2 executors run ({TOLD})"
    assert seen.executors == Executors(wanted=2, running=0, pending=0, message=TOLD)


async def test_it_is_told_no_longer_than_it_holds(driver):
    driver.api.log = log(QUOTA)
    pass_time(driver, FIRST_LOOK)
    await driver.until(lambda seen: "quota" in seen.message)
    await driver.add_executor(1)
    assert (await driver.observe()).message == f"1 of 2 executors run ({TOLD})"
    await driver.add_executor(2)
    assert (await driver.observe()).message == ""
    assert driver.known.refused == ""


async def test_what_the_log_says_no_more_is_told_no_more(driver):
    driver.api.log = log(QUOTA)
    pass_time(driver, FIRST_LOOK)
    await driver.until(lambda seen: "quota" in seen.message)
    driver.api.log = b"26/11/22 13:05:00 INFO X: all is well\n"
    pass_time(driver, 2 * FIRST_LOOK)
    seen = await driver.until(lambda seen: "quota" not in seen.message)
    assert seen.message == "0 of 2 executors run"


async def test_the_log_is_read_seldom_and_never_while_all_exist(driver):
    await driver.observe()
    for read in range(12):
        assert reads(driver) == read
        await driver.observe()
        pass_time(driver, min(FIRST_LOOK * 2**read, LONGEST_PAUSE))
        while reads(driver) == read:
            await driver.observe()
            await asyncio.sleep(0.005)
    await driver.add_executor(1)
    await driver.add_executor(2)
    await driver.observe()
    pass_time(driver, 10 * LONGEST_PAUSE)
    while "executors d1" in driver.provisioner._fleet.tasks:
        await asyncio.sleep(0.005)
    await driver.observe()
    assert "executors d1" not in driver.provisioner._fleet.tasks
    assert reads(driver) == 12


async def test_a_log_that_can_t_be_read_changes_nothing(driver):
    driver.api.log = log(QUOTA)
    pass_time(driver, FIRST_LOOK)
    await driver.until(lambda seen: "quota" in seen.message)
    driver.api.failing = {"GET": 1}
    pass_time(driver, 2 * FIRST_LOOK)
    while driver.api.failing["GET"]:
        await asyncio.sleep(0.005)
    assert (await driver.observe()).message == f"0 of 2 executors run ({TOLD})"


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([], ""),
        ([QUOTA.replace("POST", "GET")], ""),
        ([QUOTA, QUOTA.replace("little", "other")], "the quota 'other' of namespace 'n' is full: "),
        (
            [failed('pods "x" is forbidden: error looking up service account n/none: serviceaccount "none" not found')],
            "the service account n/none does not exist; create it",
        ),
        (
            [failed('pods is forbidden: User "me" cannot create resource "pods" in API group "" in the namespace "n"')],
            "403: me may not create pods in namespace 'n'; give that account this verb by a Role there",
        ),
        ([failed("Unauthorized", 401)], "the Kubernetes API server doesn't accept the driver's credentials"),
        (
            [failed("\x1b[31mno\x07", 500)],
            "Kubernetes could not create pods in namespace 'n' (500): [31mno",
        ),
        (
            [failed('pods "x" is forbidden: no')[:-1].partition(". Received")[0]],
            "admission denied in namespace 'n': no",
        ),
    ],
)
def test_what_the_log_says(messages, told):
    found = refusal(log(*messages).decode().splitlines(), "n")
    assert found.startswith(told)
    assert bool(found) == bool(told)


LONG = 256 << 10
RIGHTS = 'pods is forbidden: User "{}" cannot create resource "pods" in API group "" in the namespace "n"'


@pytest.mark.parametrize(
    "text",
    [
        "x" * LONG,
        "exceeded quota: a, requested: , used: " * (LONG // 38),
        "exceeded quota: " + "a" * 3000 + ", requested: " + "b" * 3000 + ", used: 1, limited: 2",
        ". Received status: Status(" * (LONG // 26),
        ". Message: " * (LONG // 11),
        RIGHTS.format("u" * 4000),
        'User "' * (LONG // 6),
        "error looking up service account " + "n" * 4000 + ": not found",
        "error looking up service account " * (LONG // 33),
    ],
    ids=lambda text: text[:20],
)
def test_whatever_is_written_there_takes_no_time_and_no_room(text):
    """Holders write to that log, too."""
    for code in (403, 422, 500):
        assert len(refusal([failed(text, code)] * 100, "n")) < 2500
