"""Small parts of the core, by themselves."""

import asyncio

import pytest

from sparkbroker.broker.app.allowance import Allowance
from sparkbroker.broker.app.events import Subscription
from sparkbroker.broker.app.log_readers import LogReaders
from sparkbroker.broker.app.waking import AT_ONCE, Wakes
from sparkbroker.broker.app.workqueue import FIRST_BACKOFF, WorkQueue
from sparkbroker.broker.domain.errors import TooMany
from sparkbroker.broker.domain.units import Principal
from sparkbroker.broker.ports.metrics import NoMetrics

ANN, BOB = Principal("ann"), Principal("bob")


async def test_a_wake_that_comes_before_the_wait_is_not_lost():
    subscription = Subscription(ANN, Wakes())
    subscription.wake()
    await asyncio.wait_for(subscription.wait(), 1)
    waiting = asyncio.create_task(subscription.wait())
    await asyncio.sleep(1)
    assert not waiting.done(), "and counts once"
    subscription.wake()
    await waiting


async def test_the_watches_of_one_are_woken_a_few_at_a_time_and_hold_up_nobody_elses():
    wakes, order = Wakes(), []
    subscriptions = [Subscription(ANN, wakes) for _ in range(10 * AT_ONCE)] + [Subscription(BOB, wakes)]

    async def hear(subscription):
        await subscription.wait()
        order.append(subscription.principal)

    async with asyncio.TaskGroup() as group:
        for subscription in subscriptions:
            group.create_task(hear(subscription))
        await asyncio.sleep(0)
        for subscription in subscriptions:
            subscription.wake()
        woken = []
        while len(order) < len(subscriptions):
            before = len(order)
            await asyncio.sleep(0)
            woken.append(len(order) - before)
        assert max(woken) <= AT_ONCE
    assert order.index(BOB) <= 2 * AT_ONCE


class Busy:
    """Always wants its turn."""

    principal = ANN

    def go(self) -> bool:
        return True


async def test_a_watch_that_has_always_something_to_hear_waits_for_its_turn_all_the_same():
    subscription = Subscription(ANN, wakes := Wakes())
    for _ in range(2 * AT_ONCE):
        wakes.add(Busy())
    subscription.wake()
    waiting = asyncio.create_task(subscription.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    await asyncio.wait_for(waiting, 1)


async def test_whoever_always_has_something_to_tell_takes_turns():
    wakes, turns = Wakes(), []

    async def tell(principal, times):
        for _ in range(times):
            await wakes.turn(principal)
            turns.append(principal)

    async with asyncio.TaskGroup() as group:
        for _ in range(10 * AT_ONCE):
            group.create_task(tell(ANN, 3))
        group.create_task(tell(BOB, 3))
        told = []
        while len(turns) < 30 * AT_ONCE + 3:
            before = len(turns)
            await asyncio.sleep(0)
            told.append(len(turns) - before)
        assert max(told) <= AT_ONCE
    assert [place for place, principal in enumerate(turns) if principal == BOB][-1] <= 5 * AT_ONCE


async def test_a_turn_that_nobody_waits_for_any_more_is_passed_on():
    wakes = Wakes()
    waiting = [asyncio.create_task(wakes.turn(ANN)) for _ in range(3 * AT_ONCE)]
    await asyncio.sleep(0)
    for each in waiting[AT_ONCE:-1]:
        each.cancel()
    await asyncio.wait_for(waiting[-1], 1)


async def test_a_key_is_worked_on_once_at_a_time_and_again_if_it_was_added_meanwhile():
    queue: WorkQueue[str] = WorkQueue()
    for _ in range(3):
        queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    assert repr(queue) == "<WorkQueue [0 ready, 1 active, 0 delayed]>"
    queue.done("a", after=100)
    assert await queue.get() == "a"
    queue.done("a")
    assert repr(queue) == "<WorkQueue [0 ready, 0 active, 0 delayed]>"


async def test_backoff_grows_and_news_shortens_it():
    queue: WorkQueue[str] = WorkQueue()
    loop = asyncio.get_running_loop()
    queue.add("a")
    waits = []
    for _ in range(12):
        begun = loop.time()
        await queue.get()
        waits.append(loop.time() - begun)
        queue.done("a", failed=True)
    assert waits == sorted(waits)
    assert 29 < waits[-1] < 31
    await queue.get()
    queue.add("a")
    queue.done("a", failed=True)
    begun = loop.time()
    await queue.get()
    assert loop.time() - begun <= FIRST_BACKOFF + 0.01
    queue.done("a")
    assert not queue._failures


class Counted(NoMetrics):
    def __init__(self) -> None:
        self.limits: list[str] = []

    def limited(self, limit: str) -> None:
        self.limits.append(limit)


async def test_one_principal_reads_so_many_logs_and_no_faster_than_its_rate(world):
    metrics, loop = Counted(), asyncio.get_running_loop()
    readers = LogReaders(Allowance(logs=2, log_rate=100), world.clock, metrics)
    begun = loop.time()
    with readers.one(ANN) as one, readers.one(ANN) as two, readers.one(BOB) as theirs:
        with pytest.raises(TooMany, match="ann reads 2 logs"), readers.one(ANN):
            pass
        assert metrics.limits == ["logs_per_principal"]
        await one.told(100)
        assert loop.time() == begun, "a second's worth at once"
        await two.told(300)
        assert loop.time() == begun + 3, "they share the rate"
        await theirs.told(100)
        assert loop.time() == begun + 3
        assert metrics.limits[1:] == ["log_rate_per_principal"]
    await asyncio.sleep(10)
    with readers.one(ANN):
        pass
    assert repr(readers) == "<LogReaders [0 open]>"
