"""How often the API server is called for a lease, as the broker's metric counts it: on a small API server, with time in the
test's hand."""

import asyncio

import pytest

from sparkbroker.broker.adapters.kubernetes_provisioner._driver import ASK_AGAIN
from sparkbroker.broker.adapters.kubernetes_provisioner._errors import ApiFailed
from sparkbroker.broker.adapters.kubernetes_provisioner._executor_logs import saved
from sparkbroker.broker.adapters.kubernetes_provisioner._logs import SAVE_TRIES
from sparkbroker.broker.adapters.kubernetes_provisioner._names import object_name
from sparkbroker.broker.domain.lease.plan import STOP_GRACE
from sparkbroker.broker.domain.pods.settings import EXECUTOR_CONTAINER
from sparkbroker.broker.ports.provisioner import Phase
from tests.kubernetes.small_driver import ID, small_driver
from tests.kubernetes.small_logs import LOG

pytestmark = pytest.mark.timeout(60)


class Release:
    """Of a driver with an executor: what it calls."""

    def __init__(self, small):
        self.small = small
        self.api = small.api
        self.clock = small.clock
        self.provisioner = small.provisioner
        self._before = small.calls()

    async def delete(self, *, force=False):
        await self.provisioner.delete(ID, {}, force=force)

    async def log(self):
        """What is kept of its log."""
        chunks = self.provisioner.logs(ID, {}, offset=0, tail_lines=0, follow=False)
        return b"".join([chunk.data async for chunk in chunks])

    def asked(self):
        """(requests to end its pods, its Secret) since it began."""
        made = self.small.calls() - self._before
        return made["deletecollection", "pods"], made["delete", "secrets"]

    async def until_gone(self):
        await self.small.until(lambda seen: seen.phase is Phase.ABSENT)


@pytest.fixture
async def driver(tmp_path, monkeypatch, need):
    async with small_driver(tmp_path, monkeypatch, need) as small:
        await small.add_executor(1)
        yield Release(small)


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
    await driver.small.add_executor(2)
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
    await driver.small.add_executor(2, EXECUTOR_CONTAINER)
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
