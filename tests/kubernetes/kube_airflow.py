"""The Airflow of examples/kubernetes/airflow.yaml in a test's namespace: KubernetesExecutor, and workers without any rights."""

import asyncio
import base64
import json
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]

from sparkbroker.broker.adapters.kubernetes_provisioner._errors import ApiFailed
from tests.airflow.control import RestControl
from tests.kubernetes.space import ADMIN, Space

ROOT: Final = Path(__file__).parents[2]
MANIFEST: Final = ROOT / "examples" / "kubernetes" / "airflow.yaml"
IMAGE: Final = "sparkbroker.test/airflow:1"
"""The manifest's."""
PRINCIPAL: Final = "airflow"
"""As whom the manifest's workers ask."""
ENDED: Final = ("success", "failed", "upstream_failed", "skipped", "removed")
_PLURAL: Final = {
    "ConfigMap": "configmaps", "PersistentVolumeClaim": "persistentvolumeclaims", "ServiceAccount": "serviceaccounts",
    "Role": "roles", "RoleBinding": "rolebindings", "Service": "services", "Deployment": "deployments",
    "Secret": "secrets",
}  # fmt: skip


class KubeAirflow:
    """``<KubeAirflow test-1234>``. Its API server is called at its pod's address."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._control: RestControl | None = None
        self._pod = ""

    def __repr__(self) -> str:
        return f"<KubeAirflow {self.space.name}>"

    async def start(self, connection: Mapping[str, Any], dags: Iterable[Path]) -> None:
        """Make all of it, and wait until its DAGs can be triggered."""
        files = {path.name: path.read_text() for path in dags}
        await self._make("ConfigMap", "dags", data=files | {".airflowignore": "..*\n"})
        await self._make("Secret", "airflow", stringData={
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32), "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
            "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        })  # fmt: skip
        given = {"AIRFLOW_CONN_SPARKBROKER_DEFAULT": json.dumps({"conn_type": "sparkbroker", **connection})}
        await self._make("Secret", "sparkbroker", stringData=given)
        for document in yaml.safe_load_all(MANIFEST.read_text()):
            await self._post(document)
        await self.until_serving({Path(name).stem for name in files})

    async def _make(self, kind: str, name: str, **more: Any) -> None:
        await self._post({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **more})

    async def _post(self, document: dict[str, Any]) -> None:
        version = document["apiVersion"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        await self.space.post(f"{root}/namespaces/{self.space.name}/{_PLURAL[document['kind']]}", document)

    async def until_serving(self, dags: set[str], seconds: float = 300.0) -> None:
        """Wait until these can be triggered."""
        try:
            async with asyncio.timeout(seconds):
                while not self._control:
                    await asyncio.sleep(0.5)
                    for pod in await self.space.pods():
                        if pod.metadata.labels.get("app") == "airflow" and pod.status.pod_ip:
                            self._pod = pod.metadata.name
                            self._control = RestControl(8080, pod.status.pod_ip)
                while not dags <= await self.ask("dags"):
                    await asyncio.sleep(0.5)
        except TimeoutError:
            raise AssertionError(f"Airflow doesn't serve {sorted(dags)}\n{await self.said()}") from None

    async def ask(self, method: str, *args: Any) -> Any:
        """What RestControl answers."""
        assert self._control is not None
        return await asyncio.to_thread(getattr(self._control, method), *args)

    async def said(self) -> str:
        """The ends of its components' logs."""
        found = []
        for container in ("migrate", "api-server", "scheduler", "dag-processor", "triggerer"):
            path = f"{self.space.path}/pods/{self._pod}/log"
            try:
                query = [("container", container), ("tailLines", "40")]
                log = (await self.space.api.call(ADMIN, "GET", path, query=query)).decode(errors="replace")
            except ApiFailed as error:
                log = str(error)
            found.append(f"== {container}\n{log}")
        return "\n".join(found)

    async def trigger(self, dag: str) -> str:
        """A new run's name."""
        run = f"run-{secrets.token_hex(3)}"
        await self.ask("trigger", dag, run, {})
        return run

    async def states(self, dag: str, run: str) -> dict[str, str]:
        return {task["task_id"]: task["state"] for task in await self.ask("tasks", dag, run)}

    async def until_ended(self, dag: str, run: str, seconds: float = 400.0) -> dict[str, str]:
        """Each task's state when all have ended."""
        states: dict[str, str] = {}
        try:
            async with asyncio.timeout(seconds):
                while not states or any(state not in ENDED for state in states.values()):
                    await asyncio.sleep(0.5)
                    states = await self.states(dag, run)
        except TimeoutError:
            raise AssertionError(f"{dag} hasn't ended: {states}\n{await self.said()}") from None
        return states

    async def log(self, dag: str, run: str, task: str) -> str:
        """Of its first try, as the browser shows it."""
        return str(await self.ask("log", dag, run, task))

    async def xcom(self, dag: str, run: str, task: str) -> Any:
        return await self.ask("xcom", dag, run, task)

    async def worker(self, task: str, seconds: float = 240.0) -> dict[str, Any]:
        """The pod of a task, once it runs."""
        async with asyncio.timeout(seconds):
            while True:
                for pod in (await self.space.get(f"{self.space.path}/pods"))["items"]:
                    if pod["metadata"].get("labels", {}).get("task_id") == task and pod["status"]["phase"] == "Running":
                        return dict(pod)
                await asyncio.sleep(0.2)
