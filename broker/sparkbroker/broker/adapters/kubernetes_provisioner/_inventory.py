"""The count of everything of this broker's that is in the cluster, or has left a record here."""

from collections.abc import Awaitable, Sequence
from typing import TypeVar

import structlog

from sparkbroker.broker.adapters.kubernetes_provisioner._driver_logs import DriverLogs
from sparkbroker.broker.adapters.kubernetes_provisioner._errors import ApiFailed
from sparkbroker.broker.adapters.kubernetes_provisioner._fleet import Fleet
from sparkbroker.broker.adapters.kubernetes_provisioner._names import owned
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.lease.lease import LeaseMode
from sparkbroker.broker.domain.units import DriverId
from sparkbroker.broker.ports.provisioner import Handle, Observation, Phase

log = structlog.get_logger()

Found = TypeVar("Found")


class Inventory:
    """Over the namespaces of ``profiles``, and those in which a driver of another is known. Errors: ProvisionerFailed."""

    def __init__(self, fleet: Fleet, logs: DriverLogs, profiles: Sequence[Profile]) -> None:
        self._fleet = fleet
        self._logs = logs
        self._profiles = profiles
        self._refusals: dict[tuple[str, str], str] = {}
        """By namespace, and what of it may not be looked at."""

    def __repr__(self) -> str:
        return f"<Inventory of {self._fleet!r} [{len(self._refusals)} namespaces refused]>"

    def trouble(self, profile: Profile) -> str:
        """Why one of its namespaces can't be looked into, for people; empty: they can."""
        watches = self._fleet.watches
        for name in profile.namespaces:
            told = (self._refusals.get((name, "pods")), self._refusals.get((name, "accounts")))
            if why := next(filter(None, (*told, watches[name].trouble if name in watches else "")), ""):
                return why
        return ""

    async def take(self) -> list[Observation]:
        """Also what is left of drivers that are gone: the ends of their logs."""
        found: set[DriverId] = set()
        for namespace in dict.fromkeys((*(n for p in self._profiles for n in p.namespaces), *self._fleet.watches)):
            watch = self._fleet.watch(namespace)
            asked = self._fleet.cluster.list_pods(namespace, owned(self._fleet.owner))
            listed = await self._unless_refused((namespace, "pods"), asked)
            if listed is None:
                continue
            self._fleet.note(watch.store.replace(*listed))
            found |= set(watch.store.drivers())
        result = [self._fleet.look(driver_id) for driver_id in sorted(found)]
        accounts = await self._accounts(found)
        result += accounts
        result += await self._records(found | {seen.driver_id for seen in accounts})
        return result

    async def _unless_refused(self, what: tuple[str, str], asked: Awaitable[Found]) -> Found | None:
        """None: we may not look into it. One tenant's namespace of that kind keeps nobody else from working."""
        try:
            found = await asked
        except ApiFailed as error:
            if not error.misconfigured:
                raise
            self._refusals[what] = error.message
            log.warning("kubernetes.namespace_refused", namespace=what[0], message=error.message)
            return None
        self._refusals.pop(what, None)
        return found

    async def _accounts(self, living: set[DriverId]) -> list[Observation]:
        """Leases in mode CLIENT of which only an account or its binding is left: of a create that was cut off, for example."""
        left: dict[DriverId, Handle] = {}
        offers = (p for p in self._profiles if LeaseMode.CLIENT in p.modes)
        for namespace in dict.fromkeys(n for p in offers for n in p.namespaces):
            if (namespace, "pods") in self._refusals:
                continue
            what = (namespace, "accounts")
            found = await self._unless_refused(what, self._fleet.clients.drivers(namespace)) or set()
            left |= {driver_id: {"namespace": namespace, "holder": 1} for driver_id in found - living}
        return [
            Observation(driver_id=driver_id, phase=Phase.STOPPING, handle=handle, message="only its account is left")
            for driver_id, handle in left.items()
        ]

    async def _records(self, living: set[DriverId]) -> list[Observation]:
        if self._refusals:
            return []  # who can't look everywhere confirms nobody's end
        gone = (driver_id for driver_id in await self._logs.kept() if driver_id not in living)
        return [Observation(driver_id=driver_id, phase=Phase.ABSENT) for driver_id in gone]
