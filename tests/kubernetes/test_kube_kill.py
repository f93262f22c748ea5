"""The broker is killed with SIGKILL at random points of provisioning and of release, again and again: nothing is lost,
doubled or leaked.

``SPARKBROKER_TEST_ROUNDS`` says how often, by default 30 times.
"""

import asyncio
import os
import random
from collections import Counter

import pytest

from sparkbroker.v1 import broker_pb2 as pb
from tests.kubernetes.broker import ENDED, broker

ROUNDS = int(os.environ.get("SPARKBROKER_TEST_ROUNDS", "30"))
pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(120 + 90 * ROUNDS)]


async def kill(running, after):
    """Once that much has happened, and start another."""
    await asyncio.sleep(after)
    await asyncio.to_thread(running.kill)
    running.start()


@pytest.mark.promise(6)
@pytest.mark.long
async def test_killed_at_each_step(space, tmp_path):
    randomness = random.Random(7)
    async with broker(tmp_path, space) as running:
        for number in range(ROUNDS):
            name = await running.acquire(executors=1, key=f"round-{number}")
            # Creating the pod and its Secret takes a tenth of a second, the start of its containers some more.
            await kill(running, randomness.choice([0.02, 0.05, 0.1, 0.3, 1, 4]) * randomness.random() * 2)
            if number % 2:
                lease = await running.until(name, pb.LEASE_STATE_READY, *ENDED)
                assert lease.state == pb.LEASE_STATE_READY, lease
            drivers = Counter(pod.driver_id for pod in await space.pods() if pod.is_driver)
            assert set(drivers.values()) <= {1}
            assert len(drivers) <= 1
            await running.serving()
            await running.release(name)
            await kill(running, randomness.choice([0, 0.02, 0.1, 0.5]) * randomness.random() * 2)
            lease = await running.until_ended(name)
            assert lease.state == pb.LEASE_STATE_RELEASED, lease
            async with asyncio.timeout(120):
                while await running.used():
                    await asyncio.sleep(0.1)
            assert await space.pods() == ()
            await space.until_empty()


@pytest.mark.promise(6)
async def test_pods_that_nobody_recorded_are_found_charged_and_removed(space, tmp_path):
    """The broker's database is lost while a driver runs; its key isn't. What isn't this broker's stays."""
    async with broker(tmp_path, space) as running:
        await running.ready(executors=1)
        await asyncio.to_thread(running.kill)
        for path in running.state.glob("broker.db*"):
            path.unlink()
        (mine,) = [pod for pod in await space.pods() if pod.is_driver]
        foreign = {
            "metadata": {"name": "foreign", "labels": {"sparkbroker.io/owner": "another", "sparkbroker.io/driver": mine.driver_id}},
            "spec": {
                "containers": [{
                    "name": "c", "image": space.settings()["image"], "command": ["sleep", "600"],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }],
                "securityContext": {"runAsNonRoot": True, "runAsUser": 185, "seccompProfile": {"type": "RuntimeDefault"}},
            },
        }  # fmt: skip
        await space.post(f"{space.path}/pods", foreign)
        running.start()
        await running.serving()
        async with asyncio.timeout(120):
            while [pod for pod in await space.pods() if pod.metadata.name != "foreign"] or await running.used():
                await asyncio.sleep(0.2)
        (left,) = await space.pods()
        assert left.metadata.name == "foreign"
        assert not left.leaving
