"""One watch over all pods of this broker in one namespace, for all of its leases: list, follow, and list again when the
version is too old to follow from."""

import asyncio
import math
from collections.abc import Callable, Collection
from typing import Final

import structlog

from sparkbroker.broker.adapters.kubernetes_provisioner._cluster import Cluster, Expired
from sparkbroker.broker.adapters.kubernetes_provisioner._errors import ApiFailed
from sparkbroker.broker.adapters.kubernetes_provisioner._pods import Pod
from sparkbroker.broker.adapters.kubernetes_provisioner._store import PodStore
from sparkbroker.broker.domain.units import DriverId

log = structlog.get_logger()

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 15.0


class PodWatch:
    """``store`` is what it has been told; ``fresh``: and that is up to date, as far as a watch can be."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        selector: str,
        changed: Callable[[Collection[DriverId]], None],
        store: PodStore,
    ) -> None:
        self.namespace = namespace
        self.store = store
        self.fresh = False
        self.trouble = ""
        """Why it isn't fresh, for people."""
        self.connects = 0
        self._cluster = cluster
        self._selector = selector
        self._changed = changed
        self._version = ""
        self._opened_at = 0.0

    def __repr__(self) -> str:
        return f"<PodWatch {self.namespace} {'fresh' if self.fresh else 'stale'} {self.store!r}>"

    async def run(self) -> None:
        """Follow until cancelled."""
        try:
            await self._run()
        finally:
            self.fresh = False

    async def _run(self) -> None:
        pause, time = FIRST_PAUSE, asyncio.get_running_loop().time
        while True:
            self._opened_at = math.inf
            listed = not self._version
            try:
                if listed:
                    await self._list()
                await self._follow()
                if time() - self._opened_at < FIRST_PAUSE:
                    await asyncio.sleep(FIRST_PAUSE)  # a server that ends watches at once
                pause = FIRST_PAUSE
                continue
            except Expired:
                log.info("kubernetes.watch_expired", namespace=self.namespace)
                self._version, self.fresh = "", False
                if not listed:
                    continue
            except ApiFailed as error:
                self.fresh, self.trouble = False, error.message
                if time() - self._opened_at > pause:
                    pause = FIRST_PAUSE  # it has worked: something on the way ends what is silent
                if error.code:
                    self._version = ""  # it may be the version that it doesn't like
                log.warning("kubernetes.watch_failed", namespace=self.namespace, message=error.message, pause=pause)
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)

    async def _list(self) -> None:
        pods, version = await self._cluster.list_pods(self.namespace, self._selector)
        self._version = version
        self._changed(self.store.replace(pods, version))

    async def _follow(self) -> None:
        events = self._cluster.watch_pods(self.namespace, self._selector, self._version, self._opened)
        try:
            async for what, pod in events:
                self._apply(what, pod)
        finally:
            await events.aclose()

    def _opened(self) -> None:
        self.connects += 1
        self._opened_at = asyncio.get_running_loop().time()
        self.fresh, self.trouble = True, ""

    def _apply(self, what: str, pod: Pod) -> None:
        self._version = pod.metadata.resource_version or self._version
        if what in ("ADDED", "MODIFIED"):
            news = self.store.put(pod)
        elif what == "DELETED":
            news = self.store.remove(pod)
        else:  # BOOKMARK
            return
        if news:
            self._changed([pod.driver_id])
