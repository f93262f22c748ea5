"""The thread behind a store."""

import asyncio
import threading
from functools import partial

import pytest

from sparkbroker.broker.adapters.sql_store import _worker
from sparkbroker.broker.adapters.sql_store._worker import Worker
from sparkbroker.broker.domain.errors import Unavailable


async def end(worker: Worker) -> None:
    await worker.stop(lambda: None)
    worker.join()


async def test_calls_are_made_in_order_in_one_other_thread():
    worker = Worker("test")
    made: list[tuple[int, int]] = []

    def call(number: int) -> int:
        made.append((number, threading.get_ident()))
        return number

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(worker.run(partial(call, number))) for number in range(50)]
    assert [task.result() for task in tasks] == [number for number, _ in made] == list(range(50))
    assert len({thread for _, thread in made} - {threading.get_ident()}) == 1
    await end(worker)


async def test_a_failure_is_the_caller_s_and_the_thread_goes_on():
    worker = Worker("test")
    with pytest.raises(ZeroDivisionError):
        await worker.run(lambda: 1 // 0)
    assert await worker.run(lambda: 7) == 7
    await end(worker)


async def test_pending_calls_are_bounded_also_those_of_cancelled_callers(monkeypatch):
    monkeypatch.setattr(_worker, "LIMIT", 3)
    worker = Worker("test")
    gate = threading.Event()
    waiting = [asyncio.get_running_loop().create_task(worker.run(gate.wait)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[1]
    assert "3 pending" in repr(worker)
    with pytest.raises(Unavailable, match="3 calls of the store are pending"):
        await worker.run(lambda: None)
    gate.set()
    await asyncio.gather(waiting[0], waiting[2])
    await worker.run(lambda: None)
    await end(worker)


async def test_a_cancelled_caller_s_failure_is_logged(capsys):
    worker = Worker("test")
    gate = threading.Event()

    def fail() -> None:
        gate.wait()
        raise ValueError("nobody hears this")

    waiting = asyncio.get_running_loop().create_task(worker.run(fail))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    await end(worker)
    assert "nobody hears this" in capsys.readouterr().out


def test_an_event_loop_that_is_gone_ends_nothing():
    gate, done = threading.Event(), threading.Event()

    async def begin() -> Worker:
        worker = Worker("test")
        task = asyncio.get_running_loop().create_task(worker.run(gate.wait))
        await asyncio.sleep(0)
        task.cancel()
        return worker

    worker = asyncio.run(begin())
    gate.set()

    async def finish() -> None:
        await worker.run(done.set)
        await end(worker)

    asyncio.run(finish())
    assert done.is_set()
