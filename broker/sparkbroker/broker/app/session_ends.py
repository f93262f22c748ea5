"""Waiting for the end of Spark sessions: a connection is kept back until those of former attachments are over (promise 2)."""

import asyncio
from collections.abc import Callable

from sparkbroker.broker.app.authority import Authority
from sparkbroker.broker.domain.lease.driver import Driver
from sparkbroker.broker.domain.units import DriverId


class SessionEnds:
    """``<SessionEnds [2 drivers waited for]>``."""

    def __init__(self, authority: Authority, enqueue: Callable[[DriverId], None]) -> None:
        self._authority = authority
        self._enqueue = enqueue
        self._waiters: dict[DriverId, set[asyncio.Future[None]]] = {}
        authority.on_driver.append(self._note)

    def __repr__(self) -> str:
        return f"<SessionEnds [{len(self._waiters)} drivers waited for]>"

    async def wait(self, driver_id: DriverId) -> None:
        """Until the sessions of this driver's former attachments are ended, or it is (promise 2). The caller bounds it in
        time."""
        while (driver := self._authority.drivers.get(driver_id)) is not None and driver.ending_sessions:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiters = self._waiters.setdefault(driver_id, set())
            waiters.add(waiter)
            self._enqueue(driver_id)
            try:
                await waiter
            finally:
                waiters.discard(waiter)
                if not waiters and self._waiters.get(driver_id) is waiters:
                    del self._waiters[driver_id]

    def _note(self, driver: Driver) -> None:
        for waiter in self._waiters.pop(driver.id, ()):
            if not waiter.done():
                waiter.set_result(None)
