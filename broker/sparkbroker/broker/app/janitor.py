"""Retention: terminal leases, their drivers' logs, stored answers and events are kept for a while, and then not."""

import asyncio
from collections.abc import Mapping
from typing import Final

import msgspec
import structlog

from sparkbroker.broker.app.authority import Authority
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.lease.driver import DriverState
from sparkbroker.broker.domain.units import DriverId, Revision, Seconds, ServingTime
from sparkbroker.broker.ports.provisioner import Provisioner

log = structlog.get_logger()

PERIOD: Final = 1.0
BUSY: Final = 0.05
AT_ONCE: Final = 2000
CALL_LIMIT: Final = 60.0


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept: a terminal lease until ``terminal_age`` of serving after its end, or more than ``terminal_count`` or
    ``terminal_bytes`` of them are kept; ``event_count`` revisions of events, and no more than ``event_bytes``; an answer for
    ``request_age`` of serving."""

    terminal_age: Seconds = Seconds(7 * 86400.0)
    terminal_count: int = 10_000
    terminal_bytes: int = 64 << 20
    event_count: int = 200_000
    event_bytes: int = 256 << 20
    request_age: Seconds = Seconds(86400.0)


class Janitor:
    """Forgets what retention no longer covers."""

    def __init__(self, authority: Authority, provisioners: Mapping[str, Provisioner], retention: Retention) -> None:
        self._authority = authority
        self._provisioners = provisioners
        self._retention = retention

    async def run(self) -> None:
        """Sweep until cancelled."""
        await self._authority.commits.count_events()
        while True:
            # Under a load that ends more than a sweep drops, the next one follows soon: what is kept stays bounded.
            over = self._authority.ended.over(self._retention.terminal_count, self._retention.terminal_bytes)
            await asyncio.sleep(BUSY if over else PERIOD)
            forgotten = self.sweep()
            if not forgotten:
                continue
            # The records go first: a log without a lease is found again by the inventory, a lease without a log isn't.
            await self._authority.commits.settle(self._authority.commits.revision)
            for name, driver_id in forgotten:
                try:
                    async with asyncio.timeout(CALL_LIMIT):
                        await self._provisioners[name].forget(driver_id)
                except (ProvisionerFailed, TimeoutError) as error:
                    log.warning("driver.log_not_removed", driver=driver_id, message=str(error) or "took too long")

    def sweep(self) -> list[tuple[str, DriverId]]:
        """Drop rows; return the drivers whose logs can go."""
        authority, retention = self._authority, self._retention
        before = ServingTime(authority.serving.now() - retention.terminal_age)
        forgotten: list[tuple[str, DriverId]] = []
        for lease_id in authority.ended.due(before, retention.terminal_count, retention.terminal_bytes, AT_ONCE):
            lease = authority.leases[lease_id]
            drivers = [authority.drivers[driver_id] for driver_id in authority.drivers_of.get(lease_id, ())]
            if any(driver.state is not DriverState.GONE for driver in drivers):
                authority.keep_ended(lease)  # one of its drivers came back, and is charged until it is gone
                continue
            authority.drop_lease(lease_id)
            forgotten += [(driver.provisioner, driver.id) for driver in drivers]
        authority.drop_requests(ServingTime(authority.serving.now() - retention.request_age), AT_ONCE)
        self._compact()
        return forgotten

    def _compact(self) -> None:
        commits, retention = self._authority.commits, self._retention
        keep_from = Revision(commits.revision - retention.event_count)
        # In steps, so that a steady load doesn't delete at each sweep.
        if keep_from - commits.compacted_through > retention.event_count // 10:
            commits.compact(keep_from)
        if (excess := commits.events.excess(retention.event_bytes)) is not None:
            commits.compact(excess)
