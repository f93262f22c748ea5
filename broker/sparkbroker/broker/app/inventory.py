"""Finds what runs without recorded intent, charges it, and has it ended (promise 6)."""

import asyncio
from collections.abc import Mapping
from typing import Final

import structlog
from sparkbroker.broker.app.admitter import Admitter
from sparkbroker.broker.app.authority import Authority
from sparkbroker.broker.app.reconciler import Reconciler
from sparkbroker.broker.domain.driver import Driver, DriverKind, DriverState
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.observation import Observation, Phase
from sparkbroker.broker.ports.clock import Clock
from sparkbroker.broker.ports.provisioner import Provisioner

log = structlog.get_logger()

RESYNC: Final = 60.0
"""Seconds between two looks."""
CALL_LIMIT: Final = 60.0
FIRST_RETRY: Final = 1.0


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
            seen = [await self._look(name) for name in self._provisioners]
            if all(seen) and not self.complete.is_set():
                for driver in self._authority.drivers.values():
                    if driver.state is not DriverState.GONE:
                        self._reconciler.enqueue(driver.id)
                self._admitter.inventory_complete = True
                self.complete.set()
                self._admitter.soon()
            await asyncio.sleep(RESYNC if all(seen) else FIRST_RETRY)

    async def _look(self, name: str) -> bool:
        try:
            async with asyncio.timeout(CALL_LIMIT):
                observations = await self._provisioners[name].inventory()
        except (ProvisionerFailed, TimeoutError) as error:
            log.warning("inventory.failed", provisioner=name, message=str(error) or "took too long")
            return False
        for seen in observations:
            if seen.driver_id not in self._authority.drivers:
                await self._unknown(name, seen)
        return True

    async def _unknown(self, name: str, seen: Observation) -> None:
        if seen.phase in (Phase.ABSENT, Phase.EXITED):
            # Only its records are left: those of a lease that was pruned while the broker was killed.
            await self._provisioners[name].forget(seen.driver_id)
            return
        log.warning("driver.orphan_found", driver=seen.driver_id, provisioner=name, phase=str(seen.phase))
        now = self._authority.serving.now()
        self._authority.put_driver(
            Driver(
                id=seen.driver_id,
                kind=DriverKind.UNKNOWN,
                provisioner="static" if name == "static" else "local",
                profile_fingerprint=seen.profile_fingerprint,
                queue="",
                pool="local",
                target=seen.resources,
                observed=seen.resources,
                state=DriverState.STOPPING,
                handle=seen.handle,
                created=seen.process_started or self._clock.wall(),
                start_deadline=now,
                stop_requested=now,
                stop_message="nobody recorded it",
            )
        )
        self._reconciler.enqueue(seen.driver_id)
