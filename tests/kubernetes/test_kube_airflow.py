"""Airflow with KubernetesExecutor on a real cluster: leases of its tasks, the worker's own pod as a driver, killed workers."""

import asyncio
from pathlib import Path

import pytest
import pytest_asyncio

from sparkbroker.v1 import broker_pb2 as pb
from tests.kubernetes.broker import broker
from tests.kubernetes.holder import MODES, check_door_needs, door
from tests.kubernetes.kube_airflow import IMAGE, PRINCIPAL, ROOT, KubeAirflow
from tests.kubernetes.space import check_image, check_needs
from tests.kubernetes.space import space as new_space

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="module"),
]
DAGS = (
    ROOT / "examples" / "kubernetes" / "dags" / "spark_on_kubernetes.py",
    ROOT / "examples" / "airflow" / "from_pyspark_on_k8s.py",
    Path(__file__).parent / "airflow_dags" / "killed.py",
)


class Running:
    """A broker, an Airflow, and their namespace. ``own`` is what is there without any lease."""

    def __init__(self, space, broker, airflow, own):
        self.space = space
        self.broker = broker
        self.airflow = airflow
        self._own = own

    async def leases(self, task):
        """Those of a task of this name, newest first."""
        found = await self.broker.ask(lambda client: list(client.list(f"labels.airflow_task_id={task}")))
        return list(found)

    async def ended(self, task):
        """The same, once each is confirmed to have ended, which is after the task."""
        return [await self.broker.until_ended(lease.name) for lease in await self.leases(task)]

    async def until_nothing_is_left(self):
        """Neither of leases nor of workers."""
        async with asyncio.timeout(180):
            while await self.broker.used() or await self.space.left() != self._own:
                await asyncio.sleep(0.3)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(need, tmp_path_factory):
    check_needs(need)
    check_door_needs(need)
    folder = tmp_path_factory.mktemp("airflow")
    async with new_space() as space:
        await check_image(need, space, IMAGE)
        await space.give_client_rights()
        entry = await door(folder, space)
        token = entry.new_token(PRINCIPAL)
        pod = {"driver_cpu_request": "1", "python_version": "3.11"}
        async with broker(folder, space, pod=pod, modes=MODES, server=entry.server) as made:
            airflow = KubeAirflow(space)
            connection = {
                "password": token,
                "extra": {"url": entry.url, "ca_certificate": entry.certificate.read_text()},
            }
            await airflow.start(connection, DAGS)
            yield Running(space, made, airflow, await space.left())


async def test_a_dag_leases_computes_and_gives_back(running):
    """One task with a driver of the broker's, one whose worker is the driver, of its size, with the classic API."""
    airflow, dag = running.airflow, "spark_on_kubernetes"
    run = await airflow.trigger(dag)
    worker = await airflow.worker("classic")
    (container,) = worker["spec"]["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "1", "memory": "1496Mi"},  # 600 of heap, 384 beside it, 512 for Airflow
        "limits": {"memory": "1496Mi"},
    }
    assert worker["spec"]["automountServiceAccountToken"] is False
    assert await airflow.until_ended(dag, run) == {"total": "success", "classic": "success"}, await airflow.log(
        dag, run, "classic"
    )
    assert await airflow.xcom(dag, run, "total") == 499500
    assert await airflow.xcom(dag, run, "classic") == {"total": 499500, "squares": 328350, "executors": 2}
    (connect,), (client,) = await running.ended("total"), await running.ended("classic")
    assert (connect.spec.mode, client.spec.mode) == (pb.LEASE_MODE_CONNECT, pb.LEASE_MODE_CLIENT)
    assert client.spec.holder_pod.uid == worker["metadata"]["uid"]
    for lease in (connect, client):
        assert (lease.state, lease.reason) == (pb.LEASE_STATE_RELEASED, pb.LEASE_REASON_RELEASED_BY_HOLDER)
    assert "Running Spark version" in await airflow.log(dag, run, "total")  # its driver's words
    log = await airflow.log(dag, run, "classic")
    assert "Mode CLIENT: the pod of this worker is to be the driver" in log
    assert f"{client.name} is given back" in log
    await running.until_nothing_is_left()


@pytest.mark.long
async def test_a_dag_of_the_predecessors_with_another_import(running):
    """What was client mode there is mode CLIENT here: executors are pods again."""
    airflow, dag = running.airflow, "from_pyspark_on_k8s"
    run = await airflow.trigger(dag)
    assert set((await airflow.until_ended(dag, run)).values()) == {"success"}, await airflow.log(dag, run, "squares")
    assert (await airflow.xcom(dag, run, "count"), await airflow.xcom(dag, run, "squares")) == (100, 14)
    (lease,) = await running.ended("squares")
    assert lease.spec.mode == pb.LEASE_MODE_CLIENT
    await running.until_nothing_is_left()


async def computing(running, dag, *tasks):
    """A new run of it, once each of these tasks computes on an executor; and the newest lease of each."""
    run = await running.airflow.trigger(dag)
    leases = []
    for task in tasks:
        await running.airflow.worker(task)
        async with asyncio.timeout(240):
            while not (found := [lease for lease in await running.leases(task) if lease.executors.running]):
                await asyncio.sleep(0.5)
        leases.append(found[0].name)
    return run, leases


@pytest.mark.long
async def test_a_task_that_a_user_ends_gives_back(running):
    """Its worker is told, has seconds, and uses them: jobs cancelled, lease released, executors gone."""
    airflow, dag = running.airflow, "killed"
    run, leases = await computing(running, dag, "connect", "client")
    for task in ("connect", "client"):
        await airflow.ask("mark", dag, run, task, "failed")
    for name in leases:
        lease = await running.broker.until_ended(name)
        assert (lease.state, lease.reason) == (pb.LEASE_STATE_RELEASED, pb.LEASE_REASON_RELEASED_BY_HOLDER), lease
    await running.until_nothing_is_left()


@pytest.mark.promise(5)
@pytest.mark.long
async def test_a_worker_that_is_killed_in_a_query_leaves_nothing(running):
    """By force: within the second that its processes have, or else by the lease's time to live, or with its pod."""
    airflow, dag = running.airflow, "killed"
    run, leases = await computing(running, dag, "connect", "client")
    for task in ("connect", "client"):
        pod = await airflow.worker(task)
        await running.space.delete(f"{running.space.path}/pods/{pod['metadata']['name']}", 0)
    assert await airflow.until_ended(dag, run) == {"connect": "failed", "client": "failed"}
    connect, client = [await running.broker.until_ended(name) for name in leases]
    assert connect.state in (pb.LEASE_STATE_RELEASED, pb.LEASE_STATE_EXPIRED), connect
    assert client.reason in (pb.LEASE_REASON_RELEASED_BY_HOLDER, pb.LEASE_REASON_DRIVER_LOST), client
    await running.until_nothing_is_left()
