"""Logs that are followed, on a small API server: what they leave to others, and how they go on where a connection breaks or a
node rotates."""

import asyncio
import importlib.util
from collections import defaultdict
from contextlib import aclosing, asynccontextmanager

import pytest

from sparkbroker.broker.adapters.kubernetes_provisioner import KubernetesProvisioner, _api, _following, _logs, _seats
from sparkbroker.broker.adapters.kubernetes_provisioner._names import object_name
from sparkbroker.broker.adapters.kubernetes_provisioner._seats import Seats
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.pods.settings import EXECUTOR_CONTAINER, parse_pod
from sparkbroker.broker.ports.provisioner import Phase
from tests.kubernetes.small_api import small_api
from tests.kubernetes.small_driver import ID, SPACE, SPEC, Hand, small_driver
from tests.kubernetes.small_logs import LOG
from tests.kubernetes.space import settings_of

pytestmark = pytest.mark.timeout(60)
FEW = 10
"""Connections for calls."""


class Reader:
    """Somebody who follows, and what was heard, by source."""

    def __init__(self, driver, offset=0, executors=None, tail_lines=0):
        self.heard: defaultdict[str, bytes] = defaultdict(bytes)
        self.offset = offset
        self._news = asyncio.Condition()
        self._chunks = driver.provisioner.logs(
            ID, {}, offset=offset, tail_lines=tail_lines, follow=True, executors=executors
        )
        self.task = asyncio.get_running_loop().create_task(self._read())

    async def _read(self):
        async with aclosing(self._chunks) as chunks:
            async for chunk in chunks:
                self.heard[chunk.source] += chunk.data
                if not chunk.source:
                    self.offset = chunk.next_offset
                async with self._news:
                    self._news.notify_all()

    async def until(self, end, *sources):
        """It has heard this at last of each."""
        async with self._news:
            await self._news.wait_for(lambda: all(self.heard.get(s, b"").endswith(end) for s in sources or ("",)))


@asynccontextmanager
async def reading(*args, **kwargs):
    reader = Reader(*args, **kwargs)
    try:
        yield reader
    finally:
        reader.task.cancel()
        await asyncio.gather(reader.task, return_exceptions=True)


@pytest.fixture
async def driver(tmp_path, monkeypatch, need):
    monkeypatch.setattr(_api, "CONNECTIONS", FEW)
    monkeypatch.setattr(_following, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(_logs, "QUIET", 0.01)
    async with small_driver(tmp_path, monkeypatch, need) as small:
        await small.until(lambda seen: seen.phase is Phase.READY)
        yield small


async def add_executors(driver, count):
    for number in range(1, count + 1):
        await driver.begin_executor(number, EXECUTOR_CONTAINER)
    await driver.seen(count)
    return [f"{object_name(ID)}-exec-{number}" for number in range(1, count + 1)]


async def followed(driver, count):
    while driver.api.logs.followers != count:
        await asyncio.sleep(0)


async def end(driver):
    await driver.api.end(SPACE, object_name(ID))


# -- what they leave to others


async def test_calls_go_through_while_more_logs_are_followed_than_there_are_connections_for_calls(driver):
    await add_executors(driver, 30)
    async with reading(driver, executors={}) as one, reading(driver, executors={}) as two:
        while driver.calls()["get", "pods/log"] < 62:
            await asyncio.sleep(0)
        assert [seen.phase for seen in await driver.provisioner.inventory()] == [Phase.READY]
        await followed(driver, 62)
        await driver.provisioner.delete(ID, {}, force=False)
        await driver.until(lambda seen: seen.phase is Phase.ABSENT)
        await asyncio.gather(one.task, two.task)
        assert len(one.heard) == len(two.heard) == 31
        assert set(one.heard.values()) == {LOG}
    assert "[0 of" in repr(driver.provisioner._logs)


async def test_calls_go_through_with_more_namespaces_than_connections(tmp_path, monkeypatch, need):
    need(importlib.util.find_spec("kubernetes_asyncio"), "kubernetes-asyncio (the extra `kubernetes`)")
    monkeypatch.setattr(_api, "CONNECTIONS", FEW)
    count = FEW + 5
    profiles = [
        Profile(
            name=f"p{n}", provisioner="kubernetes", defaults=SPEC, pool="c", pod=parse_pod(settings_of(f"n{n}"), "pod")
        )
        for n in range(count)
    ]
    async with small_api() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig")))
        one = KubernetesProvisioner(folder=tmp_path / "pods", key=b"k", profiles=profiles, clock=Hand())
        await one.start()
        try:
            while not all(watch.fresh for watch in one._fleet.watches.values()):
                await asyncio.sleep(0)
            assert await one.inventory() == []
            assert len(one._fleet.watches) == count
        finally:
            await one.close()


async def test_who_comes_when_all_seats_are_taken_is_told_what_is_full(driver, monkeypatch):
    monkeypatch.setattr(_seats, "PATIENCE", 0.01)
    logs = driver.provisioner._logs
    logs._seats = Seats(1, "logs of drivers")
    async with reading(driver) as first:
        await first.until(LOG)
        async with reading(driver) as second:
            with pytest.raises(
                ProvisionerFailed, match=r"^1 logs of drivers are read at this time, the most"
            ) as refused:
                await second.task
            assert refused.value.retryable
    async with reading(driver) as third:
        await third.until(LOG)


async def test_readers_of_many_executors_keep_nobody_from_a_driver_s_log(driver, monkeypatch):
    monkeypatch.setattr(_seats, "PATIENCE", 0.01)
    driver.provisioner._logs._executors_seats = Seats(1, "logs of executors")
    await add_executors(driver, 2)
    async with reading(driver, executors={}) as many, reading(driver) as one:
        with pytest.raises(ProvisionerFailed, match=r"^1 logs of executors"):
            await many.task
        await one.until(LOG)


async def test_a_seat_that_becomes_free_is_taken_by_who_waits():
    seats = Seats(1, "logs")
    async with seats.one():
        waiting = asyncio.get_running_loop().create_task(seats.one().__aenter__())
        await asyncio.sleep(0)
        assert not waiting.done()
        assert repr(seats) == "<Seats [1 of 1 logs]>"
    await waiting
    assert repr(seats) == "<Seats [1 of 1 logs]>"


# -- how they go on


@pytest.mark.parametrize("politely", [False, True])
async def test_a_connection_that_breaks_is_taken_up_where_it_was(driver, politely):
    """Also one that was ended in good order, as by a kubelet that is restarted."""
    names = ["", *await add_executors(driver, 2)]
    async with reading(driver, executors={}) as reader:
        await reader.until(LOG, *names)
        for number in range(3):
            await driver.api.logs.cut(politely=politely)
            await driver.api.logs.write(b"written while nobody is connected %d\n" % number)
            await followed(driver, 3)
            await driver.api.logs.write(b"and then %d\n" % number)
            await reader.until(b"and then %d\n" % number, *names)
        await end(driver)
        await reader.task
        assert reader.heard == dict.fromkeys(names, driver.api.log)
        assert reader.offset == len(driver.api.log)


async def test_a_log_that_can_t_be_had_at_once_is_asked_for_again_until_its_container_has_ended(driver):
    driver.api.failing = {"GET": 5}
    async with reading(driver, tail_lines=1) as reader:
        await reader.until(b"line 5 of a log\n")
        await end(driver)
        await reader.task
        assert reader.heard == {"": b"line 5 of a log\n"}


async def test_who_comes_with_an_offset_beyond_what_is_left_after_a_rotation_goes_on_with_the_new_file(driver):
    await driver.api.logs.rotate(b"new\n")
    async with reading(driver, offset=len(LOG)) as reader:
        await reader.until(b"new\n")
        await driver.api.logs.write(b"newer\n")
        await reader.until(b"newer\n")
        assert reader.heard == {"": b"new\nnewer\n"}
        assert reader.offset == len(b"new\nnewer\n")
        await end(driver)
        await reader.task


async def test_who_comes_with_the_offset_that_is_hears_nothing_until_something_is_written(driver):
    async with reading(driver, offset=len(LOG)) as reader:
        await followed(driver, 1)
        before = driver.calls()["get", "pods/log"]
        await driver.api.logs.write(b"new\n")
        await reader.until(b"new\n")
        assert reader.heard == {"": b"new\n"}
        assert driver.calls()["get", "pods/log"] == before


@pytest.mark.parametrize("length", [1, 100])
async def test_a_connection_that_breaks_after_a_rotation_doubles_nothing_and_loses_nothing(driver, length):
    old, new = (b"".join(b"%s line %d\n" % (which, n) for n in range(length)) for which in (b"old", b"new"))
    driver.api.log = LOG + old * 2
    async with reading(driver) as reader:
        await reader.until(old)
        await driver.api.logs.rotate(new)
        await reader.until(new)
        await driver.api.logs.cut()
        await driver.api.logs.write(b"while nobody is connected\n")
        await reader.until(b"while nobody is connected\n")
        assert reader.heard[""] == LOG + old * 2 + driver.api.log
        assert reader.offset == len(driver.api.log)
