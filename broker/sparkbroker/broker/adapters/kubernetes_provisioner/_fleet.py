"""What is known of all drivers of one broker: the connection, a watch for each namespace, and where each driver is.

Everything else here asks the fleet what there is, does something in the cluster, and notes for whom that changed something.
"""

import asyncio
from collections.abc import Collection, Mapping
from typing import Final

from sparkbroker.broker.adapters.broker_key import driver_token, owner_mark
from sparkbroker.broker.adapters.changes import Changes
from sparkbroker.broker.adapters.kubernetes_provisioner._api import Api
from sparkbroker.broker.adapters.kubernetes_provisioner._clients import Clients
from sparkbroker.broker.adapters.kubernetes_provisioner._cluster import Cluster
from sparkbroker.broker.adapters.kubernetes_provisioner._driver import KnownDriver
from sparkbroker.broker.adapters.kubernetes_provisioner._names import check_driver_id, of_driver, owned
from sparkbroker.broker.adapters.kubernetes_provisioner._pods import Pod
from sparkbroker.broker.adapters.kubernetes_provisioner._store import PodStore
from sparkbroker.broker.adapters.kubernetes_provisioner._strays import Strays
from sparkbroker.broker.adapters.kubernetes_provisioner._tasks import Tasks
from sparkbroker.broker.adapters.kubernetes_provisioner._verdict import Evidence, observation
from sparkbroker.broker.adapters.kubernetes_provisioner._watch import PodWatch
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.units import DriverId
from sparkbroker.broker.ports.clock import Clock
from sparkbroker.broker.ports.provisioner import Handle, Observation, Phase

UP: Final = frozenset({Phase.STARTING, Phase.PORT_OPEN})
"""The phases of a driver that is coming up."""


class Fleet:
    """Not safe across threads, but for ``calls``. ``key`` makes the drivers' tokens; ``owner``, by default made of it, tells
    whose a pod is. ``cluster`` is the one that it works in, by default what the environment names, and nothing is imported
    or connected before ``connect``."""

    def __init__(self, *, key: bytes, clock: Clock, owner: str = "", cluster: Cluster | None = None) -> None:
        self.owner = owner or owner_mark(key)
        self.clock = clock
        self.watches: dict[str, PodWatch] = {}
        self.tasks = Tasks()
        """A watch for each namespace, one for each driver that is coming up, and the saving of logs."""
        self._key = key
        self._given = cluster
        self._connecting = asyncio.Lock()
        self._drivers: dict[DriverId, KnownDriver] = {}
        self._recorded: dict[DriverId, str] = {}
        """The uids of their own pods, where they are on record."""
        self._strays = Strays()
        self._changes = Changes()

    def __repr__(self) -> str:
        return f"<Fleet {list(self.watches.values())!r} [{len(self._drivers)} drivers known]>"

    # -- the connection

    async def connect(self) -> None:
        """Once; another call does nothing. Raise ProvisionerFailed."""
        async with self._connecting:
            if self._given is None:
                self._given = Cluster(await Api.connect(self.clock))

    @property
    def cluster(self) -> Cluster:
        """Raise ProvisionerFailed where it isn't connected."""
        if self._given is None:
            raise ProvisionerFailed("the provisioner kubernetes isn't connected yet", retryable=True)
        return self._given

    @property
    def clients(self) -> Clients:
        """What is done for leases in mode CLIENT."""
        return Clients(self.cluster, self.owner, self._strays)

    def calls(self) -> Mapping[tuple[str, str], int]:
        """How many were made of the API server, by verb and resource. May be asked by another thread."""
        return dict(self._given.api.calls) if self._given is not None else {}

    async def close(self) -> None:
        """Stop watching, and let go of the cluster."""
        await self.tasks.close()
        if self._given is not None:
            await self._given.close()

    # -- what is known

    def watch(self, namespace: str) -> PodWatch:
        """The namespace's only watch; it begins with the first call."""
        watch = self.watches.get(namespace)
        if watch is None:
            store = PodStore(self._recorded, self._strays.tell)
            watch = PodWatch(self.cluster, namespace, owned(self.owner), self.note, store)
            self.watches[namespace] = watch
            self.tasks.start(f"watch {namespace}", watch.run())
        return watch

    def driver(self, driver_id: DriverId) -> KnownDriver:
        """What is known of it. Raise ProvisionerFailed for what is no driver's id."""
        known = self._drivers.get(driver_id)
        if known is None:
            check_driver_id(driver_id)
            token = driver_token(self._key, driver_id)
            known = self._drivers[driver_id] = KnownDriver(driver_id, token)
        return known

    def drop(self, driver_id: DriverId) -> None:
        """Know nothing of it any more."""
        self._drivers.pop(driver_id, None)
        self._recorded.pop(driver_id, None)

    def record(self, known: KnownDriver, uid: str) -> None:
        """This pod is the driver's own, and no other."""
        self._recorded[known.id] = uid

    def place(self, known: KnownDriver, handle: Handle) -> None:
        """Where it is: as its handle says, else where its pods were seen."""
        known.client = known.client or "holder" in handle
        named = handle.get("namespace")
        if isinstance(named, str) and named:
            known.namespace = named
        uid, wanted = handle.get("uid"), handle.get("executors")
        if isinstance(uid, str) and uid:
            self.record(known, uid)
        if isinstance(wanted, int):
            known.wanted = wanted
        if not known.namespace:
            seen = (name for name, watch in self.watches.items() if watch.store.of(known.id))
            known.namespace = next(seen, "")
        own = self.own_pod(known)
        known.client = known.client or (own is not None and own.is_holder)

    def places(self, known: KnownDriver) -> list[str]:
        """The namespaces in which something of it may be."""
        return [known.namespace] if known.namespace else list(self.watches)

    def pods(self, known: KnownDriver) -> tuple[Pod, ...]:
        """Its pods as last told, its own first."""
        watch = self.watches.get(known.namespace)
        return watch.store.of(known.id) if watch is not None else ()

    def own_pod(self, known: KnownDriver) -> Pod | None:
        """The driver's own."""
        watch = self.watches.get(known.namespace)
        return watch.store.driver_pod(known.id) if watch is not None else None

    async def catch_up(self, known: KnownDriver, profile: Profile) -> None:
        """Look at the API server itself where the watch doesn't know, or knows of nothing (promise 7)."""
        places = [known.namespace] if known.namespace else list(profile.namespaces) or list(self.watches)
        for namespace in places:
            watch = self.watch(namespace)
            if watch.fresh and watch.store.of(known.id):
                continue
            pods, version = await self.cluster.list_pods(namespace, of_driver(self.owner, known.id))
            watch.store.replace(pods, version, of=known.id)
            if watch.store.of(known.id):
                known.namespace = namespace
        if not known.namespace:
            known.namespace = places[0] if places else ""

    def look(self, driver_id: DriverId) -> Observation:
        """It, as it is by what was last told."""
        known = self.driver(driver_id)
        self.place(known, {})
        watch = self.watches.get(known.namespace)
        if watch is None:
            return Observation(driver_id=driver_id, phase=Phase.ABSENT)
        return observation(
            driver_id,
            Evidence(
                pods=watch.store.of(driver_id),
                last=watch.store.last(driver_id),
                port_open=known.port_open,
                ready=known.ready,
                trouble=known.trouble,
                by_events=known.told.message if known.told is not None else "",
                asked=known.asked,
                wanted=known.wanted,
                executor_failure=watch.store.last_failure(driver_id),
                refused=known.refused,
                log_tail=known.log_tail,
            ),
        )

    def lives(self, known: KnownDriver) -> bool:
        """It has not begun to end."""
        return self.look(known.id).phase in (*UP, Phase.READY)

    # -- whom it changed for

    def note(self, driver_ids: Collection[DriverId]) -> None:
        """Something of these has changed."""
        for driver_id in driver_ids:
            known = self._drivers.get(driver_id)
            if known is not None:
                known.changed.set()
        self._changes.note(*driver_ids)

    async def wait_for_change(self) -> set[DriverId]:
        """See the port."""
        return await self._changes.wait()
