"""The broker is killed with SIGKILL at each call that it makes of the API server for a lease, one after the other: once before the
call takes effect, once before its answer is there. Nothing is lost, doubled, leaked, or free too soon.

On a small API server, whose nodes are obedient; ``test_kube_kill`` does it at random times on a real one.
"""

import asyncio
import getpass
import importlib.util
from collections import Counter
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from sparkbroker.broker.domain.asking.pod_sizing import Role
from sparkbroker.v1 import broker_pb2 as pb
from tests.kubernetes.broker import ENDED, KubeBroker
from tests.kubernetes.holder import MODES, SIZE, idle_pod
from tests.kubernetes.small_api import small_api
from tests.kubernetes.space import settings_of

SPACE = "small"
CALLS = {
    "CONNECT": {"POST pods", "POST secrets", "DELETE pods", "DELETE secrets"},
    "CLIENT": {
        "GET pods", "PATCH pods", "POST serviceaccounts", "POST rolebindings",
        "DELETE rolebindings", "DELETE serviceaccounts", "DELETE pods",
    },
}  # fmt: skip
KINDS = ("pods", "secrets", "serviceaccounts", "rolebindings")
pytestmark = pytest.mark.timeout(300)


class Killer:
    """Kills the broker at its ``nth`` call of a kind from now on, and starts another at once."""

    def __init__(self, api, running):
        self._running = running
        self._due, self._done = ("", 0), False
        self.seen = Counter[str]()
        """How many calls of each kind there were since ``arm``."""
        self.killed = False
        api.witness = self._tell

    def arm(self, what, nth, *, done):
        self._due, self._done, self.killed = (what, nth), done, False
        self.seen.clear()

    def _tell(self, what, done):
        self.seen[what] += not done
        if not self.killed and done == self._done and (what, self.seen[what]) == self._due:
            self.killed = True
            self._running.kill()
            self._running.start()
            raise web.HTTPServiceUnavailable  # nobody is left to be answered


class Lives:
    """Of leases, one after the other, in a namespace of this test alone."""

    def __init__(self, api, running, mode, ask, kept):
        self.api = api
        self.running = running
        self.killer = Killer(api, running)
        self._mode = mode
        self._ask = ask
        self._kept = kept

    async def whole(self):
        """From its request until its capacity is free."""
        before = self._made()
        name = await self.running.acquire(mode=self._mode, executors=1, **self._ask)
        lease = await self.running.until(name, pb.LEASE_STATE_READY, *ENDED, seconds=60)
        assert lease.state == pb.LEASE_STATE_READY, lease
        await self._add_executor()
        self.api.linger = True
        await self.running.release(name)
        async with asyncio.timeout(60):
            while not all("deletionTimestamp" in pod["metadata"] for pod in self._deletable()):
                await asyncio.sleep(0.02)
        # Asked isn't gone.
        assert (await self.running.get(name)).state == pb.LEASE_STATE_RELEASING
        assert await self.running.used()
        await self.api.end_all()
        lease = await self.running.until_ended(name, 60)
        assert lease.state == pb.LEASE_STATE_RELEASED, lease
        assert await self.running.used() == {}
        return self._made() - before

    async def until_empty(self):
        async with asyncio.timeout(60):
            while [name for kind in KINDS for name in self.api.names(SPACE, kind)] != self._kept:
                await asyncio.sleep(0.02)
        assert not any("sparkbroker.io/owner" in pod["metadata"].get("labels", {}) for pod in self._pods())

    def _made(self):
        """Pods and Secrets, ever. An account is made anew by a broker that is back, before it takes it away."""
        return Counter({kind: self.api.made(SPACE, kind) for kind in ("pods", "secrets")})

    def _pods(self):
        return self.api.objects(SPACE, "pods")

    def _deletable(self):
        return [pod for pod in self._pods() if pod["metadata"]["name"] not in self._kept]

    async def _add_executor(self):
        """As Spark does."""
        (driver,) = [
            pod["metadata"] for pod in self._pods() if pod["metadata"]["labels"]["sparkbroker.io/role"] == Role.DRIVER
        ]
        named = ("sparkbroker.io/owner", "sparkbroker.io/driver")
        labels = {**{name: driver["labels"][name] for name in named}, "sparkbroker.io/role": str(Role.EXECUTOR)}
        metadata = {
            "name": f"{driver['name']}-exec-1",
            "labels": labels,
            "ownerReferences": [{"kind": "Pod", "uid": driver["uid"]}],
        }
        await self.api.add(SPACE, "pods", {"metadata": metadata, "spec": {"containers": [{"name": "c"}]}})


@asynccontextmanager
async def lives(folder, mode):
    async with small_api() as api:
        api.kubeconfig(folder / "kubeconfig")
        ask, kept = {}, []
        if mode == "CLIENT":
            pod = (await api.add(SPACE, "pods", idle_pod("idle", getpass.getuser())))["metadata"]
            ask, kept = {"holder_pod": {"namespace": SPACE, "name": "idle", "uid": pod["uid"]}, **SIZE}, ["idle"]
        running = KubeBroker(folder, settings_of(SPACE), modes=MODES)
        running.start()
        try:
            await running.serving()
            yield Lives(api, running, mode, ask, kept)
        finally:
            await asyncio.to_thread(running.kill)


@pytest.mark.promise(6)
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("mode", CALLS)
async def test_killed_at_each_call(need, state_folder, mode, done):
    need(importlib.util.find_spec("kubernetes_asyncio"), "kubernetes-asyncio (the extra `kubernetes`)")
    async with lives(state_folder, mode) as of:
        made = await of.whole()
        await of.until_empty()
        calls = dict(of.killer.seen)
        assert calls.keys() >= CALLS[mode]
        for what, nth in ((what, nth) for what, count in calls.items() for nth in range(1, count + 1)):
            of.killer.arm(what, nth, done=done)
            assert await of.whole() == made, (what, nth)
            await of.until_empty()
            # Of some kinds, such as questions for logs and events, a life has now more and now less.
            assert of.killer.killed or what not in CALLS[mode] or nth > 1, what
