"""Places that principals share: never too many, each in its turn, and none lost to a cancellation."""

import asyncio
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparkbroker.broker.app.shares import Shares
from sparkbroker.broker.domain.units import Principal

ANN, BOB = Principal("ann"), Principal("bob")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), limit=st.integers(1, 4), each=st.integers(1, 3))
def test_no_more_than_allowed_and_none_is_lost(virtual, seed, limit, each):
    async def scenario(_):
        chance, shares = random.Random(seed), Shares(limit, each)
        held: dict[str, int] = {}
        most = 0

        async def work(principal):
            nonlocal most
            async with shares.place(principal):
                held[principal] = held.get(principal, 0) + 1
                most = max(most, sum(held.values()))
                assert sum(held.values()) <= limit
                assert held[principal] <= each
                try:
                    await asyncio.sleep(chance.random())
                finally:
                    held[principal] -= 1

        tasks = []
        for _ in range(30):
            tasks.append(asyncio.create_task(work(Principal(chance.choice("abc")))))
            if chance.random() < 0.5:
                chance.choice(tasks).cancel()
            if chance.random() < 0.5:
                await asyncio.sleep(chance.random())
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert outcome is None or isinstance(outcome, asyncio.CancelledError)
        assert most
        assert repr(shares) == f"<Shares [0 of {limit} taken, 0 wait]>"

    virtual.run(scenario)


async def test_the_many_of_one_hold_up_nobody_elses():
    shares, order = Shares(1, 1), []

    async def work(principal, name):
        async with shares.place(principal):
            order.append(name)
            await asyncio.sleep(1)

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(work(ANN, f"ann {number}"))
        await asyncio.sleep(0.5)
        group.create_task(work(BOB, "bob"))
    assert order == ["ann 0", "ann 1", "bob", "ann 2", "ann 3", "ann 4"]


@pytest.mark.parametrize("when", ["waiting", "granted"])
async def test_a_place_that_nobody_takes_any_more_is_another_s(when):
    shares = Shares(1, 1)
    release = asyncio.Event()

    async def hold():
        async with shares.place(ANN):
            await release.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(hold())
        await asyncio.sleep(0)
        waiting = group.create_task(hold())
        await asyncio.sleep(0)
        if when == "granted":
            release.set()
            await asyncio.sleep(0)
        waiting.cancel()
        release.set()
    async with asyncio.timeout(1), shares.place(BOB):
        pass
