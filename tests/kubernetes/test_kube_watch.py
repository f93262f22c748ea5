"""A watch that can't go on from where it was; on a small API server."""

import asyncio
import contextlib

import pytest
import structlog

from sparkbroker.broker.adapters.kubernetes_provisioner import _watch
from sparkbroker.broker.adapters.kubernetes_provisioner._cluster import Expired
from sparkbroker.broker.adapters.kubernetes_provisioner._errors import ApiFailed
from sparkbroker.broker.adapters.kubernetes_provisioner._names import object_name
from sparkbroker.broker.adapters.kubernetes_provisioner._store import PodStore
from tests.kubernetes.small_driver import ID, SPACE, small_driver

pytestmark = pytest.mark.timeout(60)


async def test_a_version_that_is_forgotten(tmp_path, monkeypatch, need):
    """The API server says 410: everything is listed again, once, and followed from there."""
    async with small_driver(tmp_path, monkeypatch, need) as driver:
        await driver.add_executor(1)
        lists, connects = driver.calls()["list", "pods"], driver.watch.connects
        driver.api.silent = True
        await driver.api.end(SPACE, f"{object_name(ID)}-exec-1")
        await driver.begin_executor(2)
        driver.api.forget()
        await driver.api.speak()
        await driver.seen(2)
        assert [pod.metadata.name for pod in driver.watch.store.of(ID)] == [
            object_name(ID), f"{object_name(ID)}-exec-2",
        ]  # fmt: skip
        await driver.add_executor(3)
        assert driver.watch.fresh
        assert (driver.calls()["list", "pods"], driver.watch.connects) == (lists + 1, connects + 1)


class Unreliable:
    """A cluster whose watches end so: with this error, some seconds after they were opened."""

    def __init__(self, error, lasting=0.0):
        self.error = error
        self.lasting = lasting
        self.lists = 0
        self.events = []

    async def list_pods(self, _namespace, _selector):
        self.lists += 1
        return (), "1"

    async def watch_pods(self, _namespace, _selector, _version, opened):
        opened()
        await asyncio.sleep(self.lasting)
        for event in self.events:
            yield event
        raise self.error


async def pauses(cluster, monkeypatch, count):
    """Those between its first watches."""
    monkeypatch.setattr(_watch, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(_watch, "LONGEST_PAUSE", 0.04)
    found, sleep = [], asyncio.sleep

    async def counted(seconds):
        if seconds != cluster.lasting:
            found.append(seconds)
        if len(found) == count:
            raise asyncio.CancelledError
        await sleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", counted)
    watch = _watch.PodWatch(cluster, "small", "", lambda _: None, PodStore())
    with structlog.testing.capture_logs(), contextlib.suppress(asyncio.CancelledError):
        await watch.run()
    return found


async def test_a_watch_that_worked_until_something_cut_it_is_taken_up_at_once(monkeypatch):
    """However often: networks end what is silent."""
    cut = ApiFailed("cut", code=0, retryable=True)
    assert await pauses(Unreliable(cut, lasting=0.05), monkeypatch, 4) == [0.01] * 4


async def test_a_server_that_is_away_is_asked_ever_more_rarely(monkeypatch):
    refused = ApiFailed("refused", code=0, retryable=True)
    assert await pauses(Unreliable(refused), monkeypatch, 4) == [0.01, 0.02, 0.04, 0.04]


async def test_a_server_that_forgets_at_once_what_it_lists_is_asked_ever_more_rarely(monkeypatch):
    cluster = Unreliable(Expired())
    assert await pauses(cluster, monkeypatch, 3) == [0.01, 0.02, 0.04]
    assert cluster.lists == 3
