"""What a provisioner's ``wait_for_change`` hands out."""

import asyncio

from sparkbroker.broker.domain.units import DriverId


class Changes:
    """The drivers that may have changed since they were last asked for. For one task that waits; each is told once, however
    often it was noted meanwhile, so there are never more than drivers."""

    def __init__(self) -> None:
        self._noted: set[DriverId] = set()
        self._wake = asyncio.Event()

    def note(self, *driver_ids: DriverId) -> None:
        """Something of these has changed."""
        self._noted.update(driver_ids)
        self._wake.set()

    async def wait(self) -> set[DriverId]:
        """Those that were noted, and as soon as there are any. Cancelled, it has taken none."""
        while not self._noted:
            self._wake.clear()
            await self._wake.wait()
        result, self._noted = self._noted, set()
        return result
