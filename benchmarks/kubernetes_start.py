"""On Kubernetes: from asking to READY and to the first query's result on one executor, and from giving back to free capacity.

The peer is a plain ``spark-submit`` driver pod of the same image and sizes: what the driver container of Spark's cluster mode
runs, without the class archives of the image; the ``spark-submit`` before it, which makes the pod, isn't counted. Both are
probed and queried alike, in turns. Needs the cluster of KUBECONFIG (``make cluster``), with the image present on its nodes.

    python benchmarks/kubernetes_start.py [--quick] [--rounds 5]
"""

import argparse
import asyncio
import statistics
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from servers import load, row, spread, temporary_folder

sys.path.append(str(Path(__file__).parents[1]))

from sparkbroker.broker.adapters import spark_connect
from sparkbroker.broker.adapters.local_provisioner._conf import MAIN_CLASS
from sparkbroker.client import ConnectConnection
from sparkbroker.client._session import open_session
from tests.kubernetes.broker import KubeBroker, broker
from tests.kubernetes.space import IMAGE, Space, space

TOKEN: Final = "b" * 40
PORT: Final = 15002
LIMIT: Final = 240.0
SIZES: Final[dict[str, Any]] = {
    "cores": 1, "memory": "600m", "executors": 1, "executor_cores": 1, "executor_memory": "512m",
}  # fmt: skip
DRIVER_MEMORY: Final = "984Mi"
"""Of the driver's pod: heap and Spark's overhead, as a lease of ``SIZES`` has it."""
SECURITY: Final = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
POD_SECURITY: Final = {"runAsNonRoot": True, "runAsUser": 185, "seccompProfile": {"type": "RuntimeDefault"}}
SUBMIT: Final = """set -eu
default=$(ls "$(dirname "$(readlink -f "$(command -v java)")")"/../lib/server/classes.jsa)
exec /opt/entrypoint.sh driver --master "k8s://https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT" \
  --driver-memory 600m --conf spark.driver.host="$POD_IP" --conf spark.kubernetes.driver.pod.name="$POD_NAME" \
  --conf spark.executor.instances=1 --conf spark.executor.cores=1 --conf spark.executor.memory=512m \
  --conf spark.kubernetes.executor.request.cores=100m --conf spark.kubernetes.namespace="$POD_NAMESPACE" \
  --conf spark.kubernetes.container.image="$IMAGE" --conf spark.kubernetes.executor.podTemplateFile=/given/executor.json \
  --conf spark.kubernetes.executor.podTemplateContainerName=executor --conf spark.kubernetes.executor.disableConfigMap=true \
  --conf spark.kubernetes.authenticate.executor.serviceAccountName=executor --conf spark.ui.enabled=false \
  --conf spark.executor.extraJavaOptions="-XX:SharedArchiveFile=$default" \
  --conf spark.connect.grpc.binding.address=0.0.0.0 --class {main} spark-internal
""".replace("{main}", MAIN_CLASS)  # fmt: skip
TEMPLATE: Final = """{"spec": {"automountServiceAccountToken": false,
 "securityContext": {"runAsNonRoot": true, "runAsUser": 185, "seccompProfile": {"type": "RuntimeDefault"}},
 "containers": [{"name": "executor", "imagePullPolicy": "IfNotPresent",
  "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}}"""


def submitted(name: str) -> dict[str, Any]:
    """The peer's pod."""
    fields = {"POD_IP": "status.podIP", "POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace"}
    env: list[dict[str, Any]] = [
        {"name": variable, "valueFrom": {"fieldRef": {"fieldPath": path}}} for variable, path in fields.items()
    ]
    env += [{"name": "SPARK_CONNECT_AUTHENTICATE_TOKEN", "value": TOKEN}, {"name": "IMAGE", "value": IMAGE}]
    env += [{"name": "SPARK_DRIVER_BIND_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    container = {
        "name": "driver", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "env": env,
        "command": ["bash", "-c", SUBMIT], "securityContext": SECURITY,
        "resources": {"requests": {"cpu": "100m", "memory": DRIVER_MEMORY}, "limits": {"memory": DRIVER_MEMORY}},
        "volumeMounts": [{"name": "given", "mountPath": "/given"}],
    }  # fmt: skip
    return {
        "metadata": {"name": name},
        "spec": {
            "serviceAccountName": "driver", "restartPolicy": "Never", "securityContext": POD_SECURITY,
            "containers": [container], "volumes": [{"name": "given", "configMap": {"name": "given"}}],
            "terminationGracePeriodSeconds": 2,
        },
    }  # fmt: skip


def first_result(connection: ConnectConnection) -> None:
    """A query that needs an executor."""
    with closing(open_session(connection, api="connect", app_name="bench")) as session:
        total = session.spark.range(1000).selectExpr("sum(id) AS s").first().s
        assert total == 499500


async def peer(space: Space) -> tuple[float, float]:
    """Seconds until a Connect call succeeds, and until the first query's result. All is gone when this returns."""
    name = f"submitted-{uuid.uuid4().hex[:6]}"
    begun = time.perf_counter()
    await space.post(f"{space.path}/pods", submitted(name))
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with asyncio.timeout(LIMIT):
        while not (address := (await space.get(f"{space.path}/pods/{name}"))["status"].get("podIP")):  # noqa: ASYNC110  as who has no watch
            await asyncio.sleep(0.05)
        server = spark_connect.Server(target=f"{address}:{PORT}", headers=headers, user_id="bench")
        while True:
            try:
                _, writer = await asyncio.open_connection(address, PORT)
                writer.close()
                await spark_connect.probe(server, 30)
                break
            except (OSError, spark_connect.ConnectCallFailed):
                await asyncio.sleep(0.01)
    ready = time.perf_counter() - begun
    connection = ConnectConnection(
        endpoint=f"sc://{address}:{PORT}/", session_id=str(uuid.uuid4()), user_id="bench", headers=headers
    )
    await asyncio.to_thread(first_result, connection)
    result = time.perf_counter() - begun
    await space.delete(f"{space.path}/pods/{name}")
    await until_gone(space)
    return ready, result


async def until_gone(space: Space) -> None:
    async with asyncio.timeout(LIMIT):
        while await space.pods():  # noqa: ASYNC110  as above
            await asyncio.sleep(0.2)


async def ours(space: Space, served: KubeBroker) -> tuple[float, float, float]:
    """Seconds from asking until READY, until the first query's result, and from giving back until nothing is charged."""

    def lease() -> tuple[float, float, float]:
        with served.client() as client:
            begun = time.perf_counter()
            with client.lease(**SIZES) as lease:
                ready = time.perf_counter() - begun
                connection = lease.connection()
                assert isinstance(connection, ConnectConnection)
                first_result(connection)
                result = time.perf_counter() - begun
            given_back = time.perf_counter()
            while any(queue.used.get("cpu") for queue in client.queues()):
                time.sleep(0.02)
            return ready, result, time.perf_counter() - given_back

    seconds = await asyncio.to_thread(lease)
    await until_gone(space)
    return seconds


async def measure(folder: Path, rounds: int) -> list[tuple[float, float, float, float, float]]:
    """(ready, result, free, the peer's ready, the peer's result) of each round; one more before them warms both sides up."""
    results = []
    async with space() as made:
        await made.post(f"{made.path}/configmaps", {"metadata": {"name": "given"}, "data": {"executor.json": TEMPLATE}})
        async with broker(folder, made) as served:
            for number in range(rounds + 1):
                other = await peer(made)
                own = await ours(made, served)
                if number:
                    results.append((*own, *other))
                    ready, result, free = own
                    print(f"broker {ready:.2f} s, result {result:.2f} s, free after {free:.2f} s; "
                          f"spark-submit {other[0]:.2f} s, result {other[1]:.2f} s", flush=True)  # fmt: skip
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with temporary_folder() as folder:
        results = asyncio.run(measure(folder, 1 if arguments.quick else arguments.rounds))
    middle: Callable[[int], float] = lambda column: statistics.median(line[column] for line in results)  # noqa: E731
    ready = spread([line[0] / line[3] for line in results])
    result = spread([line[1] / line[4] for line in results])
    row(
        "Kubernetes: ask to READY",
        f"{middle(0):.2f} s",
        f"spark-submit's driver pod {middle(3):.2f} s",
        ready,
        "<= 0.55",
    )
    row(
        "Kubernetes: … to the first result", f"{middle(1):.2f} s", f"spark-submit's {middle(4):.2f} s", result, "<= 0.6"
    )
    row("Kubernetes: given back to free, p50", f"{middle(2):.2f} s", "none", "", "<= 3 s")
    print(load())


if __name__ == "__main__":
    main()
