"""Where the scheduler puts pods: executors beside their driver, else in its zone; two leases don't attract each other."""

import asyncio
from collections import defaultdict

import pytest

from sparkbroker.v1 import broker_pb2 as pb
from tests.kubernetes.broker import broker

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]
ZONE = "topology.kubernetes.io/zone"


@pytest.fixture
async def running(space, tmp_path):
    async with broker(tmp_path, space) as made:
        yield made


@pytest.fixture
async def zones(space, need):
    """Zones by name, of the nodes that take any pod: at least two in one zone and one in another."""
    nodes = [node for node in (await space.get("/api/v1/nodes"))["items"] if not node["spec"].get("taints")]
    found = {node["metadata"]["name"]: node["metadata"]["labels"].get(ZONE, "") for node in nodes}
    counts = [list(found.values()).count(zone) for zone in set(found.values())]
    need(len(counts) >= 2 and max(counts) >= 2, "a cluster of two zones, with two nodes in one of them")
    return found


def pinned(node, **more):
    return {"driver_template": {"spec": {"nodeSelector": {"kubernetes.io/hostname": node}}}, **more}


async def placed(space, count):
    """Driver's id -> its driver's node and its executors' nodes, once ``count`` pods have one."""
    async with asyncio.timeout(300):
        while len(pods := [pod for pod in await space.pods() if pod.spec.node_name]) < count:
            await asyncio.sleep(0.3)
    drivers = {pod.driver_id: pod.spec.node_name for pod in pods if pod.is_driver}
    executors = defaultdict(list)
    for pod in pods:
        if not pod.is_driver:
            executors[pod.driver_id].append(pod.spec.node_name)
    return [(drivers[driver_id], sorted(executors[driver_id])) for driver_id in drivers]


async def test_executors_land_beside_their_own_driver(space, running, zones):
    first, *_, last = sorted(zones)
    names = [await running.acquire(pod=pinned(node)) for node in (first, last)]
    assert sorted(await placed(space, 6)) == [(first, [first, first]), (last, [last, last])]
    for name in names:
        await running.until(name, pb.LEASE_STATE_READY)
        await running.release(name)
    for name in names:
        await running.until_ended(name)
    await running.until_free(space)


@pytest.mark.long
async def test_when_its_node_is_full_they_stay_in_its_zone(space, running, zones):
    crowded = max(set(zones.values()), key=list(zones.values()).count)
    node, *_ = sorted(name for name, zone in zones.items() if zone == crowded)
    cpu = (await space.get(f"/api/v1/nodes/{node}"))["status"]["allocatable"]["cpu"]
    half = int(cpu) * 600  # thousandths: one fits beside the driver, two don't
    name = await running.acquire(pod=pinned(node, executor_cpu_request=f"{half}m"))
    ((own, executors),) = await placed(space, 3)
    assert own == node
    assert node in executors
    assert len(set(executors)) == 2
    assert {zones[executor] for executor in executors} == {crowded}
    await running.release(name)
    await running.until_ended(name)
    await running.until_free(space)


@pytest.mark.long
async def test_one_zone_is_a_condition(space, running, zones):
    lonely = min(set(zones.values()), key=list(zones.values()).count)
    node, *_ = [name for name, zone in zones.items() if zone == lonely]
    cpu = (await space.get(f"/api/v1/nodes/{node}"))["status"]["allocatable"]["cpu"]
    name = await running.acquire(pod=pinned(node, executor_cpu_request=f"{int(cpu) * 600}m", one_zone=True))
    ((own, executors),) = await placed(space, 2)
    assert (own, executors) == (node, [node])
    await running.until(name, pb.LEASE_STATE_READY)
    lease = pb.Lease()
    async with asyncio.timeout(120):
        while "1 of 2 executors run" not in lease.message:
            await asyncio.sleep(0.3)
            lease = await running.get(name)
    assert "didn't match pod affinity rules" in lease.message
    await running.release(name)
    await running.until_ended(name)
    await running.until_free(space)
