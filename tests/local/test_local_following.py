"""Followed logs: one look for all readers of a log, and each gets all of it."""

import asyncio
from contextlib import aclosing

import pytest

from sparkbroker.broker.adapters.local_provisioner import _following
from sparkbroker.broker.adapters.local_provisioner._following import Logs
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.units import DriverId


class Driver:
    """Its log is in memory. ``reads``: by offset."""

    id = DriverId("d1")
    surely_alive = False

    def __init__(self) -> None:
        self.log, self.reads, self.alive = b"", list[int](), True
        self.broken = False

    def lives(self) -> bool:
        return self.alive

    def log_size(self) -> int:
        return len(self.log)

    def read_log(self, offset: int, size: int) -> tuple[bytes, int]:
        if self.broken:
            raise PermissionError("not yours")
        self.reads.append(offset)
        data = self.log[offset : offset + size]
        return data, offset + len(data)

    def tail_offset(self, lines: int) -> int:
        return len(self.log) - len(b"".join(self.log.splitlines(keepends=True)[-lines:]))


@pytest.fixture
async def logs(monkeypatch):
    monkeypatch.setattr(_following, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(_following, "LONGEST_PAUSE", 0.02)
    made = Logs()
    yield made
    await made.close()
    assert repr(made) == "<Logs [0 followed, by 0]>"


async def follow(logs, driver, told, tail_lines=0):
    begin = None
    async with aclosing(logs.read(driver, offset=0, tail_lines=tail_lines, follow=True)) as chunks:
        async for chunk in chunks:
            begin = chunk.next_offset - len(chunk.data) if begin is None else begin
            told += chunk.data
            assert chunk.next_offset == begin + len(told)


async def all_have(told, data):
    async with asyncio.timeout(10):
        while not all(each == data for each in told):  # noqa: ASYNC110 - readers are told by threads
            await asyncio.sleep(0.01)


async def test_a_hundred_readers_cost_one_look_and_each_is_told_everything(logs):
    driver, told = Driver(), [bytearray() for _ in range(100)]
    driver.log = b"first\n"
    async with asyncio.TaskGroup() as group:
        for each in told:
            group.create_task(follow(logs, driver, each))
        await all_have(told, driver.log)
        assert repr(logs) == "<Logs [1 followed, by 100]>"
        before = len(driver.reads)
        driver.log += b"second\n"
        await all_have(told, driver.log)
        assert len(driver.reads) - before < 20, "the follower's own looks, and not one of each reader"
        late = bytearray()
        group.create_task(follow(logs, driver, late, tail_lines=1))
        await all_have([late], b"second\n")
        driver.alive = False
    assert {bytes(each) for each in told} == {b"first\nsecond\n"}


async def test_a_reader_that_falls_behind_holds_up_nobody_and_misses_nothing(logs, monkeypatch):
    monkeypatch.setattr(_following, "CHUNK", 16)
    driver, quick = Driver(), bytearray()
    slow = bytearray()
    async with asyncio.TaskGroup() as group:
        group.create_task(follow(logs, driver, quick))
        reading = logs.read(driver, offset=0, tail_lines=0, follow=True)
        driver.log = b"x" * 10
        slow += (await anext(reading)).data
        for number in range(20):
            driver.log += b"%9d\n" % number
            await all_have([quick], driver.log)
        driver.alive = False
        async for chunk in reading:
            slow += chunk.data
    assert bytes(slow) == bytes(quick) == driver.log


async def test_a_log_that_cannot_be_read_is_told_to_all_its_readers(logs):
    driver = Driver()
    readings = [asyncio.create_task(follow(logs, driver, bytearray())) for _ in range(3)]
    async with asyncio.timeout(10):
        while not driver.reads:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
    driver.broken = True
    for outcome in await asyncio.gather(*readings, return_exceptions=True):
        assert isinstance(outcome, ProvisionerFailed)
        assert outcome.retryable
