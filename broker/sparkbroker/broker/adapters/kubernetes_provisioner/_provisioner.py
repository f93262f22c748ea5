"""The kubernetes provisioner: the watches, the calls and what is known of each driver, behind the port."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from contextlib import aclosing
from http import HTTPStatus
from pathlib import Path
from typing import Final, TypeVar

import structlog

from sparkbroker.broker.adapters import spark_connect
from sparkbroker.broker.adapters.kubernetes_provisioner._api import Api, missing_extra
from sparkbroker.broker.adapters.kubernetes_provisioner._clients import Clients
from sparkbroker.broker.adapters.kubernetes_provisioner._cluster import Cluster
from sparkbroker.broker.adapters.kubernetes_provisioner._conf import CONNECT_PORT, UI_PORT
from sparkbroker.broker.adapters.kubernetes_provisioner._driver import (
    PROBE_PAUSE,
    USER_ID,
    KnownDriver,
    has_ended,
    is_running,
)
from sparkbroker.broker.adapters.kubernetes_provisioner._driver_logs import DriverLogs
from sparkbroker.broker.adapters.kubernetes_provisioner._errors import ApiFailed
from sparkbroker.broker.adapters.kubernetes_provisioner._forcing import remove_lost
from sparkbroker.broker.adapters.kubernetes_provisioner._manifests import Manifests, render, with_owner
from sparkbroker.broker.adapters.kubernetes_provisioner._names import (
    DRIVER,
    OWNER,
    check_driver_id,
    deletable,
    object_name,
    of_driver,
    owned,
)
from sparkbroker.broker.adapters.kubernetes_provisioner._pods import Pod
from sparkbroker.broker.adapters.kubernetes_provisioner._reasons import abandoned
from sparkbroker.broker.adapters.kubernetes_provisioner._tasks import Tasks
from sparkbroker.broker.adapters.kubernetes_provisioner._verdict import Evidence, observation
from sparkbroker.broker.adapters.kubernetes_provisioner._watch import PodWatch
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.lease import LeaseMode
from sparkbroker.broker.domain.profile import Profile
from sparkbroker.broker.domain.resources import Resources
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

log = structlog.get_logger()

Found = TypeVar("Found")

SESSION_CALL_TIMEOUT: Final = 5.0
FORCED_GRACE: Final = 1
"""Seconds. Not 0, which would remove the pod from the API server before its node has ended it (promise 5)."""
ASK_AGAIN: Final = 20.0
EMBEDDED: Final = (
    "the provisioner kubernetes isn't for a broker that ends with its program: nobody would be left to remove its pods; "
    "run `sparkbroker serve`"
)
_UP: Final = frozenset({Phase.STARTING, Phase.PORT_OPEN})


class KubernetesProvisioner:
    """See the package. ``folder`` keeps the ends of logs; ``key`` makes the tokens and tells whose a pod is.

    ``profiles`` are those whose namespaces it looks after; an ``embedded`` broker's can't be used. ``cluster`` is what it works in, by default the one that the
    environment names; nothing is imported or connected while no profile needs it.
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
        cluster: Cluster | None = None,
    ) -> None:
        self._folder = folder
        self._key = key
        self._owner = hashlib.sha256(b"owner\0" + key).hexdigest()[:16]
        self._profiles = tuple(p for p in profiles if p.provisioner == "kubernetes" and not embedded)
        self._embedded = embedded
        self._clock = clock
        self._given = cluster
        self._connecting = asyncio.Lock()
        self._watches: dict[str, PodWatch] = {}
        self._tasks = Tasks()
        """A watch for each namespace, and one for each driver that is coming up."""
        self._drivers: dict[DriverId, KnownDriver] = {}
        self._changed: set[DriverId] = set()
        self._wake = asyncio.Event()
        self._refusals: dict[str, str] = {}
        self._logs = DriverLogs(
            folder,
            clock,
            cluster=lambda: self._cluster,
            pods=lambda known: self._watch(known.namespace).store.of(known.id) if known.namespace else (),
            lives=lambda known: self._look(known.id).phase in (*_UP, Phase.READY),
        )

    def __repr__(self) -> str:
        return f"<KubernetesProvisioner {list(self._watches.values())!r} [{len(self._drivers)} drivers known]>"

    def calls(self) -> Mapping[tuple[str, str], int]:
        """How many it has made of API servers, by verb and resource. May be asked by another thread."""
        return dict(self._given.api.calls) if self._given is not None else {}

    # -- what it works with

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
        await self._connect()
        for profile in self._profiles:
            for namespace in profile.namespaces:
                self._watch(namespace)

    async def _connect(self) -> None:
        """Also for a driver on record whose profile is no longer configured."""
        async with self._connecting:
            if self._given is None:
                self._given = Cluster(await Api.connect(self._clock))

    @property
    def _cluster(self) -> Cluster:
        if self._given is None:
            raise ProvisionerFailed("the provisioner kubernetes isn't connected yet", retryable=True)
        return self._given

    @property
    def _clients(self) -> Clients:
        return Clients(self._cluster, self._owner)

    def _watch(self, namespace: str) -> PodWatch:
        watch = self._watches.get(namespace)
        if watch is None:
            watch = PodWatch(self._cluster, namespace, owned(self._owner), self._note)
            self._watches[namespace] = watch
            self._tasks.start(f"watch {namespace}", watch.run())
        return watch

    def _driver(self, driver_id: DriverId) -> KnownDriver:
        known = self._drivers.get(driver_id)
        if known is None:
            check_driver_id(driver_id)
            token = hmac.new(self._key, driver_id.encode(), hashlib.sha256).hexdigest()
            known = self._drivers[driver_id] = KnownDriver(driver_id, token)
        return known

    def _note(self, driver_ids: Iterable[DriverId]) -> None:
        for driver_id in driver_ids:
            self._changed.add(driver_id)
            known = self._drivers.get(driver_id)
            if known is not None:
                known.changed.set()
        self._wake.set()

    # -- the port

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
        troubles = (
            self._refusals.get(name) or (watch.trouble if (watch := self._watches.get(name)) else "")
            for name in profile.namespaces
        )
        return next(filter(None, troubles), "")

    async def inventory(self) -> list[Observation]:
        """Also what is left of drivers that are gone: the ends of their logs."""
        found: set[DriverId] = set()
        for namespace in dict.fromkeys((*(n for p in self._profiles for n in p.namespaces), *self._watches)):
            watch = self._watch(namespace)
            self._refusals.pop(namespace, None)
            listed = await self._unless_refused(namespace, self._cluster.list_pods(namespace, owned(self._owner)))
            if listed is None:
                continue
            self._note(watch.store.replace(*listed))
            found |= set(watch.store.drivers())
        result = [self._look(driver_id) for driver_id in sorted(found) if driver_id]
        accounts = await self._accounts(found)
        result += accounts
        result += await self._records(found | {seen.driver_id for seen in accounts})
        return result

    async def _unless_refused(self, namespace: str, asked: Awaitable[Found]) -> Found | None:
        """None: we may not look into it. One tenant's namespace of that kind keeps nobody else from working."""
        try:
            return await asked
        except ApiFailed as error:
            if not error.misconfigured:
                raise
            self._refusals[namespace] = error.message
            log.warning("kubernetes.namespace_refused", namespace=namespace, message=error.message)
            return None

    async def _accounts(self, living: set[DriverId]) -> list[Observation]:
        """Leases in mode CLIENT of which only an account or its binding is left: of a create that was cut off, for example."""
        left: dict[DriverId, Handle] = {}
        offers = (p for p in self._profiles if LeaseMode.CLIENT in p.modes)
        for namespace in dict.fromkeys(n for p in offers for n in p.namespaces):
            if namespace in self._refusals:
                continue
            found = await self._unless_refused(namespace, self._clients.drivers(namespace)) or set()
            left |= {driver_id: {"namespace": namespace, "holder": 1} for driver_id in found - living}
        return [
            Observation(driver_id=driver_id, phase=Phase.STOPPING, handle=handle, message="only its account is left")
            for driver_id, handle in left.items()
        ]

    async def _records(self, living: set[DriverId]) -> list[Observation]:
        gone = (driver_id for driver_id in await self._logs.kept() if driver_id not in living)
        return [Observation(driver_id=driver_id, phase=Phase.ABSENT) for driver_id in gone]

    async def create(self, request: DriverRequest) -> Observation:
        if self._embedded:
            raise ProvisionerFailed(EMBEDDED, retryable=False, misconfigured=True)
        await self._connect()
        known = self._driver(request.driver_id)
        if request.spec.mode is LeaseMode.CLIENT:
            return await self._claim(known, request)
        manifests = render(request, owner=self._owner, token=known.token)
        known.namespace = manifests.namespace
        watch = self._watch(manifests.namespace)
        pod = watch.store.driver_pod(request.driver_id) or await self._create_or_adopt(manifests)
        if pod.metadata.labels.get(OWNER) != self._owner or pod.metadata.labels.get(DRIVER) != request.driver_id:
            raise ProvisionerFailed(
                f"pod {pod.metadata.name!r} in namespace {manifests.namespace!r} is not this broker's", retryable=False
            )
        if pod.fingerprint != request.profile_fingerprint:
            raise ProvisionerFailed(
                f"driver {request.driver_id} exists with the profile fingerprint {pod.fingerprint}, "
                f"not {request.profile_fingerprint}",
                retryable=False,
            )
        watch.store.put(pod)
        if not pod.leaving and not pod.ended:
            # The pod waits for it: it is the Secret's owner, so that nothing is left of a create that was cut off here.
            await self._cluster.create_secret(manifests.namespace, with_owner(manifests.secret, pod.metadata.uid))
        seen = self._look(request.driver_id)
        self._attend(known, seen)
        return seen

    async def _claim(self, known: KnownDriver, request: DriverRequest) -> Observation:
        pod = await self._clients.claim(request)
        known.client = True
        known.namespace = pod.metadata.namespace
        self._watch(known.namespace).store.put(pod)
        await self._give_rights(known, pod, request.profile)
        return self._look(known.id)

    async def _give_rights(self, known: KnownDriver, pod: Pod, profile: Profile) -> None:
        await self._clients.give_rights(pod, known.id, profile.client_role)
        known.ready = self._clock.wall()
        self._note([known.id])

    async def _create_or_adopt(self, manifests: Manifests) -> Pod:
        try:
            return await self._cluster.create_pod(manifests.namespace, manifests.pod)
        except ApiFailed as error:
            if error.code != HTTPStatus.CONFLICT:
                raise
        return await self._cluster.get_pod(manifests.namespace, manifests.pod["metadata"]["name"])

    async def observe(self, driver_id: DriverId, handle: Handle, profile: Profile) -> Observation:
        await self._connect()
        known = self._driver(driver_id)
        self._place(known, handle, profile)
        await self._catch_up(known, profile)
        own = self._watch(known.namespace).store.driver_pod(driver_id) if known.namespace else None
        if own is not None and has_ended(own):
            await self._logs.save(known, own)  # its last lines tell how it ended
        if ended := self._logs.ended_executors(known):
            self._tasks.start(f"logs {ended[0].metadata.name}", self._logs.save_executors(known, ended))
        if own is not None and known.client and known.ready is None and not known.asked and not own.ended:
            await self._give_rights(known, own, profile)  # this broker doesn't know that it did
        seen = self._look(driver_id)
        if seen.phase in (Phase.ABSENT, Phase.EXITED):
            if known.client and not known.revoked:
                # The cluster removes them with the holder's pod, too: some time later.
                await self._clients.revoke(known.namespace, driver_id)
                known.revoked = True
            self._drivers.pop(driver_id, None)
            return seen
        if own is not None and seen.phase is Phase.STARTING and not known.asked and not known.client:
            self._give_up_if_hopeless(known, own)
        self._attend(known, seen)
        return seen

    def _give_up_if_hopeless(self, known: KnownDriver, pod: Pod) -> None:
        """Said once: after that it is looked at to be ended."""
        if not known.given_up and (why := known.hopeless(pod, self._clock.monotonic())):
            known.given_up = True
            raise ProvisionerFailed(why, retryable=False, misconfigured=True)

    def _place(self, known: KnownDriver, handle: Handle, profile: Profile | None) -> None:
        """Where it is: as its handle says, else where its pods were seen."""
        known.client = known.client or "holder" in handle
        named = handle.get("namespace")
        if isinstance(named, str) and named:
            known.namespace = named
        if not known.namespace:
            seen = (name for name, watch in self._watches.items() if known.id in watch.store.drivers())
            known.namespace = next(seen, "")
        watch = self._watches.get(known.namespace)
        own = watch.store.driver_pod(known.id) if watch is not None else None
        known.client = known.client or (own is not None and own.is_holder)

    async def _catch_up(self, known: KnownDriver, profile: Profile | None) -> None:
        """Look at the API server itself where the watch doesn't know, or knows of nothing (promise 7)."""
        places = (
            [known.namespace] if known.namespace else list(profile.namespaces if profile else ()) or list(self._watches)
        )
        for namespace in places:
            watch = self._watch(namespace)
            if watch.fresh and watch.store.of(known.id):
                continue
            pods, version = await self._cluster.list_pods(namespace, of_driver(self._owner, known.id))
            watch.store.replace(pods, version, of=known.id)
            if pods:
                known.namespace = namespace
        if not known.namespace:
            known.namespace = places[0] if places else ""

    def _look(self, driver_id: DriverId) -> Observation:
        known = self._driver(driver_id)
        self._place(known, {}, None)
        watch = self._watches.get(known.namespace)
        if watch is None:
            return Observation(driver_id=driver_id, phase=Phase.ABSENT)
        pods, last = watch.store.of(driver_id), watch.store.last(driver_id)
        return observation(
            driver_id,
            Evidence(
                pods=pods,
                last=last,
                port_open=known.port_open,
                ready=known.ready,
                trouble=known.trouble,
                by_events=known.told.message if known.told is not None else "",
                asked=known.asked,
                executor_failure=watch.store.last_failure(driver_id),
                log_tail=known.log_tail,
            ),
        )

    async def delete(self, driver_id: DriverId, handle: Handle, *, force: bool) -> None:
        await self._connect()
        known = self._driver(driver_id)
        self._place(known, handle, None)
        now = self._clock.monotonic()
        places = [known.namespace] if known.namespace else list(self._watches)
        pods = [pod for name in places for pod in self._watch(name).store.of(driver_id) if not pod.is_holder]
        asked_for_all = known.asked and all(pod.leaving for pod in pods) and (known.forced or not force)
        if asked_for_all and now - known.asked_at < ASK_AGAIN:
            await self._let_go(known, pods)
            return
        await self._logs.save_all(known, pods)
        known.asked, known.forced, known.asked_at = True, known.forced or force, now
        for namespace in places:
            grace = FORCED_GRACE if force else None
            if known.client:
                # First what could make more of them.
                await self._clients.revoke(namespace, driver_id)
                known.revoked = True
            await self._cluster.delete_pods(namespace, deletable(self._owner, driver_id), grace)
            if not known.client:
                await self._cluster.delete_secret(namespace, object_name(driver_id))
        await self._let_go(known, pods)
        self._note([driver_id])

    async def _let_go(self, known: KnownDriver, executors: Sequence[Pod]) -> None:
        """Give a holder its pod back once nothing else is left of its lease."""
        if known.client and known.namespace and not executors:
            await self._clients.let_go(known.namespace, known.id)

    async def abandon(self, driver_id: DriverId, handle: Handle) -> str:
        await self._connect()
        known = self._driver(driver_id)
        self._place(known, handle, None)
        removed: list[Pod] = []
        asked: list[Pod] = []
        for namespace in [known.namespace] if known.namespace else list(self._watches):
            selector = deletable(self._owner, driver_id)
            lost, others = await remove_lost(self._cluster, namespace, selector, self._clock.wall())
            removed += lost
            asked += others
        if asked:
            await self.delete(driver_id, handle, force=True)
        self._note([driver_id])
        return abandoned(removed, asked)

    async def forget(self, driver_id: DriverId) -> None:
        check_driver_id(driver_id)
        for watch in self._watches.values():
            pods = watch.store.of(driver_id)
            if any(not pod.ended for pod in pods):
                raise ProvisionerFailed(f"driver {driver_id} still has pods: it can't be forgotten", retryable=True)
            watch.store.forget(driver_id)
        await self._logs.forget(driver_id)
        self._drivers.pop(driver_id, None)

    async def endpoint(self, driver_id: DriverId, handle: Handle, profile: Profile) -> ConnectEndpoint:
        known = self._driver(driver_id)
        self._place(known, handle, profile)
        if known.ready is None or self._look(driver_id).phase is not Phase.READY:
            raise ProvisionerFailed(f"driver {driver_id} is not ready", retryable=True)
        server, pod = known.server(), self._watch(known.namespace).store.driver_pod(driver_id)
        return ConnectEndpoint(
            endpoint=f"sc://{known.address(known.ip, CONNECT_PORT)}/",
            headers=server.headers,
            user_id=USER_ID,
            ui_url=known.address(known.ip, UI_PORT) if profile.ui else "",
            python_version=pod.python_version if pod is not None else "",
        )

    async def client_access(self, request: DriverRequest, handle: Handle) -> ClientAccess:
        known = self._driver(request.driver_id)
        self._place(known, handle, request.profile)
        watch = self._watches.get(known.namespace)
        pod = watch.store.driver_pod(known.id) if watch is not None else None
        if pod is None or self._look(known.id).phase is not Phase.READY:
            raise ProvisionerFailed(f"driver {known.id} is not ready", retryable=True)
        return await self._clients.access(request, pod)

    async def end_session(self, driver_id: DriverId, handle: Handle, profile: Profile, session_id: str) -> None:
        known = self._driver(driver_id)
        self._place(known, handle, profile)
        if known.ready is None or self._look(driver_id).phase is not Phase.READY:
            return
        if known.client:
            pod = self._watch(known.namespace).store.driver_pod(driver_id)
            if pod is not None:
                await self._clients.fence(pod, driver_id, profile.client_role)
            return
        try:
            await spark_connect.end_session(known.server(), session_id, SESSION_CALL_TIMEOUT)
        except spark_connect.ConnectCallFailed as error:
            if self._look(driver_id).phase is Phase.READY:
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
        await self._connect()
        known = self._driver(driver_id)
        self._place(known, handle, None)
        chunks = self._logs.read(known, offset=offset, tail_lines=tail_lines, follow=follow, executors=executors)
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    async def wait_for_change(self) -> set[DriverId]:
        while not self._changed:
            self._wake.clear()
            await self._wake.wait()
        result, self._changed = self._changed, set()
        return result

    # -- drivers that are coming up

    def _attend(self, known: KnownDriver, seen: Observation) -> None:
        """See to it that a driver which is coming up gets there."""
        name = f"driver {known.id}"
        if seen.phase in _UP and known.ready is None and not known.client and name not in self._tasks:
            self._tasks.start(name, self._bring_along(known))

    async def _bring_along(self, known: KnownDriver) -> None:
        """Until it is ready, ending, or gone."""
        began: float | None = None
        while known.ready is None and not known.asked:
            known.changed.clear()
            pod = self._watch(known.namespace).store.driver_pod(known.id)
            if pod is None or pod.leaving or pod.ended:
                return
            now = self._clock.monotonic()
            if is_running(pod):
                began = now if began is None else began
                if await known.call(pod, self._clock, now - began):
                    self._note([known.id])
                else:
                    await asyncio.sleep(PROBE_PAUSE)
                continue
            if pod.spec.node_name and await known.ask_events(self._cluster, pod, now):
                self._note([known.id])
            await known.until_changed()

    async def close(self) -> None:
        """Drivers go on running."""
        await self._tasks.close()
        if self._given is not None:
            await self._given.close()
