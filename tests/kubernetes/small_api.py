"""A small API server, for what needs no cluster: real HTTP, and of Kubernetes as much as the provisioner calls.

Versions grow with every change, and a watch tells each of them in its order. Preconditions, conflicts, what isn't there, and what
goes with its owner are as in Kubernetes. Its nodes are obedient: a pod runs once it is made, and is gone once it was told to, unless
it is to ``linger``. Whether the real one takes what it is given, only the tests on a cluster tell.
"""

import asyncio
import copy
import json
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from aiohttp import web

from sparkbroker.broker.adapters.kubernetes_provisioner._conf import CONNECT_PORT
from tests.kubernetes.small_logs import SmallLogs

Object = dict[str, Any]
Key = tuple[str, str, str]
"""Namespace, kind, name."""


class SmallApi:
    """``address`` is all pods'; a Connect server answers there."""

    def __init__(self) -> None:
        self.url = ""
        self.address = f"127.{random.randint(1, 254)}.{random.randint(1, 254)}.{random.randint(1, 254)}"
        self.linger = False
        """Pods that are told to end stay until ``end_all``."""
        self.silent = False
        """Watches tell nothing, until ``speak``."""
        self.failing: dict[str, int] = {}
        """Which method fails how often, from now on."""
        self.witness: Callable[[str, bool], None] = lambda _what, _done: None
        """Told of each call but watches (what: ``POST pods``) before it takes effect, and once it has, before it is answered. It
        may raise an answer of its own."""
        self._objects: dict[Key, Object] = {}
        self._changes: list[tuple[Key, Object | None, Object | None]] = []
        """The one at index N led to the version N + 1: what was, and what is."""
        self._forgotten = 0
        """Versions up to this one can't be followed from any more."""
        self._news = asyncio.Condition()
        self.logs = SmallLogs(self._news)

    @property
    def log(self) -> bytes:
        """What all containers have written."""
        return self.logs.file

    @log.setter
    def log(self, text: bytes) -> None:
        self.logs.file = text

    # -- what a test does

    async def add(self, namespace: str, kind: str, body: Mapping[str, Any]) -> Object:
        """Make an object, as somebody with credentials would."""
        made = copy.deepcopy(dict(body))
        meta = made["metadata"]
        meta |= {"namespace": namespace, "uid": str(uuid.uuid4()), "creationTimestamp": _now()}
        if kind == "pods":
            self._run(made)
        await self._change((namespace, kind, meta["name"]), made)
        return made

    async def end(self, namespace: str, pod: str) -> None:
        """Somebody deletes it."""
        await self._delete((namespace, "pods", pod))

    def names(self, namespace: str, kind: str) -> list[str]:
        return sorted(name for space, of, name in self._objects if (space, of) == (namespace, kind))

    def objects(self, namespace: str, kind: str) -> list[Object]:
        return [found for key, found in self._objects.items() if key[:2] == (namespace, kind)]

    def made(self, namespace: str, kind: str) -> int:
        """How many ever were."""
        return sum(key[:2] == (namespace, kind) and before is None for key, before, _ in self._changes)

    async def end_all(self) -> None:
        """Let go of the pods that linger."""
        self.linger = False
        for key, found in list(self._objects.items()):
            if found["metadata"].get("deletionTimestamp"):
                await self._remove(key)

    def forget(self) -> None:
        """All versions but the one that is."""
        self._forgotten = len(self._changes) - 1

    async def speak(self) -> None:
        """Let watches tell again, also what they have missed."""
        self.silent = False
        async with self._news:
            self._news.notify_all()

    def kubeconfig(self, path: Path) -> Path:
        """Write one, of somebody who may do everything."""
        made = {
            "apiVersion": "v1", "kind": "Config", "current-context": "small",
            "clusters": [{"name": "small", "cluster": {"server": self.url}}],
            "users": [{"name": "small", "user": {"token": "none"}}],
            "contexts": [{"name": "small", "context": {"cluster": "small", "user": "small"}}],
        }  # fmt: skip
        path.write_text(json.dumps(made))
        return path

    # -- what there is

    def _run(self, pod: Object) -> None:
        told = ("PodScheduled", "PodReadyToStartContainers")
        conditions = [{"type": name, "status": "True", "lastTransitionTime": _now()} for name in told]
        containers = [
            {"name": item["name"], "state": {"running": {"startedAt": _now()}}} for item in pod["spec"]["containers"]
        ]
        pod["spec"]["nodeName"] = "node"
        pod["status"] = {
            "phase": "Running", "podIP": self.address, "containerStatuses": containers, "conditions": conditions,
        }  # fmt: skip

    async def _change(self, key: Key, after: Object | None) -> None:
        """What is there is replaced, and never changed in its place: watches may tell it later."""
        # A watch that sees it go tells it as it was, in the version in which it went.
        before, version = copy.deepcopy(self._objects.pop(key, None)), str(len(self._changes) + 1)
        for item in filter(None, (before, after)):
            item["metadata"]["resourceVersion"] = version
        if after is not None:
            self._objects[key] = after
        self._changes.append((key, before, after))
        async with self._news:
            self._news.notify_all()

    async def _remove(self, key: Key) -> None:
        if key not in self._objects:
            return  # it went with its owner
        uid = self._objects[key]["metadata"]["uid"]
        await self._change(key, None)
        for other, found in list(self._objects.items()):
            if any(owner["uid"] == uid for owner in found["metadata"].get("ownerReferences", ())):
                await self._delete(other)

    async def _delete(self, key: Key) -> None:
        found = self._objects.get(key)
        if found is None:
            return
        if key[1] == "pods" and not found["metadata"].get("deletionTimestamp"):
            leaving = copy.deepcopy(found)
            leaving["metadata"]["deletionTimestamp"] = _now()
            await self._change(key, leaving)
        if key[1] != "pods" or not self.linger:
            await self._remove(key)

    # -- what is asked

    def app(self) -> web.Application:
        made = web.Application(middlewares=[self._counted])
        for prefix in ("/api/v1", "/apis/rbac.authorization.k8s.io/v1"):
            path = prefix + "/namespaces/{namespace}/{kind}"
            made.router.add_route("*", path, self._collection)
            made.router.add_route("*", path + "/{name}", self._object)
            made.router.add_route("*", path + "/{name}/{part}", self._part)
        return made

    @web.middleware
    async def _counted(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.query.get("watch"):
            return await handler(request)
        what = f"{request.method} {request.match_info['kind']}"
        self.witness(what, False)
        response = await handler(request)
        self.witness(what, True)
        return response

    async def _collection(self, request: web.Request) -> web.StreamResponse:
        if failed := self._fails(request):
            return failed
        namespace, kind = request.match_info["namespace"], request.match_info["kind"]
        matches = _selector(request.query.get("labelSelector", ""))
        if request.method == "POST":
            body = await request.json()
            if (namespace, kind, body["metadata"]["name"]) in self._objects:
                return _failed(409, "it exists")
            return web.json_response(await self.add(namespace, kind, body), status=201)
        if request.query.get("watch"):
            return await self._watch(request, namespace, kind, matches)
        found = {key: item for key, item in self._objects.items() if key[:2] == (namespace, kind) and matches(item)}
        if request.method == "DELETE":
            for key in found:
                await self._delete(key)
        metadata = {"resourceVersion": str(len(self._changes))}
        return web.json_response({"metadata": metadata, "items": list(found.values())})

    async def _watch(
        self, request: web.Request, namespace: str, kind: str, matches: Callable[[Object | None], bool]
    ) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        told = int(request.query["resourceVersion"])
        while True:
            async with self._news:
                while self.silent or told == len(self._changes):
                    await self._news.wait()
            if told < self._forgotten:
                gone = {"type": "ERROR", "object": {"code": 410, "message": f"too old resource version: {told}"}}
                await response.write(json.dumps(gone).encode() + b"\n")
                return response
            for key, before, after in self._changes[told:]:
                told += 1
                what = {(False, True): "ADDED", (True, True): "MODIFIED", (True, False): "DELETED"}
                event = what.get((matches(before), matches(after)))
                if key[:2] == (namespace, kind) and event is not None:
                    line = json.dumps({"type": event, "object": before if event == "DELETED" else after})
                    await response.write(line.encode() + b"\n")

    async def _object(self, request: web.Request) -> web.StreamResponse:
        if failed := self._fails(request):
            return failed
        key = (request.match_info["namespace"], request.match_info["kind"], request.match_info["name"])
        found = self._objects.get(key)
        if found is None:
            return _failed(404, f'{key[1]} "{key[2]}" not found')
        if request.method == "GET":
            return web.json_response(found)
        body = await request.json() if request.can_read_body else {}
        asked, meta = body.get("preconditions", body.get("metadata", {})), found["metadata"]
        if any(asked.get(name, meta[name]) != meta[name] for name in ("uid", "resourceVersion")):
            return _failed(409, "it is another one")
        if request.method == "DELETE":
            await self._delete(key)
            return web.json_response({})
        changed = copy.deepcopy(found)
        for name in ("labels", "annotations"):
            merged = {**meta.get(name, {}), **body["metadata"].get(name, {})}
            changed["metadata"][name] = {label: value for label, value in merged.items() if value is not None}
        await self._change(key, changed)
        return web.json_response(changed)

    async def _part(self, request: web.Request) -> web.StreamResponse:
        if failed := self._fails(request):
            return failed
        key = (request.match_info["namespace"], request.match_info["kind"], request.match_info["name"])
        if key not in self._objects:
            return _failed(404, f'{key[1]} "{key[2]}" not found')
        if request.match_info["part"] == "token":
            seconds = (await request.json())["spec"]["expirationSeconds"]
            expires = datetime.now(UTC) + timedelta(seconds=seconds)
            status = {"token": uuid.uuid4().hex, "expirationTimestamp": expires.isoformat()}
            return web.json_response({"status": status}, status=201)
        return await self.logs.tell(request, lambda: key not in self._objects)

    def _fails(self, request: web.Request) -> web.Response | None:
        if not self.failing.get(request.method):
            return None
        self.failing[request.method] -= 1
        return _failed(503, "it is busy")


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _failed(code: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "message": message}, status=code)


def _selector(text: str) -> Callable[[Object | None], bool]:
    parts = [part for part in text.split(",") if part]

    def matches(item: Object | None) -> bool:
        if item is None:
            return False
        labels = item["metadata"].get("labels", {})
        return all(
            part[1:] not in labels
            if part.startswith("!")
            else labels.get(part.partition("=")[0]) == part.partition("=")[2]
            for part in parts
        )

    return matches


@asynccontextmanager
async def small_api() -> AsyncIterator[SmallApi]:
    """One that is served."""
    made = SmallApi()
    runner = web.AppRunner(made.app(), handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with connect_server(made.address):
            yield made
    finally:
        await runner.cleanup()


@asynccontextmanager
async def connect_server(address: str) -> AsyncIterator[None]:
    """That of all drivers at once: every call succeeds, with an empty answer. The port is fixed, the address is the caller's
    alone."""

    class Anything(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # a stub's
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
            return grpc.unary_unary_rpc_method_handler(empty)

    async def empty(_request: bytes, _context: Any) -> bytes:
        return b""

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Anything(),))
    server.add_insecure_port(f"{address}:{CONNECT_PORT}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(0)
