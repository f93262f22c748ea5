"""What happens to the cluster itself: a node that dies holds the capacity of what ran on it, until an operator says that it
is dead; the API server is restarted under everything.

Only on this folder's own cluster, whose kubelets can be stopped. Nothing else may use the cluster meanwhile.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sparkbroker.v1 import broker_pb2 as pb
from tests.cluster.layout import KUBECONFIG
from tests.cluster.processes import daemons, restart
from tests.kubernetes.broker import broker
from tests.kubernetes.space import Space

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]


@asynccontextmanager
async def dead(space: Space, node: str) -> AsyncIterator[None]:
    """Its kubelet is stopped, and the cluster knows; afterwards it is well again."""
    (kubelet,) = [daemon for daemon in daemons() if daemon.name == f"kubelet-{node}"]
    assert kubelet.lives()
    os.kill(kubelet.pid, signal.SIGSTOP)
    try:
        await until_ready(space, node, "Unknown")
        yield
    finally:
        os.kill(kubelet.pid, signal.SIGCONT)
        await until_ready(space, node, "True")


async def until_ready(space: Space, node: str, status: str) -> None:
    async with asyncio.timeout(120):
        while True:
            conditions = (await space.get(f"/api/v1/nodes/{node}"))["status"]["conditions"]
            if [each["status"] for each in conditions if each["type"] == "Ready"] == [status]:
                return
            await asyncio.sleep(0.5)


def own() -> bool:
    return os.environ["KUBECONFIG"] == str(KUBECONFIG) and bool(daemons())


async def overdue(space: Space) -> bool:
    """Whether every pod should have ended by now, had its node heard of it."""
    due = [pod.metadata.deletion_timestamp for pod in await space.pods()]
    return all(moment is not None and time.time() > moment.timestamp() + 5 for moment in due)


@pytest.mark.promise(5)
async def test_a_dead_node_holds_its_capacity_until_an_operator_frees_it(space, tmp_path, need, faults):
    need(own(), "the cluster of `make cluster`, whose nodes can be made to die")
    async with broker(tmp_path, space) as running:
        name = await running.acquire(executors=0)
        lease = await running.until(name, pb.LEASE_STATE_READY, pb.LEASE_STATE_FAILED)
        assert lease.state == pb.LEASE_STATE_READY, lease.message
        (pod,) = await space.pods()
        async with dead(space, pod.spec.node_name):
            async with asyncio.timeout(60):
                while "does not answer" not in (lease := await running.get(name)).message:
                    await asyncio.sleep(0.2)
            assert lease.state == pb.LEASE_STATE_READY, "a doubt is no verdict"
            used = await running.used()
            await running.release(name)
            # Asked, and nobody confirms.
            async with asyncio.timeout(60):
                while not await overdue(space):
                    await asyncio.sleep(0.5)
            assert (await running.get(name)).state == pb.LEASE_STATE_RELEASING
            assert await running.used() == used
            asked = time.time()
            _, done = await running.ask(lambda client: client.force_release(name, "it burnt down"))
            assert f"{pod.metadata.name} ({pod.spec.node_name})" in done
            assert "removed from the cluster's record" in done
            lease = await running.until_ended(name)
            assert lease.state == pb.LEASE_STATE_RELEASED
            assert f"waits for no confirmation any more (it burnt down): {done}" in lease.message
            await running.until_free(space)
            faults.add("its node dies; from `lease release --force` on", lease, asked)
            log = running.log.read_text()
            assert log.count("lease.forced") == 2


async def test_an_api_server_that_is_restarted_ends_nothing(space, tmp_path, need, faults):
    """Watches break and are taken up again; Spark's own calls, too."""
    need(own(), "the cluster of `make cluster`, whose API server can be restarted")
    async with broker(tmp_path, space) as running:

        def use(client):
            with client.session(api="connect", executors=1) as spark:
                before = spark.range(10).count()
                restart("apiserver")
                after = spark.range(20).count()
                (lease,) = client.list("live=true")
                return before, after, lease

        before, after, lease = await running.ask(use)
        assert (before, after) == (10, 20)
        assert lease.state == pb.LEASE_STATE_READY
        faults.goes_on("the API server is restarted", lease)
        lease = await running.until_ended(lease.name)
        assert lease.state == pb.LEASE_STATE_RELEASED
        async with asyncio.timeout(120):
            while await running.used():
                await asyncio.sleep(0.2)
        await space.until_empty(120)
