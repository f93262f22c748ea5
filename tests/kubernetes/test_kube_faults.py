"""What goes wrong on a cluster ends in a state, a reason that needs no kubectl, and freed capacity."""

import asyncio
import time

import pytest

from sparkbroker.v1 import broker_pb2 as pb
from tests.kubernetes.broker import broker

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]


async def fails(running, space, **ask):
    """The lease of a request that has to fail, when nothing is left of it."""
    lease = await running.until_ended(await running.acquire(**ask))
    assert lease.state == pb.LEASE_STATE_FAILED, lease
    await running.until_free(space)
    return lease


async def driver_pod(space):
    (pod,) = [pod for pod in await space.pods() if pod.is_driver]
    return pod


# -- before it runs


async def test_unschedulable(space, tmp_path, faults):
    async with broker(tmp_path, space, start_timeout=5, cpu="1000") as running:
        lease = await fails(running, space, executors=0, pod={"driver_cpu_request": "64"})
    faults.add("unschedulable: more CPU than any node has", lease)
    assert lease.reason == pb.LEASE_REASON_START_FAILED
    assert "unschedulable: 0/" in lease.message
    assert "Insufficient cpu" in lease.message


@pytest.mark.long
async def test_an_image_that_does_not_exist(space, tmp_path, faults):
    async with broker(tmp_path, space, start_timeout=20) as running:
        lease = await fails(running, space, executors=0, pod={"image": "registry.invalid/none:1"})
    faults.add("an image that does not exist", lease)
    assert lease.reason == pb.LEASE_REASON_START_FAILED
    assert "the image of container spark-kubernetes-driver can't be pulled" in lease.message


@pytest.mark.long
async def test_an_image_that_may_not_be_pulled(space, tmp_path, faults):
    async with broker(tmp_path, space) as running:
        pod = {"image": "registry.invalid/none:1", "image_pull_policy": "Never"}
        lease = await fails(running, space, executors=0, pod=pod)
    faults.add("an image that may not be pulled (policy Never)", lease)
    assert lease.reason == pb.LEASE_REASON_MISCONFIGURED
    assert "is not on the node" in lease.message


@pytest.mark.long
async def test_a_secret_that_does_not_exist(space, tmp_path, faults):
    async with broker(tmp_path, space) as running:
        env = {"PASSWORD": {"secretKeyRef": {"name": "none", "key": "k"}}}
        lease = await fails(running, space, executors=0, pod={"env": env})
    faults.add("a Secret that does not exist", lease)
    assert lease.reason == pb.LEASE_REASON_MISCONFIGURED
    assert 'secret "none" not found' in lease.message


@pytest.mark.long
async def test_a_volume_that_does_not_exist(space, tmp_path, faults):
    async with broker(tmp_path, space) as running:
        volumes = [{"name": "v", "configMap": {"name": "none"}}]
        mounts = [{"name": "v", "mountPath": "/v"}]
        lease = await fails(running, space, executors=0, pod={"volumes": volumes, "volume_mounts": mounts})
    faults.add("a volume that does not exist", lease)
    assert lease.reason == pb.LEASE_REASON_MISCONFIGURED
    assert 'configmap "none" not found' in lease.message


async def test_a_quota_that_is_full(space, tmp_path, faults):
    quota = {"metadata": {"name": "small"}, "spec": {"hard": {"requests.memory": "100Mi"}}}
    await space.post(f"{space.path}/resourcequotas", quota)
    async with broker(tmp_path, space, start_timeout=5) as running:
        lease = await fails(running, space, executors=0)
    faults.add("a quota that is full", lease)
    assert lease.reason == pb.LEASE_REASON_START_FAILED
    assert "the quota 'small' of namespace" in lease.message
    assert "is full" in lease.message


async def test_admission_denied(space, tmp_path, faults):
    """The namespace enforces the Pod Security standard restricted."""
    async with broker(tmp_path, space, pod={"driver_template": {"spec": {"hostNetwork": True}}}) as running:
        lease = await fails(running, space, executors=0)
    faults.add("admission denied", lease)
    assert lease.reason == pb.LEASE_REASON_MISCONFIGURED
    assert "admission denied" in lease.message
    assert "hostNetwork" in lease.message


async def test_a_service_account_that_does_not_exist(space, tmp_path, faults):
    async with broker(tmp_path, space, pod={"service_account": "nobody"}) as running:
        lease = await fails(running, space, executors=0)
    faults.add("a service account that does not exist", lease)
    assert lease.reason == pb.LEASE_REASON_MISCONFIGURED
    assert "the service account" in lease.message
    assert "nobody does not exist" in lease.message


async def test_rights_that_the_broker_lacks(space, tmp_path, faults):
    """It can't even see that nothing exists: the lease says why, and ends when it can."""
    await space.unbind("broker")
    async with broker(tmp_path, space) as running:
        name = await running.acquire(executors=0)
        lease = await running.until(name, pb.LEASE_STATE_RELEASING)
        assert lease.reason == pb.LEASE_REASON_MISCONFIGURED
        assert f"403: system:serviceaccount:{space.name}:broker may not create pods in namespace" in lease.message
        profiles = await running.ask(lambda client: client.profiles())
        assert "may not list pods in namespace" in profiles[0].unusable_message
        assert await running.used()
        await space.bind("broker")
        lease = await running.until_ended(name)
        assert lease.state == pb.LEASE_STATE_FAILED
        await running.until_free(space)
    faults.add("rights that the broker lacks, until it has them", lease)


async def test_a_namespace_that_does_not_exist(space, tmp_path, faults):
    async with broker(tmp_path, space, admin=True, pod={"namespace": "no-such-namespace"}) as running:
        lease = await running.until_ended(await running.acquire(executors=0))
        assert await running.used() == {}
    faults.add("a namespace that does not exist", lease)
    assert lease.reason == pb.LEASE_REASON_MISCONFIGURED
    assert "namespace 'no-such-namespace' does not exist" in lease.message


# -- while it runs


@pytest.mark.promise(9)
@pytest.mark.long
async def test_a_driver_pod_that_somebody_deletes(space, tmp_path, faults):
    async with broker(tmp_path, space) as running:
        name = await running.ready()
        pod, began = await driver_pod(space), time.time()
        await space.delete(f"{space.path}/pods/{pod.metadata.name}")
        lease = await running.until_ended(name)
        await running.until_free(space)
    faults.add("somebody deletes the driver's pod", lease, began)
    assert (lease.state, lease.reason) == (pb.LEASE_STATE_FAILED, pb.LEASE_REASON_DRIVER_LOST)
    assert "its pod was deleted by somebody else" in lease.message


@pytest.mark.long
async def test_a_driver_without_memory(space, tmp_path, faults):
    async with broker(tmp_path, space) as running:
        name = await running.ready(executors=0)

        def use(client):
            with client.open(name) as lease:
                lease.attach()
                with lease.session(api="connect") as spark:
                    spark.sql("SELECT size(sequence(1, 400000000))").collect()

        began = time.time()
        with pytest.raises(Exception, match=r"\S"):
            await running.ask(use)
        lease = await running.until_ended(name)
        await running.until_free(space)
    faults.add("a query for which the driver lacks memory", lease, began)
    assert lease.reason == pb.LEASE_REASON_OUT_OF_MEMORY, lease
    assert lease.exit.exit_code == 3


async def test_a_driver_that_the_kernel_ends_for_memory(space, tmp_path, faults):
    """Its whole heap is there from the beginning, and the pod's limit doesn't hold what is beside it."""
    conf = '{ "spark.driver.extraJavaOptions" = "-Xms600m -XX:+AlwaysPreTouch" }'
    async with broker(tmp_path, space, conf=conf) as running:
        lease = await fails(running, space, executors=0, memory="600m", memory_overhead="1m")
    faults.add("a driver's container needs more memory than its limit", lease)
    assert lease.reason == pb.LEASE_REASON_OUT_OF_MEMORY, lease
    assert "container spark-kubernetes-driver was killed for lack of memory" in lease.message


async def test_a_quota_that_has_no_room_for_executors(space, tmp_path, faults):
    """Only Spark is told so: the lease tells it too, and no longer than it holds."""
    quota = {"metadata": {"name": "small"}, "spec": {"hard": {"pods": "1"}}}
    await space.post(f"{space.path}/resourcequotas", quota)
    async with broker(tmp_path, space) as running:
        name = await running.ready(executors=1)
        lease = await running.told(
            name, r"0 of 1 executors run \(Spark can't make more: the quota 'small' of namespace"
        )
        faults.goes_on("a quota that has no room for executors", lease)
        assert "is full: this takes pods=1, pods=1 of pods=1 is used" in lease.message
        await space.delete(f"{space.path}/resourcequotas/small")
        await running.told(name, "^the session can be opened$")
        await running.release(name)
        assert (await running.until_ended(name)).state == pb.LEASE_STATE_RELEASED
        await running.until_free(space)


@pytest.mark.long
async def test_admission_denied_to_an_executor(space, tmp_path, faults):
    """The namespace enforces the Pod Security standard restricted."""
    async with broker(tmp_path, space, pod={"executor_template": {"spec": {"hostNetwork": True}}}) as running:
        name = await running.ready(executors=1)
        lease = await running.told(name, "Spark can't make more: admission denied in namespace")
        faults.goes_on("admission denied to an executor", lease)
        assert "hostNetwork" in lease.message
        await running.release(name)
        assert (await running.until_ended(name)).state == pb.LEASE_STATE_RELEASED
        await running.until_free(space)


@pytest.mark.long
async def test_an_executor_that_is_evicted_is_replaced(space, tmp_path, faults):
    async with broker(tmp_path, space) as running:
        name = await running.ready(executors=1)
        async with asyncio.timeout(120):
            while not (
                executors := [pod for pod in await space.pods() if not pod.is_driver and pod.status.phase == "Running"]
            ):
                await asyncio.sleep(0.2)
        victim = executors[0].metadata.name
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": victim, "namespace": space.name},
        }
        await space.post(f"{space.path}/pods/{victim}/eviction", eviction)

        def use(client):
            with client.open(name) as lease:
                lease.attach()
                with lease.session(api="connect") as spark:
                    return spark.range(100).count()

        faults.goes_on("an executor is evicted", await running.told(name, "evicted"))
        assert await running.ask(use) == 100
        await running.until_ended(name)
        await running.until_free(space)


@pytest.mark.promise(6)
@pytest.mark.long
async def test_a_broker_that_is_killed_right_after_a_promise(space, tmp_path, faults):
    """That of a driver, and that of its end: what it had begun, or had not, the next one finishes."""
    async with broker(tmp_path, space) as running:
        name = await running.acquire(executors=0)
        await asyncio.to_thread(running.kill)
        running.start()
        lease = await running.until(name, pb.LEASE_STATE_READY, pb.LEASE_STATE_FAILED)
        faults.goes_on("the broker is killed when it has promised a driver", lease)
        assert lease.state == pb.LEASE_STATE_READY
        assert len([pod for pod in await space.pods() if pod.is_driver]) == 1
        await running.release(name)
        began = time.time()
        await asyncio.to_thread(running.kill)
        running.start()
        lease = await running.until_ended(name)
        faults.add("the broker is killed when it has promised a driver's end", lease, began)
        assert lease.state == pb.LEASE_STATE_RELEASED
        await running.until_free(space)
