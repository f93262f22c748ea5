"""A namespace of a test's own on the cluster of KUBECONFIG, with the accounts and rights that Spark needs, and no more.

The admin's credentials are KUBECONFIG's. The image is ``SPARKBROKER_TEST_IMAGE``, by default the one that ``make cluster``
loads.
"""

import asyncio
import importlib.util
import os
import ssl
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from sparkbroker.broker.adapters.kubernetes_provisioner import _examine
from sparkbroker.broker.adapters.kubernetes_provisioner._api import Api
from sparkbroker.broker.adapters.kubernetes_provisioner._cluster import Cluster
from sparkbroker.broker.adapters.kubernetes_provisioner._errors import ApiFailed, Call
from sparkbroker.broker.adapters.kubernetes_provisioner._pods import Pod
from sparkbroker.broker.adapters.system_clock import SystemClock

IMAGE = os.environ.get("SPARKBROKER_TEST_IMAGE", "sparkbroker.test/spark:1")
RIGHTS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "broker": _examine.RIGHTS,
    "client": {"pods": ["create", "get", "list", "watch", "delete", "deletecollection"]},
    "driver": {"pods": ["create", "get", "list", "watch", "delete", "deletecollection"]},
}
"""What the broker's, a driver's and a client-mode lease's account may do, and no more."""
ADMIN = Call(verb="use", resource="the API", namespace="")


def check_needs(need: Callable[[object, str], None]) -> None:
    """Skip, or fail in CI, where there is no cluster to test on."""
    need(importlib.util.find_spec("kubernetes_asyncio"), "kubernetes-asyncio (the extra `kubernetes`)")
    need(os.environ.get("KUBECONFIG"), "a cluster with a Spark image (KUBECONFIG; `make cluster` starts one)")


def settings_of(namespace: str, /, **more: Any) -> dict[str, Any]:
    """Those whose pods fit a namespace of ours and a small machine."""
    return {
        "image": IMAGE, "image_pull_policy": "IfNotPresent", "namespace": namespace,
        "service_account": "driver", "executor_service_account": "executor",
        "driver_cpu_request": "100m", "executor_cpu_request": "100m", **more,
    }  # fmt: skip


async def check_image(need: Callable[[object, str], None], space: "Space", image: str) -> None:
    """Skip, or fail in CI, where no node of the cluster has this image: nothing can be pulled for a test."""
    nodes = (await space.get("/api/v1/nodes"))["items"]
    known = {name for node in nodes for found in node["status"].get("images", ()) for name in found.get("names") or ()}
    need(image in known, f"the image {image} on the cluster's nodes (`make cluster` builds and loads it)")


class Space:
    """The namespace, and what an admin does in it."""

    def __init__(self, api: Api, name: str) -> None:
        self.api = api
        self.name = name
        self.cluster = Cluster(api)

    async def kubeconfig(self, account: str, path: Path) -> None:
        """Write one with this account's credentials."""
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 7200},
        }
        token = (await self.post(f"{self.path}/serviceaccounts/{account}/token", request))["status"]["token"]
        used = self.api._client.configuration
        cluster = {"server": used.host, "certificate-authority": used.ssl_ca_cert}
        made = {
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }  # fmt: skip
        await asyncio.to_thread(path.write_bytes, msgspec.json.encode(made))

    @property
    def server(self) -> str:
        """The API server's URL."""
        return str(self.api._client.configuration.host)

    @property
    def path(self) -> str:
        return f"/api/v1/namespaces/{self.name}"

    def settings(self, **more: Any) -> dict[str, Any]:
        """Pod settings of a profile whose pods fit this namespace and a small machine."""
        return settings_of(self.name, **more)

    async def get(self, path: str) -> Any:
        return msgspec.json.decode(await self.api.call(ADMIN, "GET", path))

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        return msgspec.json.decode(await self.api.call(ADMIN, "POST", path, body=body))

    async def delete(self, path: str, grace: int | None = None) -> None:
        query = [] if grace is None else [("gracePeriodSeconds", str(grace))]
        await self.api.call(ADMIN, "DELETE", path, query=query)

    async def pods(self) -> tuple[Pod, ...]:
        return (await self.cluster.list_pods(self.name, ""))[0]

    async def left(self) -> list[str]:
        """Everything of ours that is in the namespace: kind/name."""
        found = []
        for kind in ("pods", "secrets", "services", "persistentvolumeclaims", "configmaps"):
            items = (await self.get(f"{self.path}/{kind}"))["items"]
            found += [f"{kind}/{item['metadata']['name']}" for item in items]
        accounts = await self.cluster.list_accounts(self.name, "app.kubernetes.io/managed-by=sparkbroker")
        bindings = await self.cluster.list_bindings(self.name, "app.kubernetes.io/managed-by=sparkbroker")
        found += [f"serviceaccounts/{item.name}" for item in accounts]
        found += [f"rolebindings/{item.name}" for item in bindings]
        return sorted(name for name in found if name != "configmaps/kube-root-ca.crt")

    async def until_empty(self, seconds: float = 30.0) -> None:
        async with asyncio.timeout(seconds):
            while await self.left():
                await asyncio.sleep(0.2)

    async def give_rights(self) -> None:
        for account in ("broker", "driver", "executor"):
            await self.post(f"{self.path}/serviceaccounts", {"metadata": {"name": account}})
            await self.give_role(account, RIGHTS.get(account, {}))
            await self.bind(account)

    async def give_role(self, name: str, rights: Mapping[str, Sequence[str]]) -> None:
        """A Role with these verbs by resource (``resource.group``); ``bind``: on the Role ``client`` alone."""
        rules = []
        for full, verbs in rights.items():
            resource, _, group = full.partition(".")
            named = {"resourceNames": ["client"]} if resource == "roles" else {}
            rules.append({"apiGroups": [group], "resources": [resource], "verbs": list(verbs), **named})
        await self.post(f"{self._rbac}/roles", {"metadata": {"name": name}, "rules": rules})

    async def give_client_rights(self) -> None:
        """What the mode CLIENT needs: the Role of its leases' accounts, and the broker's part."""
        await self.give_role("client", RIGHTS["client"])
        await self.give_role("broker-client", _examine.CLIENT_RIGHTS)
        await self.bind("broker", "broker-client")

    @property
    def _rbac(self) -> str:
        return f"/apis/rbac.authorization.k8s.io/v1/namespaces/{self.name}"

    async def bind(self, account: str, role: str = "") -> None:
        """Give an account its rights, or those of this Role."""
        role = role or account
        binding = {
            "metadata": {"name": role},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": self.name}],
        }
        await self.post(f"{self._rbac}/rolebindings", binding)

    async def unbind(self, account: str) -> None:
        """Take them away."""
        await self.delete(f"{self._rbac}/rolebindings/{account}")


def trusted(space: Space) -> ssl.SSLContext:
    """For calls to the API server with other credentials than the admin's."""
    return ssl.create_default_context(cafile=space.api._client.configuration.ssl_ca_cert)


@asynccontextmanager
async def space() -> AsyncIterator[Space]:
    """A new namespace under the restricted Pod Security standard, removed afterwards."""
    api = await Api.connect(SystemClock())
    try:
        name = f"test-{uuid.uuid4().hex[:8]}"
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        made = Space(api, name)
        await made.post("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
        try:
            await made.give_rights()
            yield made
        finally:
            try:
                await made.delete(f"/api/v1/namespaces/{name}")
            except ApiFailed as error:
                if error.code != 404:
                    raise
    finally:
        await api.close()
