"""The few calls that are made of a cluster, typed. Their rights are these verbs, in each of the Spark namespaces:

pods: create, get, list, watch, delete, deletecollection; pods/log: get; secrets: create, delete; events: list.
For leases in mode CLIENT besides: pods: patch; serviceaccounts and rolebindings: create, list, delete;
serviceaccounts/token: create; bind on their one Role.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Any, Final

import msgspec

from sparkbroker.broker.adapters.kubernetes_provisioner._api import MERGE_PATCH, Api
from sparkbroker.broker.adapters.kubernetes_provisioner._errors import ApiFailed, Call
from sparkbroker.broker.adapters.kubernetes_provisioner._manifests import Manifest
from sparkbroker.broker.adapters.kubernetes_provisioner._pods import (
    API_STATUS,
    BOOKMARK,
    EVENTS,
    PARTIAL,
    POD,
    PODS,
    TOKEN,
    WATCH_EVENT,
    Event,
    Metadata,
    Pod,
    PodList,
    WatchEvent,
)
from sparkbroker.broker.domain.units import WallTime

CORE: Final = "/api/v1/namespaces"
RBAC: Final = "/apis/rbac.authorization.k8s.io/v1/namespaces"
PAGE: Final = 500
WATCH_SECONDS: Final = 240
"""The API server ends a watch after this, and the next begins where it was."""
WATCH_SILENCE: Final = 90.0
"""Bookmarks come about once a minute: a watch that is silent for longer is broken."""
LOG_SILENCE: Final = 3600.0
_EVENTS: Final = 50


class Expired(Exception):
    """The resource version is too old to watch from: list again."""


class Cluster:
    """See the module. Errors: ApiFailed."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def __repr__(self) -> str:
        return f"<Cluster {self.api!r}>"

    async def list_pods(self, namespace: str, selector: str) -> tuple[tuple[Pod, ...], str]:
        """All that match now, from the store itself and not a cache; and the version to watch from."""
        call, items = Call(verb="list", resource="pods", namespace=namespace), list[Pod]()
        page = PodList()
        while True:
            query = [("labelSelector", selector), ("limit", str(PAGE)), ("continue", page.metadata.continue_token)]
            page = _decode(PODS, await self.api.call(call, "GET", _pods(namespace), query=query), call)
            items += page.items
            if not page.metadata.continue_token:
                return tuple(items), page.metadata.resource_version

    async def watch_pods(
        self, namespace: str, selector: str, version: str, opened: Callable[[], None]
    ) -> AsyncGenerator[tuple[str, Pod], None]:
        """What happens from this version on (a type as in the API, and the pod), until the server ends it; ``opened`` is
        called when it begins. Raise Expired, ApiFailed."""
        call = Call(verb="watch", resource="pods", namespace=namespace)
        query = [
            ("watch", "true"),
            ("labelSelector", selector),
            ("resourceVersion", version),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", str(WATCH_SECONDS)),
        ]
        try:
            async with self.api.stream(call, _pods(namespace), query=query, silence=WATCH_SILENCE) as reader:
                opened()
                async for line in reader:
                    event: WatchEvent = _decode(WATCH_EVENT, line, call)
                    if event.type == "ERROR":
                        _raise(call, bytes(event.object))
                    if event.type == "BOOKMARK":
                        yield event.type, Pod(metadata=_decode(BOOKMARK, event.object, call).metadata)
                    else:
                        yield event.type, _decode(POD, event.object, call)
        except ApiFailed as error:
            if error.code == HTTPStatus.GONE:
                raise Expired from error
            raise

    async def get_pod(self, namespace: str, name: str) -> Pod:
        """One pod, now."""
        call = Call(verb="get", resource="pods", namespace=namespace)
        pod: Pod = _decode(POD, await self.api.call(call, "GET", f"{_pods(namespace)}/{name}"), call)
        return pod

    async def create_pod(self, namespace: str, pod: Manifest, *, dry_run: bool = False) -> Pod:
        """Make it. A code of 409: one of its name exists. ``dry_run``: only say whether it would be accepted, each of its
        fields."""
        call = Call(verb="create", resource="pods", namespace=namespace)
        query = [("dryRun", "All"), ("fieldValidation", "Strict")] if dry_run else []
        made: Pod = _decode(POD, await self.api.call(call, "POST", _pods(namespace), body=pod, query=query), call)
        return made

    async def patch_pod(self, pod: Pod, patch: Manifest) -> Pod:
        """Change its metadata by a merge patch. A code of 409: it isn't this very pod (or version) any more."""
        call = Call(verb="patch", resource="pods", namespace=pod.metadata.namespace)
        path = f"{_pods(pod.metadata.namespace)}/{pod.metadata.name}"
        made: Pod = _decode(POD, await self.api.call(call, "PATCH", path, body=patch, kind=MERGE_PATCH), call)
        return made

    async def create_secret(self, namespace: str, secret: Manifest) -> None:
        """Make it, or leave the one that exists."""
        await self._create("secrets", f"{CORE}/{namespace}/secrets", secret, namespace)

    async def create_account(self, namespace: str, account: Manifest) -> None:
        """Make a service account, or leave the one that exists."""
        await self._create("serviceaccounts", f"{CORE}/{namespace}/serviceaccounts", account, namespace)

    async def create_binding(self, namespace: str, binding: Manifest) -> None:
        """Make a RoleBinding, or leave the one that exists."""
        await self._create("rolebindings", f"{RBAC}/{namespace}/rolebindings", binding, namespace)

    async def _create(self, resource: str, path: str, body: Manifest, namespace: str) -> None:
        call = Call(verb="create", resource=resource, namespace=namespace)
        try:
            await self.api.call(call, "POST", path, body=body)
        except ApiFailed as error:
            if error.code != HTTPStatus.CONFLICT:
                raise

    async def account_token(self, namespace: str, name: str, seconds: int) -> tuple[str, WallTime]:
        """A new credential of a service account, and when it ends: after so many seconds, or what the API server allows. A
        code of 404: there is no such account."""
        call = Call(verb="create", resource="serviceaccounts/token", namespace=namespace)
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds},
        }
        path = f"{CORE}/{namespace}/serviceaccounts/{name}/token"
        made = _decode(TOKEN, await self.api.call(call, "POST", path, body=body), call).status
        return made.token, WallTime(made.expiration_timestamp.timestamp())

    async def list_accounts(self, namespace: str, selector: str) -> tuple[Metadata, ...]:
        """The service accounts that match."""
        return await self._list("serviceaccounts", f"{CORE}/{namespace}/serviceaccounts", namespace, selector)

    async def list_bindings(self, namespace: str, selector: str) -> tuple[Metadata, ...]:
        """The RoleBindings that match."""
        return await self._list("rolebindings", f"{RBAC}/{namespace}/rolebindings", namespace, selector)

    async def _list(self, resource: str, path: str, namespace: str, selector: str) -> tuple[Metadata, ...]:
        call, found, more = Call(verb="list", resource=resource, namespace=namespace), list[Metadata](), ""
        while True:
            query = [("labelSelector", selector), ("limit", str(PAGE)), ("continue", more)]
            page = _decode(PARTIAL, await self.api.call(call, "GET", path, query=query), call)
            found += (item.metadata for item in page.items)
            more = page.metadata.continue_token
            if not more:
                return tuple(found)

    async def delete_pods(self, namespace: str, selector: str, grace: int | None) -> None:
        """Ask all that match to end; ``grace`` in seconds, None: each pod's own. Accepted isn't gone."""
        call = Call(verb="deletecollection", resource="pods", namespace=namespace)
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        query = [("labelSelector", selector)]
        await self.api.call(call, "DELETE", _pods(namespace), query=query, body=options)

    async def remove_pod(self, pod: Pod) -> None:
        """Take it from the API server at once, whatever its node says; this very pod, and none of its name."""
        where = pod.metadata
        call = Call(verb="delete", resource="pods", namespace=where.namespace)
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": where.uid},
        }
        try:
            await self.api.call(call, "DELETE", f"{_pods(where.namespace)}/{where.name}", body=options)
        except ApiFailed as error:
            # Gone already, or another one of its name.
            if error.code not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                raise

    async def delete_secret(self, namespace: str, name: str) -> None:
        """Remove it; it may be gone already."""
        await self._delete("secrets", f"{CORE}/{namespace}/secrets/{name}", namespace)

    async def delete_account(self, namespace: str, name: str) -> None:
        """Remove a service account, and with it all its credentials; it may be gone already."""
        await self._delete("serviceaccounts", f"{CORE}/{namespace}/serviceaccounts/{name}", namespace)

    async def delete_binding(self, namespace: str, name: str) -> None:
        """Remove a RoleBinding; it may be gone already."""
        await self._delete("rolebindings", f"{RBAC}/{namespace}/rolebindings/{name}", namespace)

    async def _delete(self, resource: str, path: str, namespace: str) -> None:
        call = Call(verb="delete", resource=resource, namespace=namespace)
        try:
            await self.api.call(call, "DELETE", path)
        except ApiFailed as error:
            if error.code != HTTPStatus.NOT_FOUND:
                raise

    async def events(self, namespace: str, uid: str) -> tuple[Event, ...]:
        """What was said of one object, the newest last."""
        call = Call(verb="list", resource="events", namespace=namespace)
        query = [("fieldSelector", f"involvedObject.uid={uid}"), ("limit", str(_EVENTS))]
        body = await self.api.call(call, "GET", f"/api/v1/namespaces/{namespace}/events", query=query)
        items = _decode(EVENTS, body, call).items
        return tuple(sorted(items, key=_when))

    def log(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        follow: bool,
        seconds: int | None = None,
        for_people: bool = False,
    ) -> AbstractAsyncContextManager[Any]:
        """A container's output, as a reader: from its beginning (as far as its node has kept it), or of the last seconds.
        ``for_people``: read as slowly as somebody likes, and not by the broker itself."""
        call = Call(verb="get", resource="pods/log", namespace=namespace)
        query = [("container", container), ("follow", str(follow).lower())]
        if seconds is not None:
            query.append(("sinceSeconds", str(seconds)))
        path = f"{_pods(namespace)}/{pod}/log"
        return self.api.stream(call, path, query=query, silence=LOG_SILENCE, for_people=for_people)

    async def close(self) -> None:
        await self.api.close()


def _pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def _when(event: Event) -> float:
    moment = event.last_timestamp or event.event_time
    return moment.timestamp() if moment is not None else 0.0


def _raise(call: Call, body: bytes) -> None:
    status = _decode(API_STATUS, body, call)
    raise ApiFailed(f"Kubernetes ended the watch ({status.code}): {status.message}", code=status.code, retryable=True)


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes | msgspec.Raw, call: Call) -> Any:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiFailed(f"the answer to {call} can't be read: {error}", code=0, retryable=True) from error
