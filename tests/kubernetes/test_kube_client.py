"""Mode CLIENT on a real cluster: a pod of the holder's own is the driver of a classic session, with executors of its lease."""

import asyncio
import contextlib
import getpass

import pytest

from sparkbroker.client import InvalidRequest, SparkbrokerError
from sparkbroker.v1 import broker_pb2 as pb
from tests.kubernetes.broker import broker
from tests.kubernetes.holder import MODES, SIZE, Holder, idle

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

COMPUTE = """
with connect() as broker, broker.lease(**ASK) as lease:
    tell(lease=lease.name)
    with lease.session() as spark:
        spark.range(0, 100, 1, 8).count()
        hosts = {}
        end = time.time() + 120
        while len(hosts) < 2 and time.time() < end:
            hosts = hosts_of(spark)
        tell(hosts=hosts, total=spark.range(1000).selectExpr("sum(id) AS s").first().s, python=spark.sparkContext.pythonExec)
        while STAY:
            time.sleep(1)
tell(done=os.listdir("/tmp"))
"""


@pytest.fixture
async def running(space, tmp_path, entry, policy):
    """Under the chart's admission policy, as it is meant to be used."""
    async with broker(tmp_path, space, modes=MODES, server=entry.server, owner=policy) as made:
        yield made


@contextlib.asynccontextmanager
async def holding(space, entry, program, **options):
    made = Holder(space, entry, program, **options)
    await made.start()
    yield made


async def marks(holder):
    """What the broker has put on the pod."""
    metadata = (await holder.seen())["metadata"]
    found = {*metadata["labels"], *metadata["annotations"]} - {"sparkbroker.io/principal"}
    return {name for name in found if name.startswith("sparkbroker.io/")}


def asks(holder, space, **more):
    """As the holder's program would ask."""
    pod = {"namespace": space.name, "name": holder.name, "uid": holder.uid, **more.pop("holder_pod", {})}
    return {"mode": "CLIENT", "executors": 2, **SIZE, "holder_pod": pod, **more}


@pytest.mark.promise(5)
@pytest.mark.long
async def test_a_pod_computes_on_two_executors_and_nothing_is_left(space, running, entry):
    async with holding(space, entry, "STAY = False\n" + COMPUTE) as holder:
        name = await holder.told("lease")
        hosts = await holder.told("hosts")
        assert len(hosts) == 2
        assert all(host.startswith("sparkbroker-") for host in hosts), hosts
        assert await holder.told("total") == 499500
        lease = await running.until_ended(name)
        assert (lease.state, lease.reason) == (pb.LEASE_STATE_RELEASED, pb.LEASE_REASON_RELEASED_BY_HOLDER), lease
        await running.until_free(space, but=holder.own)
        left = await holder.told("done")
        assert not [entry for entry in left if entry.startswith("sparkbroker-client-")]
        assert not await marks(holder)


@pytest.mark.long
async def test_executors_beside_their_holder_and_a_lost_holder(space, running, entry):
    """By force: its node isn't asked, and no process of it could say goodbye."""
    async with holding(space, entry, "STAY = True\n" + COMPUTE) as holder:
        name = await holder.told("lease")
        await holder.told("hosts")
        metadata = (await holder.seen())["metadata"]
        driver = metadata["labels"]["sparkbroker.io/driver"]
        pods = await space.pods()
        assert len(pods) == 3
        nodes = {pod.spec.node_name for pod in pods}
        assert len(nodes) == 1, "executors aren't beside the holder's pod"
        used = await running.used()
        assert used["cpu"] == 300
        assert used["memory"] == (1280 + 2 * 896) << 20
        assert {f"serviceaccounts/sparkbroker-client-{driver}", f"rolebindings/sparkbroker-client-{driver}"} < set(
            await space.left()
        )
        lease = await running.get(name)
        assert (lease.executors.wanted, lease.executors.running) == (2, 2)
        logs = await running.ask(lambda client: [piece.source for piece in client.all_logs(name)])
        assert set(logs) == {pod.metadata.name for pod in pods if pod.metadata.name != holder.name}
        await holder.remove(0)
        lease = await running.until_ended(name)
        assert (lease.state, lease.reason) == (pb.LEASE_STATE_FAILED, pb.LEASE_REASON_DRIVER_LOST), lease
        assert "the holder's pod is gone" in lease.message
        await running.until_free(space, but=holder.own)


WAITING = """
while True:
    time.sleep(1)
"""


async def until_running(holder):
    async with asyncio.timeout(120):
        while not (await holder.seen())["status"].get("podIP"):
            await asyncio.sleep(0.2)


async def test_pods_that_are_refused(space, running, entry):
    """A wrong uid, somebody else's, another namespace's, a pod that is larger than its lease; nothing is left of any."""
    async with (
        holding(space, entry, WAITING) as holder,
        holding(space, entry, WAITING, annotations={"sparkbroker.io/principal": "somebody"}) as foreign,
        holding(space, entry, WAITING, annotations={}) as silent,
        holding(space, entry, WAITING, resources={"requests": {"cpu": "100m", "memory": "1281Mi"}}) as large,
    ):
        own = {name for each in (holder, foreign, silent, large) for name in each.own}
        uid = "00000000-0000-4000-8000-000000000000"
        for ask, message in (
            (asks(holder, space, holder_pod={"uid": uid}), f"has another uid than {uid}"),
            (asks(holder, space, holder_pod={"name": "nobody"}), "there is no pod 'nobody'"),
            (asks(foreign, space), "is another principal's"),
            (asks(silent, space), "give it the annotation sparkbroker.io/principal"),
            (asks(large, space), "ask for a driver of the pod's size"),
        ):
            lease = await running.until_ended(await running.acquire(**ask))
            assert (lease.state, lease.reason) == (pb.LEASE_STATE_FAILED, pb.LEASE_REASON_MISCONFIGURED), lease
            assert message in lease.message
            await running.until_free(space, but=own)
        with pytest.raises(SparkbrokerError, match="is not a namespace of profile"):
            await running.acquire(**asks(holder, space, holder_pod={"namespace": "kube-system"}))
        with pytest.raises(InvalidRequest, match="SPARKBROKER_POD_NAME"):
            await running.acquire(mode="CLIENT", executors=2)


@pytest.mark.promise(6)
@pytest.mark.long
async def test_a_broker_that_is_killed_and_one_pod_after_the_other(space, running, entry):
    """Killed while it makes a lease and while it ends it: what was made is found, and the pod is its holder's again."""
    async with holding(space, entry, WAITING) as holder:
        await until_running(holder)
        for pause in (0.0, 0.05, 0.1, 0.2):
            name = await running.acquire(**asks(holder, space))
            await asyncio.sleep(pause)
            await asyncio.to_thread(running.kill)
            running.start()
            await running.serving()
            lease = await running.until(name, pb.LEASE_STATE_READY)
            driver = lease.driver.removeprefix("drivers/")
            left = set(await space.left())
            assert {f"serviceaccounts/sparkbroker-client-{driver}", f"rolebindings/sparkbroker-client-{driver}"} < left
            await running.release(name)
            await asyncio.sleep(pause)
            await asyncio.to_thread(running.kill)
            running.start()
            await running.serving()
            assert (await running.until_ended(name)).state == pb.LEASE_STATE_RELEASED
            await running.until_free(space, but=holder.own)
            assert not await marks(holder)


@pytest.mark.promise(2)
async def test_an_attachment_that_is_superseded_has_no_rights_any_more(space, running, entry):
    async with holding(space, entry, WAITING) as holder:
        await until_running(holder)
        name = await running.acquire(**asks(holder, space))
        await running.until(name, pb.LEASE_STATE_READY)

        def attach(client):
            with running.client() as later:
                first = client.open(name).connection()
                lease = later.open(name)
                second = lease.connection()
                lease.detach()  # or the end of this client would release it
                return first, second

        first, second = await running.ask(attach)
        assert first.token not in repr(first)
        assert first.token != second.token
        assert await allowed(space, second.token)
        async with asyncio.timeout(30):  # the API server remembers a token for ten seconds
            while await allowed(space, first.token):
                await asyncio.sleep(0.5)
        await running.release(name)
        await running.until_ended(name)
        await running.until_free(space, but=holder.own)
        async with asyncio.timeout(30):
            while await allowed(space, second.token):
                await asyncio.sleep(0.5)


async def allowed(space, token):
    """Whether this credential lists the namespace's pods."""
    import urllib.error
    import urllib.request

    from tests.kubernetes.space import trusted

    def call():
        request = urllib.request.Request(
            f"{space.server}{space.path}/pods", headers={"Authorization": f"Bearer {token}"}
        )
        try:
            with urllib.request.urlopen(request, context=trusted(space), timeout=20) as answer:
                return answer.status == 200
        except urllib.error.HTTPError as error:
            return error.code not in (401, 403)

    return await asyncio.to_thread(call)


@pytest.mark.long
async def test_a_broker_without_the_rights_for_it(space, tmp_path):
    """It says which one is missing, and other modes work."""
    pod = await idle(space, getpass.getuser())
    async with broker(tmp_path, space, modes=MODES) as running:
        given = {"namespace": pod.namespace, "name": pod.name, "uid": pod.uid}
        lease = await running.until_ended(await running.acquire(mode="CLIENT", executors=1, holder_pod=given, **SIZE))
        assert (lease.state, lease.reason) == (pb.LEASE_STATE_FAILED, pb.LEASE_REASON_MISCONFIGURED), lease
        assert "may not patch pods in namespace" in lease.message
        await running.until_free(space, but=[f"pods/{pod.name}"])
        profiles = await running.ask(lambda client: client.profiles())
        assert "may not list serviceaccounts in namespace" in profiles[0].unusable_message
        name = await running.acquire(executors=0)
        await running.until(name, pb.LEASE_STATE_READY)
        await running.release(name)
        await running.until_ended(name)


@pytest.mark.promise(6)
async def test_an_account_without_a_driver_is_found_and_removed(space, tmp_path, entry):
    """By its label, though no pod and no record leads to it; another broker's stays."""
    pod = await idle(space, entry.principal)
    given = {"namespace": pod.namespace, "name": pod.name, "uid": pod.uid}
    async with broker(tmp_path, space, modes=MODES, server=entry.server) as running:
        name = await running.acquire(mode="CLIENT", executors=1, holder_pod=given, **SIZE)
        await running.until(name, pb.LEASE_STATE_READY)
        owner = (await space.get(f"{space.path}/pods/{pod.name}"))["metadata"]["labels"]["sparkbroker.io/owner"]
        await running.release(name)
        await running.until_ended(name)
        for driver, whose in (("dmine", owner), ("dother", "another")):
            labels = {"sparkbroker.io/owner": whose, "sparkbroker.io/driver": driver}
            labels["app.kubernetes.io/managed-by"] = "sparkbroker"
            account = {"metadata": {"name": f"sparkbroker-client-{driver}", "labels": labels}}
            await space.post(f"{space.path}/serviceaccounts", account)
        await asyncio.to_thread(running.kill)
        running.start()
        await running.serving()
        kept = [f"pods/{pod.name}", "serviceaccounts/sparkbroker-client-dother"]
        async with asyncio.timeout(120):
            while await space.left() != kept:
                await asyncio.sleep(0.3)
        assert not await running.used()
