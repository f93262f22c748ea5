"""The whole life of leases on a real cluster: a real broker, its client, Spark in pods, and nothing left."""

import asyncio

import pytest

from sparkbroker.broker.domain.asking.pod_sizing import Role
from sparkbroker.v1 import broker_pb2 as pb
from tests.kubernetes.broker import broker

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]


@pytest.fixture
async def running(space, tmp_path):
    async with broker(tmp_path, space) as made:
        yield made


def compute(spark):
    """A query whose Python runs on two executors: {host: sum of its part}."""
    from pyspark.sql.functions import udf

    @udf("string")
    def where(_number):
        import socket

        return socket.gethostname()

    rows = spark.range(0, 1000, 1, 8).select("id", where("id").alias("host")).groupBy("host").sum("id").collect()
    return {row["host"]: row["sum(id)"] for row in rows}


async def test_a_python_udf_on_two_executors_and_nothing_left(space, running, tmp_path):
    name = await running.ready()
    lease = await running.get(name)
    timings = [(field.name, getattr(lease.timings, field.name)) for field in lease.timings.DESCRIPTOR.fields]
    told = {name: moment.ToNanoseconds() for name, moment in timings if lease.timings.HasField(name)}
    assert {"pod_scheduled_time", "process_started_time", "ready_time"} <= told.keys()
    assert list(told.values()) == sorted(told.values()), told
    async with asyncio.timeout(120):
        while (await running.get(name)).message != "the session can be opened":
            await asyncio.sleep(0.2)
    pods = await space.pods()
    executors = {pod.metadata.name for pod in pods if not pod.is_driver}
    assert len(executors) == 2
    seen = (await running.get(name)).executors
    assert (seen.wanted, seen.running, seen.pending, seen.message) == (2, 2, 0, "")
    # What is charged is what the pods take, to the byte.
    assert sum(pod.takes["cpu"] for pod in pods) == lease.charge["cpu"]
    assert sum(pod.takes["memory"] for pod in pods) == lease.charge["memory"]

    def use(client):
        with client.open(name) as opened:
            opened.attach()
            with opened.session(api="connect") as spark:
                found = compute(spark)
            token = opened.connection().headers["authorization"].removeprefix("Bearer ")
        return found, token, b"".join(client.logs(name))

    found, token, log = await running.ask(use)
    assert sum(found.values()) == sum(range(1000))
    assert set(found) == executors
    lease = await running.until_ended(name)
    assert lease.state == pb.LEASE_STATE_RELEASED, lease.message
    await running.until_free(space)
    # The log outlives its pod; the token is in neither, nor in what the broker has written.
    saved = await running.ask(lambda client: b"".join(client.logs(name)))
    assert saved[: len(log)] == log
    assert b"Spark Connect server started" in saved
    for text in (saved, running.log.read_bytes(), *(path.read_bytes() for path in (tmp_path / "state").glob("*.db*"))):
        assert token.encode() not in text


async def test_a_driver_without_executors(space, running):
    def use(client):
        with client.session(api="connect", executors=0) as spark:
            return spark.range(10).count()

    assert await running.ask(use) == 10
    await running.until_free(space)


@pytest.mark.long
async def test_executors_that_find_no_place_are_told(space, running):
    name = await running.acquire(pod={"executor_cpu_request": "3"})
    lease = await running.until(name, pb.LEASE_STATE_READY)
    async with asyncio.timeout(120):
        while "2 are pending" not in lease.message:
            await asyncio.sleep(0.2)
            lease = await running.get(name)
    assert "0 of 2 executors run" in lease.message
    assert "Insufficient cpu" in lease.message
    seen = lease.executors
    assert (seen.wanted, seen.running, seen.pending) == (2, 0, 2)
    assert "Insufficient cpu" in seen.message
    listed = await running.ask(lambda client: client.list())
    assert [each.executors for each in listed] == [seen]
    await running.release(name)
    await running.until_ended(name)
    await running.until_free(space)


async def test_pods_are_as_restricted_and_small_as_they_should_be(space, running):
    """The namespace enforces the standard ``restricted``: that they exist proves most of it."""
    name = await running.ready()
    async with asyncio.timeout(120):
        while len(pods := (await space.get(f"{space.path}/pods"))["items"]) < 3:
            await asyncio.sleep(0.2)
    for pod in pods:
        role = pod["metadata"]["labels"]["sparkbroker.io/role"]
        assert pod["spec"]["serviceAccountName"] == role
        volumes = pod["spec"].get("volumes", [])
        mounted = any("projected" in volume for volume in volumes)
        assert mounted == (role == Role.DRIVER), volumes
        if role == Role.EXECUTOR:
            assert pod["spec"]["terminationGracePeriodSeconds"] == 5
            (owner,) = pod["metadata"]["ownerReferences"]
            assert owner["name"] == f"sparkbroker-{pod['metadata']['labels']['sparkbroker.io/driver']}"
            assert not any("secret" in volume for volume in volumes)
            assert all(
                "valueFrom" not in item or "secretKeyRef" not in item["valueFrom"]
                for container in pod["spec"]["containers"]
                for item in container.get("env", ())
            )
    await running.release(name)
    await running.until_ended(name)
    await running.until_free(space)


@pytest.mark.promise(4)
@pytest.mark.long
async def test_sessions_survive_a_restart_of_the_broker(space, running):
    def use(client):
        with client.session(api="connect", executors=1) as spark:
            before = spark.range(10).count()
            running.kill()
            during = spark.range(20).count()
            running.start()
            return before, during, spark.range(30).count()

    assert await running.ask(use) == (10, 20, 30)
    await running.until_free(space)


@pytest.mark.long
async def test_spark_s_own_ports_ask_for_a_secret_where_the_profile_says_so(space, tmp_path):
    """What an executor needs of it Spark gives it itself."""
    conf = '{ "spark.authenticate" = "true", "spark.network.crypto.enabled" = "true" }'

    def use(client):
        with client.session(api="connect", executors=2) as spark:
            found = compute(spark)
            (lease,) = client.list("live=true")
            return found, b"".join(client.logs(lease.name))

    async with broker(tmp_path, space, conf=conf) as running:
        found, log = await running.ask(use)
        await running.until_free(space)
    assert sum(found.values()) == sum(range(1000))
    assert b"authentication enabled" in log
