"""What happens to the cluster itself: a node that dies holds the capacity of what ran on it, until the cluster or an operator says
that it is dead; the API server is restarted under everything.

Only on this folder's own cluster, whose kubelets can be stopped. Nothing else may use the cluster meanwhile.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http import HTTPStatus
from typing import Final

import pytest

from sparkbroker.broker.adapters.kubernetes_provisioner._api import MERGE_PATCH
from sparkbroker.broker.adapters.kubernetes_provisioner._cluster import Cluster, Expired
from sparkbroker.broker.adapters.kubernetes_provisioner._errors import ApiFailed
from sparkbroker.broker.adapters.kubernetes_provisioner._names import owned
from sparkbroker.v1 import broker_pb2 as pb
from tests.kubernetes.broker import broker
from tests.kubernetes.space import ADMIN, Space
from tools.cluster.layout import KUBECONFIG
from tools.cluster.processes import daemons, restart

OUT_OF_SERVICE: Final = {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}
CLUSTERS_TURN: Final = 240.0
"""Seconds. The cluster waits 40 s for a node that it no longer has, and looks for such pods every 20 s."""
pytestmark = [pytest.mark.kubernetes, pytest.mark.long, pytest.mark.timeout(600)]


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
        if kubelet.lives():
            os.kill(kubelet.pid, signal.SIGCONT)
        await until_ready(space, node, "True")


async def until_ready(space: Space, node: str, status: str) -> None:
    async with asyncio.timeout(120):
        while await ready(space, node) != status:
            await asyncio.sleep(0.5)


async def ready(space: Space, node: str) -> str:
    """What its condition says; empty: there is no such node."""
    try:
        conditions = (await space.get(f"/api/v1/nodes/{node}"))["status"].get("conditions", ())
    except ApiFailed as error:
        if error.code != HTTPStatus.NOT_FOUND:
            raise
        return ""
    return next((str(each["status"]) for each in conditions if each["type"] == "Ready"), "")


@asynccontextmanager
async def out_of_service(space: Space, node: str) -> AsyncIterator[None]:
    """Somebody has said so of a node that is certainly off."""
    try:
        await taint(space, node, OUT_OF_SERVICE)
        yield
    finally:
        await taint(space, node, None)


async def taint(space: Space, node: str, wanted: dict[str, str] | None) -> None:
    """Put it on beside the others, or (None) take it off."""
    path = f"/api/v1/nodes/{node}"
    async with asyncio.timeout(60):
        while True:
            seen = await space.get(path)
            others = [each for each in seen["spec"].get("taints", ()) if each["key"] != OUT_OF_SERVICE["key"]]
            version = seen["metadata"]["resourceVersion"]
            taints = [*others, *([wanted] if wanted is not None else [])]
            patch = {"metadata": {"resourceVersion": version}, "spec": {"taints": taints}}
            try:
                await space.api.call(ADMIN, "PATCH", path, body=patch, kind=MERGE_PATCH)
            except ApiFailed as error:
                if error.code != HTTPStatus.CONFLICT:
                    raise
                continue  # the cluster has changed it since it was looked at
            return


@asynccontextmanager
async def removed(space: Space, node: str) -> AsyncIterator[None]:
    """As `kubectl delete node` does. Its kubelet registers it anew when it starts, and only then."""
    try:
        await space.delete(f"/api/v1/nodes/{node}")
        yield
    finally:
        await asyncio.to_thread(restart, f"kubelet-{node}")
        await until_ready(space, node, "True")


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
        name = await running.ready(executors=0)
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


@pytest.mark.promise(5)
@pytest.mark.parametrize(
    ("said", "fault"), [(out_of_service, "its node is tainted out-of-service"), (removed, "its node is removed")]
)
async def test_a_node_that_the_cluster_gives_up_frees_its_capacity(
    space, tmp_path, need, faults, said: Callable[[Space, str], AbstractAsyncContextManager[None]], fault: str
):
    """Without an operator's word to the broker."""
    need(own(), "the cluster of `make cluster`, whose nodes can be made to die")
    async with broker(tmp_path, space) as running:
        name = await running.ready(executors=0)
        (pod,) = await space.pods()
        node = pod.spec.node_name
        async with dead(space, node):
            assert (await running.get(name)).state == pb.LEASE_STATE_READY, "a doubt is no verdict"
            assert await running.used()
            asked = time.time()
            async with said(space, node):
                lease = await running.until_ended(name, seconds=CLUSTERS_TURN)
                assert lease.state == pb.LEASE_STATE_FAILED
                assert f"its node {node} " in lease.message
                await running.until_free(space)
                faults.add(fault, lease, asked)
        assert "lease.forced" not in running.log.read_text()


async def test_an_api_server_that_is_restarted_ends_nothing(space, tmp_path, need, faults):
    """Watches break and are taken up again; Spark's own calls, too. What was before it has forgotten, which it says with 410."""
    need(own(), "the cluster of `make cluster`, whose API server can be restarted")
    async with broker(tmp_path, space) as running:

        def use(client):
            with client.session(api="connect", executors=1) as spark:
                before = spark.range(10).count()
                restart("apiserver")
                between = spark.range(15).count()
                restart("apiserver", kill=True)
                after = spark.range(20).count()
                (lease,) = client.list("live=true")
                return before, between, after, lease

        *counts, lease = await running.ask(use)
        assert counts == [10, 15, 20]
        assert lease.state == pb.LEASE_STATE_READY
        faults.goes_on("the API server is restarted", lease)
        lease = await running.until_ended(lease.name)
        assert lease.state == pb.LEASE_STATE_RELEASED
        async with asyncio.timeout(120):
            while await running.used():
                await asyncio.sleep(0.2)
        await space.until_empty(120)
        events = Cluster(space.api).watch_pods(space.name, owned("o"), "1", lambda: None)
        with pytest.raises(Expired):
            await anext(events)
