"""Finds what runs without recorded intent, charges it, and has it ended (promise 6)."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import msgspec
import structlog

from sparkbroker.broker.app.admitter import Admitter
from sparkbroker.broker.app.authority import Authority
from sparkbroker.broker.app.reconciler import Reconciler
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.lease import transition
from sparkbroker.broker.domain.lease.driver import Driver, DriverState, ProvisionerName
from sparkbroker.broker.domain.lease.observation import Observation, Phase
from sparkbroker.broker.domain.units import DriverId
from sparkbroker.broker.ports.clock import Clock
from sparkbroker.broker.ports.provisioner import Provisioner

log = structlog.get_logger()

RESYNC: Final = 60.0
"""Seconds between two looks."""
LOOK_LIMIT: Final = 600.0
"""For a look at all that there is: it grows with the number of drivers whose records are kept, and others go on in
between. One that is given up has to begin anew, and until one is complete nothing is admitted."""
CALL_LIMIT: Final = 10.0
"""For the removal of one driver's records."""
FIRST_RETRY: Final = 1.0
ENDED: Final = frozenset({Phase.ABSENT, Phase.EXITED})


class Inventory:
    """The first full look opens admission; until then nothing is admitted (promise 1)."""

    def __init__(
        self,
        authority: Authority,
        admitter: Admitter,
        reconciler: Reconciler,
        provisioners: Mapping[str, Provisioner],
        clock: Clock,
    ) -> None:
        self._authority = authority
        self._admitter = admitter
        self._reconciler = reconciler
        self._provisioners = provisioners
        self._clock = clock
        self.complete = asyncio.Event()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            # At the same time: none waits for another's answer before it is charged.
            async with asyncio.TaskGroup() as group:
                looks = [group.create_task(self._look(name), name=f"look-{name}") for name in self._provisioners]
            seen = [look.result() for look in looks]
            if None not in seen and not self.complete.is_set():
                for driver in self._authority.drivers.values():
                    if driver.state is not DriverState.GONE:
                        self._reconciler.enqueue(driver.id)
                self._admitter.begin()
                self.complete.set()
            begun = self._clock.monotonic()
            await self._forget([left for each in seen for left in each or ()])
            pause = FIRST_RETRY if None in seen else RESYNC
            await asyncio.sleep(max(0.0, pause - (self._clock.monotonic() - begun)))

    async def _look(self, name: str) -> list[tuple[str, DriverId]] | None:
        """Charge what there is, and have what nobody recorded ended (promise 6). Return what left only its records. None: it
        couldn't be looked at."""
        drivers = self._authority.drivers
        gone = {driver.id for driver in drivers.values() if driver.state is DriverState.GONE}
        try:
            async with asyncio.timeout(LOOK_LIMIT):
                observations = await self._provisioners[name].inventory()
        except (ProvisionerFailed, TimeoutError) as error:
            log.warning("inventory.failed", provisioner=name, message=str(error) or "took too long")
            return None
        # Everything is charged before anything is awaited.
        for seen in observations:
            driver = drivers.get(seen.driver_id)
            if driver is None:
                self._unknown(name, seen)
            elif driver.id in gone:
                self._back(driver, seen)
            elif driver.state is not DriverState.GONE and not seen.resources.fits(driver.charge):
                # More only: this look took its time, and the reconciler may have seen since what isn't in it.
                self._authority.put_driver(msgspec.structs.replace(driver, observed=seen.resources))
        return [
            (name, seen.driver_id) for seen in observations if seen.phase in ENDED and seen.driver_id not in drivers
        ]

    async def _forget(self, left: list[tuple[str, DriverId]]) -> None:
        """Only their records are left: those of leases that were pruned while the broker was killed. What isn't done in time is
        found again by the next look."""
        with suppress(TimeoutError):
            async with asyncio.timeout(RESYNC):
                for name, driver_id in left:
                    if driver_id not in self._authority.drivers:
                        await self._forget_one(name, driver_id)

    async def _forget_one(self, name: str, driver_id: DriverId) -> None:
        try:
            async with asyncio.timeout(CALL_LIMIT):
                await self._provisioners[name].forget(driver_id)
        except (ProvisionerFailed, TimeoutError) as error:
            log.warning("driver.log_not_removed", driver=driver_id, message=str(error) or "took too long")

    def _back(self, driver: Driver, seen: Observation) -> None:
        """It was confirmed gone before this look, and yet it runs: a call that was given up took effect late."""
        if seen.phase in ENDED:
            return
        log.warning("driver.back", driver=driver.id, lease=driver.lease_id, phase=str(seen.phase))
        self._authority.record(transition.come_back(driver, seen, self._authority.now()))
        self._reconciler.enqueue(driver.id)

    def _unknown(self, name: str, seen: Observation) -> None:
        if seen.phase in ENDED:
            return
        log.warning("driver.orphan_found", driver=seen.driver_id, provisioner=name, phase=str(seen.phase))
        self._authority.record(transition.find(_known(name), seen, self._authority.now()))
        self._reconciler.enqueue(seen.driver_id)


def _known(name: str) -> ProvisionerName:
    """Provisioners are named in bootstrap; what isn't one of the others stands for the local one, as a fake does."""
    return "static" if name == "static" else "kubernetes" if name == "kubernetes" else "local"
