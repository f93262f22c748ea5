"""How drivers end: asked to, asked again, and, on an operator's word, taken from the record. Asked isn't gone: only what the
API server no longer has is."""

from collections.abc import Sequence
from typing import Final

from sparkbroker.broker.adapters.kubernetes_provisioner._driver import KnownDriver
from sparkbroker.broker.adapters.kubernetes_provisioner._driver_logs import DriverLogs
from sparkbroker.broker.adapters.kubernetes_provisioner._fleet import Fleet
from sparkbroker.broker.adapters.kubernetes_provisioner._names import deletable, object_name
from sparkbroker.broker.adapters.kubernetes_provisioner._pods import Pod
from sparkbroker.broker.adapters.kubernetes_provisioner._reasons import abandoned, unconfirmable

FORCED_GRACE: Final = 1
"""Seconds. Not 0, which would remove the pod from the API server before its node has ended it (promise 5)."""


class Ending:
    """Of the drivers of one fleet. Every step can be repeated. Errors: ProvisionerFailed."""

    def __init__(self, fleet: Fleet, logs: DriverLogs) -> None:
        self._fleet = fleet
        self._logs = logs

    def __repr__(self) -> str:
        return f"<Ending of {self._fleet!r}>"

    async def delete(self, known: KnownDriver, *, force: bool, at_once: bool = False) -> None:
        """Ask all that is the broker's to end, unless the API server has taken that already. With ``force`` within a second:
        what was asked before has its grace first, unless ``at_once``."""
        now = self._fleet.clock.monotonic()
        places = self._fleet.places(known)
        pods = [pod for name in places for pod in self._fleet.watch(name).store.of(known.id) if not pod.is_holder]
        force = force and (at_once or known.has_had_grace(now))
        if not known.is_taken(pods, now, force=force):
            await self._logs.save_all(known, pods)
            known.asked = True
            for namespace in places:
                await self._ask(known, namespace, FORCED_GRACE if force else None)
            known.taken(pods, self._fleet.clock.monotonic(), force=force)
            self._fleet.note([known.id])
        await self._let_go(known, pods)

    async def _ask(self, known: KnownDriver, namespace: str, grace: int | None) -> None:
        if known.client:
            # First what could make more of them.
            await self._fleet.clients.revoke(namespace, known.id)
            known.revoked = True
        await self._fleet.cluster.delete_pods(namespace, deletable(self._fleet.owner, known.id), grace)
        if not known.client and not known.secret_gone:
            await self._fleet.cluster.delete_secret(namespace, object_name(known.id))

    async def _let_go(self, known: KnownDriver, executors: Sequence[Pod]) -> None:
        """Give a holder its pod back once nothing else is left of its lease."""
        if known.client and known.namespace and not executors:
            await self._fleet.clients.let_go(known.namespace, known.id)

    async def confirmed(self, known: KnownDriver) -> None:
        """It is gone: nothing of it is left to be known."""
        if known.client and not known.revoked:
            # The cluster removes them with the holder's pod, too: some time later.
            await self._fleet.clients.revoke(known.namespace, known.id)
            known.revoked = True
        self._fleet.drop(known.id)

    async def abandon(self, known: KnownDriver) -> str:
        """On an operator's word; what was done, for people."""
        removed: list[Pod] = []
        asked: list[Pod] = []
        for namespace in self._fleet.places(known):
            lost, others = await self._remove_lost(namespace, deletable(self._fleet.owner, known.id))
            removed += lost
            asked += others
        if asked:
            await self.delete(known, force=True, at_once=True)
        self._fleet.note([known.id])
        return abandoned(removed, asked)

    async def _remove_lost(self, namespace: str, selector: str) -> tuple[list[Pod], list[Pod]]:
        """Take those whose nodes don't answer, or are overdue, from the API server's record. Return them, and the others."""
        pods, _ = await self._fleet.cluster.list_pods(namespace, selector)
        wall = self._fleet.clock.wall()
        lost = [pod for pod in pods if unconfirmable(pod, wall)]
        for pod in lost:
            await self._fleet.cluster.remove_pod(pod)
        return lost, [pod for pod in pods if pod not in lost]
