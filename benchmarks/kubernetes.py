"""1,000 leases of three pods each on a real API server: calls of its API, the broker's CPU and memory, reconnects of its watch.

Nodes are kwok's: their pods say that they run, and there is no Spark in them. This program plays the rest: a Connect server
that answers for all drivers, and Spark's scheduler, which makes two executors for each, from the template that the broker
has given to it. API server, scheduler and controllers are real, on the cluster of `make cluster`, or of KUBECONFIG where that
has a kwok of its own on PATH and this machine an address that the broker reaches (--address).

    python benchmarks/kubernetes.py [--quick] [--leases 1000]
"""

import argparse
import asyncio
import base64
import copy
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

sys.path.pop(0)  # this file's own folder: this file has the name of a package
sys.path.append(str(Path(__file__).parents[1]))

import grpc.aio
import msgspec

from benchmarks.servers import Broker, broker, cpu_seconds, load, resident_bytes, row, temporary_folder
from sparkbroker.broker.adapters.kubernetes_provisioner._api import Api
from sparkbroker.broker.adapters.kubernetes_provisioner._cluster import Expired
from sparkbroker.broker.adapters.kubernetes_provisioner._errors import ApiFailed
from sparkbroker.broker.adapters.kubernetes_provisioner._names import ROLE
from sparkbroker.broker.adapters.kubernetes_provisioner._pods import Pod
from sparkbroker.broker.adapters.system_clock import SystemClock
from sparkbroker.v1 import broker_pb2 as pb
from sparkbroker.v1 import broker_pb2_grpc
from tests.kubernetes.small_api import connect_server
from tests.kubernetes.space import ADMIN, Space
from tools.cluster.layout import BIN, HOST, KUBECONFIG

T = TypeVar("T")
EXECUTORS = 2
NODE_PODS = 100
AT_ONCE = 32
SCHEDULERS = 16
PATIENCE = 1800
NAMESPACE = f"kwok-bench-{os.getpid()}"
PROFILE = """
[capacity.cluster]
cpu = 100000
memory = "1000t"
[queues.default]
[profiles.pods]
provisioner = "kubernetes"
pool = "cluster"
start_timeout = "20m"
driver = {{ cores = 1, memory = "600m" }}
executors = {{ cores = 1, memory = "512m", min_count = {executors}, max_count = {executors} }}
[profiles.pods.pod]
image = "sparkbroker.test/none:1"
namespace = "{namespace}"
service_account = "driver"
executor_service_account = "executor"
driver_cpu_request = "100m"
executor_cpu_request = "100m"
node_selector = {{ "kwok.x-k8s.io/bench" = "true" }}
tolerations = [{{ key = "kwok.x-k8s.io/bench", operator = "Exists" }}]
"""
LEASES = """
default_profile = "pods"
wait_ttl = "1h"
unattended_ttl = "1h"
"""
NODES_STAGE = """
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: node}
spec:
  resourceRef: {apiGroup: v1, kind: Node}
  selector:
    matchExpressions: [{key: '.status.phase', operator: NotIn, values: [Running]}]
  next:
    statusTemplate: |
      conditions:
      {{ range NodeConditions }}
      - {lastHeartbeatTime: {{ Now | Quote }}, lastTransitionTime: {{ Now | Quote }}, message: {{ .message | Quote }},
         reason: {{ .reason | Quote }}, status: {{ .status | Quote }}, type: {{ .type | Quote }}}
      {{ end }}
      addresses: [{address: {{ NodeIP | Quote }}, type: InternalIP}]
      allocatable: {cpu: "64", memory: 256Gi, pods: "110"}
      capacity: {cpu: "64", memory: 256Gi, pods: "110"}
      phase: Running
"""
RUNS_STAGE = """
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-runs}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: '.metadata.deletionTimestamp', operator: DoesNotExist}
    - {key: '.status.phase', operator: In, values: [Pending]}
  next:
    statusTemplate: |
      conditions:
      - {lastTransitionTime: {{ Now | Quote }}, status: "True", type: Initialized}
      - {lastTransitionTime: {{ Now | Quote }}, status: "True", type: Ready}
      - {lastTransitionTime: {{ Now | Quote }}, status: "True", type: ContainersReady}
      containerStatuses:
      {{ range .spec.containers }}
      - {image: {{ .image | Quote }}, imageID: "", name: {{ .name | Quote }}, ready: true, restartCount: 0,
         state: {running: {startedAt: {{ Now | Quote }}}}}
      {{ end }}
      podIP: ADDRESS
      podIPs: [{ip: ADDRESS}]
      phase: Running
      startTime: {{ Now | Quote }}
"""
GOES_STAGE = """
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-goes}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions: [{key: '.metadata.deletionTimestamp', operator: Exists}]
  next: {finalizers: {empty: true}, delete: true}
"""


# ---- what isn't there: nodes, drivers, Spark's scheduler


def own_kwok() -> str:
    """Compiled the first time."""
    subprocess.run([sys.executable, "-m", "tools.cluster", "build", "kwok"], check=True, cwd=Path(__file__).parents[1])
    return str(BIN / "kwok")


@contextmanager
def kwok(folder: Path, address: str) -> Iterator[None]:
    """The kubelets of our nodes, and of no others."""
    stages = folder / "stages.yaml"
    stages.write_text("---".join([NODES_STAGE, RUNS_STAGE.replace("ADDRESS", address), GOES_STAGE]))
    program = shutil.which("kwok") or own_kwok()
    words = [
        program, f"--kubeconfig={os.environ['KUBECONFIG']}", f"--config={stages}",
        "--manage-all-nodes=false", "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/bench=true",
        f"--node-ip={address}", "--node-lease-duration-seconds=40",
    ]  # fmt: skip
    with (folder / "kwok.log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def node(number: int) -> dict[str, Any]:
    mark = {"kwok.x-k8s.io/bench": "true"}
    name = f"kwok-{number}"
    where = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": f"kwok-zone-{number % 3}"}
    return {
        "metadata": {"name": name, "annotations": mark, "labels": {**mark, **where}},
        "spec": {"taints": [{"key": "kwok.x-k8s.io/bench", "effect": "NoSchedule"}]},
    }


async def play_spark(space: Space, made: "Made") -> None:
    """Executors for each driver that runs, once: from the template in the driver's Secret, as Spark would make them."""
    waiting, seen = asyncio.Queue[Pod](), set[str]()

    async def make() -> None:
        while True:
            driver = await waiting.get()
            if await make_executors(space, driver):
                made.executors += EXECUTORS
            else:
                await asyncio.sleep(0.1)
                waiting.put_nowait(driver)

    async with asyncio.TaskGroup() as group:
        for _ in range(SCHEDULERS):
            group.create_task(make())

        def look(pod: Pod) -> None:
            if pod.status.phase == "Running" and pod.driver_id not in seen:
                seen.add(pod.driver_id)
                waiting.put_nowait(pod)

        version = ""
        while True:
            if not version:
                pods, version = await again(lambda: space.cluster.list_pods(space.name, f"{ROLE}=driver"))
                for pod in pods:
                    look(pod)
            try:
                async for _, pod in space.cluster.watch_pods(space.name, f"{ROLE}=driver", version, lambda: None):
                    version = pod.metadata.resource_version
                    look(pod)
            except Expired:
                version = ""
            except ApiFailed:
                await asyncio.sleep(1)


class Made:
    """How far this program has come."""

    executors = 0


async def again(call: Callable[[], Awaitable[T]]) -> T:
    """A call of the API server's until it answers: it is meant to be busy."""
    while True:
        try:
            return await call()
        except ApiFailed as error:
            if error.code and error.code != HTTPStatus.TOO_MANY_REQUESTS:
                raise
        await asyncio.sleep(1)


async def make_executors(space: Space, driver: Pod) -> bool:
    """Whether that could be done: a real driver waits for its Secret."""
    name = driver.metadata.name
    secret = await found(space, f"{space.path}/secrets/{name}")
    if secret is None:
        return False
    template = msgspec.json.decode(base64.b64decode(secret["data"]["executor.json"]))
    for number in range(1, EXECUTORS + 1):
        pod = copy.deepcopy(template)
        owner = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": driver.metadata.uid, "controller": True}
        pod["metadata"] |= {"name": f"{name}-exec-{number}", "ownerReferences": [owner]}
        sizes = {"cpu": "100m", "memory": "896Mi"}
        pod["spec"]["containers"][0]["resources"] = {"requests": sizes, "limits": {"memory": "896Mi"}}
        pod["spec"]["serviceAccountName"] = "executor"
        await create(space, f"{space.path}/pods", pod)
    return True


async def create(space: Space, path: str, body: dict[str, Any]) -> None:
    """It may be there already: by a try that wasn't answered."""
    try:
        await again(lambda: space.post(path, body))
    except ApiFailed as error:
        if error.code != HTTPStatus.CONFLICT:
            raise


async def found(space: Space, path: str) -> Any:
    """An object; None: there is none."""
    try:
        return await again(lambda: space.get(path))
    except ApiFailed as error:
        if error.code != HTTPStatus.NOT_FOUND:
            raise
        return None


async def each(items: Any, work: Callable[[Any], Awaitable[None]]) -> None:
    """The work for each, some at a time."""
    left = iter(items)

    async def one_after_the_other() -> None:
        for item in left:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(one_after_the_other())


# ---- what is measured


class Scrape:
    """The broker's own metrics, and its process, at one moment."""

    def __init__(self, served: Broker) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{served.metrics_port}/metrics", timeout=30) as answer:
            lines = [line.split(" ") for line in answer.read().decode().splitlines() if line.startswith("sparkbroker_")]
        self._values = {line[0]: float(line[1]) for line in lines}
        self.cpu, self.memory, self.at = cpu_seconds(served.pid), resident_bytes(served.pid), time.perf_counter()

    def leases(self, *states: str) -> int:
        return int(sum(self._values.get(f'sparkbroker_leases{{queue="default",state="{s}"}}', 0) for s in states))

    @property
    def calls(self) -> Counter[str]:
        """How many, by "verb resource"."""
        prefix = "sparkbroker_kubernetes_calls_total{"
        found = Counter[str]()
        for name, value in self._values.items():
            if name.startswith(prefix):
                labels = dict(part.split("=") for part in name.removeprefix(prefix).rstrip("}").split(","))
                found[" ".join(labels[key].strip('"') for key in ("verb", "resource"))] = int(value)
        return found


async def until(what: str, served: Broker, reached: Callable[[Scrape], bool]) -> Scrape:
    deadline = time.perf_counter() + PATIENCE
    while not reached(seen := await asyncio.to_thread(Scrape, served)):
        if time.perf_counter() > deadline:
            raise SystemExit(f"waited too long until {what}")
        await asyncio.sleep(0.5)
    return seen


async def until_running(space: Space, made: Made, count: int) -> None:
    """All executors, as the API server has it."""
    deadline = time.perf_counter() + PATIENCE
    running = 0
    while running < count:
        if time.perf_counter() > deadline:
            raise SystemExit(f"waited too long until {count} executors run: {made.executors} are made")
        await asyncio.sleep(2)
        if made.executors == count:
            pods, _ = await again(lambda: space.cluster.list_pods(space.name, f"{ROLE}=executor"))
            running = sum(pod.status.phase == "Running" for pod in pods)


async def measure(served: Broker, space: Space, made: Made, count: int, hold: float) -> None:
    metadata = tuple(served.headers.items())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        stub = broker_pb2_grpc.BrokerServiceStub(channel)
        names = list[str]()

        async def acquire(number: int) -> None:
            spec = pb.LeaseSpec(mode=pb.LEASE_MODE_CONNECT)
            request = pb.AcquireLeaseRequest(request_id=f"00000000-0000-4000-8000-{number:012d}", spec=spec)
            names.append((await stub.AcquireLease(request, metadata=metadata)).lease.name)

        async def release(name: str) -> None:
            await stub.ReleaseLease(pb.ReleaseLeaseRequest(name=name), metadata=metadata)

        zero = Scrape(served)
        await each(range(count), acquire)
        ready = await until("all are ready", served, lambda seen: seen.leases("READY") == count)
        await until_running(space, made, count * EXECUTORS)
        await asyncio.sleep(5)
        full = Scrape(served)
        await asyncio.sleep(hold)
        held = Scrape(served)
        await each(names, release)
        free = await until(
            "all are gone", served, lambda seen: not seen.leases("QUEUED", "PROVISIONING", "READY", "RELEASING")
        )
    tell(count, zero, ready, full, held, free)


def tell(count: int, zero: Scrape, ready: Scrape, full: Scrape, held: Scrape, free: Scrape) -> None:
    made = free.calls - zero.calls
    watches = free.calls["watch pods"]
    del made["watch pods"]
    what = f"{count:,} leases of {1 + EXECUTORS} pods"
    row(f"{what}: API calls of each", f"{made.total() / count:.1f}", "none", "", "none")
    row(f"{what}: all ready after", f"{ready.at - zero.at:.0f} s", "none", "", "none")
    row(f"{what}: all gone after", f"{free.at - held.at:.0f} s", "none", "", "none")
    cpu = (full.cpu - zero.cpu) / count, (free.cpu - held.cpu) / count
    row(
        f"{what}: broker's CPU for each",
        f"{cpu[0] * 1e3:.0f} ms to start, {cpu[1] * 1e3:.0f} ms to end",
        "none",
        "",
        "none",
    )
    idle = (held.cpu - full.cpu) / (held.at - full.at)
    row(f"{what}: broker's CPU while they are held", f"{idle:.1%}", "none", "", "none")
    memory = held.memory / 2**20, zero.memory / 2**20
    row(f"{what}: broker's memory", f"{memory[0]:.0f} MiB ({memory[1]:.0f} MiB before)", "none", "", "none")
    row(f"{what}: watches opened, in {free.at - zero.at:.0f} s", str(watches), "none", "", "none")
    print("calls by kind:", ", ".join(f"{name} {number}" for name, number in made.most_common()))


# ---- the whole


@asynccontextmanager
async def fake_cluster(folder: Path, address: str, nodes: int) -> AsyncIterator[tuple[Space, Made]]:
    """A namespace, nodes that can run its pods, and what plays Spark in them; all of it removed at the end."""
    api = await Api.connect(SystemClock(), rate=2000, burst=2000)
    space, made = Space(api, NAMESPACE), Made()
    try:
        await space.post("/api/v1/namespaces", {"metadata": {"name": space.name}})
        await space.give_rights()
        with kwok(folder, address):
            await each(range(nodes), lambda number: create(space, "/api/v1/nodes", node(number)))
            try:
                async with connect_server(address), asyncio.TaskGroup() as group:
                    playing = group.create_task(play_spark(space, made))
                    try:
                        yield space, made
                    finally:
                        playing.cancel()
            finally:
                await space.delete(f"/api/v1/namespaces/{space.name}")
                await gone(space)
    finally:
        query = [("labelSelector", "kwok.x-k8s.io/bench=true")]
        await api.call(ADMIN, "DELETE", "/api/v1/nodes", query=query)
        await api.close()


async def gone(space: Space) -> None:
    """The namespace, while its nodes still confirm their pods' end."""
    for _ in range(600):
        if await found(space, f"/api/v1/namespaces/{space.name}") is None:
            return
        await asyncio.sleep(0.5)
    raise SystemExit(f"namespace {space.name} doesn't go")


async def run(folder: Path, address: str, count: int, hold: float) -> None:
    nodes = -(-count * (1 + EXECUTORS) // NODE_PODS) + 5
    profile = PROFILE.format(namespace=NAMESPACE, executors=EXECUTORS)
    async with fake_cluster(folder, address, nodes) as (space, made):
        own = folder / "broker.kubeconfig"
        await space.kubeconfig("broker", own)
        with broker(
            folder, leases=LEASES, rest=profile, env={"KUBECONFIG": str(own)}, log_file=folder / "broker.log"
        ) as served:
            await until("it serves", served, lambda _: True)
            await measure(served, space, made, count, hold)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="50 leases")
    parser.add_argument("--leases", type=int, default=1000)
    parser.add_argument("--address", default=HOST, help="of this machine, where the broker finds the drivers")
    arguments = parser.parse_args()
    if not os.environ.get("KUBECONFIG") and not KUBECONFIG.exists():
        raise SystemExit("no cluster: `make cluster` starts one, or set KUBECONFIG")
    os.environ.setdefault("KUBECONFIG", str(KUBECONFIG))
    count, hold = (50, 5.0) if arguments.quick else (arguments.leases, 60.0)
    with temporary_folder() as folder:
        asyncio.run(run(folder, arguments.address, count, hold))
    print(load())


if __name__ == "__main__":
    main()
