"""Small parts of the core, by themselves."""

import asyncio

from sparkbroker.broker.app.events import Subscription
from sparkbroker.broker.app.workqueue import FIRST_BACKOFF, WorkQueue


async def test_a_wake_that_comes_before_the_wait_is_not_lost():
    subscription = Subscription()
    subscription.wake()
    await asyncio.wait_for(subscription.wait(), 1)
    waiting = asyncio.create_task(subscription.wait())
    await asyncio.sleep(1)
    assert not waiting.done(), "and counts once"
    subscription.wake()
    await waiting


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
