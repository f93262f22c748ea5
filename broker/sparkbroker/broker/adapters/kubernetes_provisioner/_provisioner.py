"""The kubernetes provisioner: the port, by what is known of the drivers (fleet, inventory) and what is done with them
(starting, ending, logs, refusals)."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Final

from sparkbroker.broker.adapters import spark_connect
from sparkbroker.broker.adapters.kubernetes_provisioner._api import missing_extra
from sparkbroker.broker.adapters.kubernetes_provisioner._cluster import Cluster
from sparkbroker.broker.adapters.kubernetes_provisioner._conf import CONNECT_PORT, UI_PORT
from sparkbroker.broker.adapters.kubernetes_provisioner._driver import USER_ID, KnownDriver, has_ended
from sparkbroker.broker.adapters.kubernetes_provisioner._driver_logs import DriverLogs
from sparkbroker.broker.adapters.kubernetes_provisioner._ending import Ending
from sparkbroker.broker.adapters.kubernetes_provisioner._fleet import Fleet
from sparkbroker.broker.adapters.kubernetes_provisioner._inventory import Inventory
from sparkbroker.broker.adapters.kubernetes_provisioner._names import check_driver_id
from sparkbroker.broker.adapters.kubernetes_provisioner._pods import Pod
from sparkbroker.broker.adapters.kubernetes_provisioner._refusals import Refusals
from sparkbroker.broker.adapters.kubernetes_provisioner._starting import Starting
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.lease.lease import LeaseMode
from sparkbroker.broker.domain.units import DriverId
from sparkbroker.broker.ports.clock import Clock
from sparkbroker.broker.ports.provisioner import (
    ClientAccess,
    ConnectEndpoint,
    DriverRequest,
    Handle,
    LogChunk,
    Observation,
    Phase,
)

SESSION_CALL_TIMEOUT: Final = 5.0
EMBEDDED: Final = (
    "the provisioner kubernetes isn't for a broker that ends with its program: nobody would be left to remove its pods; "
    "run `sparkbroker serve`"
)


class KubernetesProvisioner:
    """See the package. ``folder`` keeps the ends of logs; ``key`` makes the tokens; ``owner``, by default made of it, tells whose
    a pod is.

    ``profiles`` are those whose namespaces it looks after; an ``embedded`` broker's can't be used. ``cluster`` is what it
    works in, by default the one that the environment names; nothing is imported or connected while no profile needs it.
    """

    name = "kubernetes"
    always_confirms = ""

    def __init__(
        self,
        *,
        folder: Path,
        key: bytes,
        profiles: Iterable[Profile],
        clock: Clock,
        embedded: bool = False,
        owner: str = "",
        cluster: Cluster | None = None,
    ) -> None:
        self._folder = folder
        self._profiles = tuple(p for p in profiles if p.provisioner == "kubernetes" and not embedded)
        self._embedded = embedded
        self._fleet = Fleet(key=key, owner=owner, clock=clock, cluster=cluster)
        self._logs = DriverLogs(folder, self._fleet)
        self._inventory = Inventory(self._fleet, self._logs, self._profiles)
        self._starting = Starting(self._fleet)
        self._refusals = Refusals(self._fleet)
        self._ending = Ending(self._fleet, self._logs)

    def __repr__(self) -> str:
        return f"<KubernetesProvisioner {self._fleet!r}>"

    def calls(self) -> Mapping[tuple[str, str], int]:
        """How many it has made of API servers, by verb and resource. May be asked by another thread."""
        return self._fleet.calls()

    # -- the whole

    async def start(self) -> None:
        if not self._profiles and not self._folder.exists():
            return
        try:
            await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ProvisionerFailed(
                f"the folder of the kubernetes provisioner can't be made: {error}", retryable=False
            ) from error
        if not self._profiles:
            return
        await self._fleet.connect()
        for profile in self._profiles:
            for namespace in profile.namespaces:
                self._fleet.watch(namespace)

    def capacity(self) -> dict[str, Resources]:
        """None by itself: a cluster is shared, so operators say how much of it is the broker's."""
        return {}

    def unusable(self, profile: Profile) -> str:
        if self._embedded:
            return EMBEDDED
        if missing := missing_extra():
            return missing
        if not profile.pod.image:
            return f"profile {profile.name!r} names no image; set pod.image"
        return self._inventory.trouble(profile)

    async def inventory(self) -> list[Observation]:
        """Also what is left of drivers that are gone: the ends of their logs."""
        return await self._inventory.take()

    async def wait_for_change(self) -> set[DriverId]:
        return await self._fleet.wait_for_change()

    async def close(self) -> None:
        """Drivers go on running."""
        await self._fleet.close()

    # -- one driver

    def _known(self, driver_id: DriverId, handle: Handle) -> KnownDriver:
        known = self._fleet.driver(driver_id)
        self._fleet.place(known, handle)
        return known

    async def create(self, request: DriverRequest) -> Observation:
        if self._embedded:
            raise ProvisionerFailed(EMBEDDED, retryable=False, misconfigured=True)
        await self._fleet.connect()  # also for a driver on record whose profile is no longer configured
        known = self._fleet.driver(request.driver_id)
        if request.spec.mode is LeaseMode.CLIENT:
            return await self._starting.claim(known, request)
        return await self._starting.create(known, request)

    async def observe(self, driver_id: DriverId, handle: Handle, profile: Profile) -> Observation:
        await self._fleet.connect()
        known = self._known(driver_id, handle)
        await self._fleet.catch_up(known, profile)
        own = self._fleet.own_pod(known)
        await self._keep_logs(known, own)
        if own is not None and known.client and known.ready is None and not own.ended:
            # It was claimed by a broker before this one, which gave it its rights; if they were taken since, nobody is to give
            # them back.
            known.ready = self._fleet.clock.wall()
        seen = self._fleet.look(driver_id)
        if seen.phase in (Phase.ABSENT, Phase.EXITED):
            await self._ending.confirmed(known)
            return seen
        if own is not None and seen.phase is Phase.STARTING and not known.asked and not known.client:
            self._starting.give_up_if_hopeless(known, own)
        self._starting.attend(known, seen)
        self._refusals.attend(known, seen)
        return seen

    async def _keep_logs(self, known: KnownDriver, own: Pod | None) -> None:
        """Of what has ended, before Spark or anybody else deletes it."""
        if own is not None and has_ended(own):
            await self._logs.save(known, own)  # its last lines tell how it ended
        if ended := self._logs.ended_executors(known):
            self._fleet.tasks.start(f"logs {ended[0].metadata.name}", self._logs.save_executors(known, ended))

    async def delete(self, driver_id: DriverId, handle: Handle, *, force: bool) -> None:
        await self._fleet.connect()
        await self._ending.delete(self._known(driver_id, handle), force=force)

    async def abandon(self, driver_id: DriverId, handle: Handle) -> str:
        await self._fleet.connect()
        return await self._ending.abandon(self._known(driver_id, handle))

    async def forget(self, driver_id: DriverId) -> None:
        check_driver_id(driver_id)
        for watch in self._fleet.watches.values():
            if any(not pod.ended for pod in watch.store.of(driver_id)):
                raise ProvisionerFailed(f"driver {driver_id} still has pods: it can't be forgotten", retryable=True)
            watch.store.forget(driver_id)
        await self._logs.forget(driver_id)
        self._fleet.drop(driver_id)

    # -- its session

    async def endpoint(self, driver_id: DriverId, handle: Handle, profile: Profile) -> ConnectEndpoint:
        known = self._known(driver_id, handle)
        if known.ready is None or self._fleet.look(driver_id).phase is not Phase.READY:
            raise ProvisionerFailed(f"driver {driver_id} is not ready", retryable=True)
        server, pod = known.server(), self._fleet.own_pod(known)
        return ConnectEndpoint(
            endpoint=f"sc://{known.address(known.ip, CONNECT_PORT)}/",
            headers=server.headers,
            user_id=USER_ID,
            ui_url=known.address(known.ip, UI_PORT) if profile.ui else "",
            python_version=pod.python_version if pod is not None else "",
        )

    async def client_access(self, request: DriverRequest, handle: Handle) -> ClientAccess:
        known = self._known(request.driver_id, handle)
        pod = self._fleet.own_pod(known)
        if pod is None or self._fleet.look(known.id).phase is not Phase.READY:
            raise ProvisionerFailed(f"driver {known.id} is not ready", retryable=True)
        return await self._fleet.clients.access(request, pod)

    async def end_session(self, driver_id: DriverId, handle: Handle, profile: Profile, session_id: str) -> None:
        known = self._known(driver_id, handle)
        if known.ready is None or self._fleet.look(driver_id).phase is not Phase.READY:
            return
        if known.client:
            pod = self._fleet.own_pod(known)
            if pod is not None:
                await self._fleet.clients.fence(pod, driver_id, profile.client_role)
            return
        try:
            await spark_connect.end_session(known.server(), session_id, SESSION_CALL_TIMEOUT)
        except spark_connect.ConnectCallFailed as error:
            if self._fleet.look(driver_id).phase is Phase.READY:
                raise ProvisionerFailed(
                    f"a session of driver {driver_id} can't be ended: {error}", retryable=True
                ) from error

    async def logs(
        self,
        driver_id: DriverId,
        handle: Handle,
        *,
        offset: int,
        tail_lines: int,
        follow: bool,
        executors: Mapping[str, int] | None = None,
    ) -> AsyncIterator[LogChunk]:
        await self._fleet.connect()
        # Also of one that is gone: what bears its name by then is for the next look at everything to find.
        known = self._known(driver_id, {**handle, "uid": ""})
        chunks = self._logs.read(known, offset=offset, tail_lines=tail_lines, follow=follow, executors=executors)
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk
