"""An operator's word in place of a confirmation that can't come: the one exception to promise 5, and audited.

Nothing is taken out of the ledger here: the provisioner removes what it can't confirm from what it looks at, and the
reconciler frees the capacity when it then sees nothing. A provisioner that can't reach its world can't do that either.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

import msgspec
import structlog

from sparkbroker.broker.app.access import Access
from sparkbroker.broker.app.authority import Authority
from sparkbroker.broker.app.ending import Ending
from sparkbroker.broker.app.reconciler import Reconciler
from sparkbroker.broker.app.views import Forced
from sparkbroker.broker.domain.asking.request import check_text
from sparkbroker.broker.domain.errors import BrokerError, Forbidden, ProvisionerFailed
from sparkbroker.broker.domain.lease.driver import Driver, DriverState
from sparkbroker.broker.domain.lease.event import EventType
from sparkbroker.broker.domain.lease.lease import LeaseReason, LeaseState
from sparkbroker.broker.domain.units import Generation, LeaseId
from sparkbroker.broker.ports.authenticator import Caller
from sparkbroker.broker.ports.provisioner import Provisioner

log = structlog.get_logger()

CALL_LIMIT: Final = 20.0
"""Seconds that a provisioner may take."""
TEXT: Final = 256


class Forcing:
    """See the module."""

    def __init__(
        self,
        authority: Authority,
        access: Access,
        ending: Ending,
        reconciler: Reconciler,
        provisioners: Mapping[str, Provisioner],
    ) -> None:
        self._authority = authority
        self._access = access
        self._ending = ending
        self._reconciler = reconciler
        self._provisioners = provisioners

    async def force_release(self, caller: Caller, lease_id: LeaseId, message: str) -> Forced:
        """End it, and free what its drivers hold without their confirmation. It may be repeated.

        Raise Forbidden to a user; ProvisionerFailed, before anything is done, where its end can always be confirmed; and what
        the provisioner says, which is an event too. A call that is cancelled leaves the event of the attempt alone.
        """
        if not caller.operator:
            raise Forbidden(
                f"only an operator may free the capacity of leases/{lease_id} by force; release it without force, and it "
                "is free when its driver is confirmed gone"
            )
        await self._authority.complete()
        message = check_text("message", message, TEXT)
        lease = self._access.lease(caller, lease_id)
        if lease.terminal:
            return Forced(await self._access.view(lease), "it had ended already: nothing was done")
        held = [self._authority.drivers[each] for each in self._authority.drivers_of.get(lease_id, ())]
        held = [driver for driver in held if driver.state is not DriverState.GONE]
        for driver in held:
            if why := self._provisioners[driver.provisioner].always_confirms:
                raise ProvisionerFailed(f"leases/{lease_id} can't be forced: {why}", retryable=False)
        why = f" ({message})" if message else ""
        if lease.live:
            text = message or f"released by {caller.principal} by force"
            lease = self._ending.end(lease, LeaseState.RELEASED, LeaseReason.RELEASED_BY_OPERATOR, text)
        # The intent is durable before anything is done.
        await self._tell(lease_id, f"{caller.principal} asked to free its capacity by force{why}")
        try:
            done = [await self._abandon(driver) for driver in held]
        except BrokerError as error:
            await self._tell(lease_id, f"{caller.principal} could not free its capacity by force: {error.message}")
            raise
        text = "; ".join(done) or "it had no driver: nothing was left to wait for"
        await self._tell(lease_id, f"{caller.principal} waits for no confirmation any more{why}: {text}")
        return Forced(await self._access.view(self._authority.leases.get(lease_id, lease)), text)

    async def _abandon(self, driver: Driver) -> str:
        try:
            async with asyncio.timeout(CALL_LIMIT):
                done = await self._provisioners[driver.provisioner].abandon(driver.id, driver.handle)
        except TimeoutError:
            raise ProvisionerFailed(
                f"the provisioner did not answer within {CALL_LIMIT:g} s; nothing is known to be freed, ask again",
                retryable=True,
            ) from None
        self._reconciler.enqueue(driver.id)
        return done

    async def _tell(self, lease_id: LeaseId, text: str) -> None:
        """An event, once it is durable; it is also the lease's message."""
        log.warning("lease.forced", lease=lease_id, message=text)
        lease = self._authority.leases.get(lease_id)
        if lease is not None:
            told = msgspec.structs.replace(lease, message=text, hindrance="")
            lease = self._authority.put_lease(told, (EventType.FORCED, Generation(0)))
            await self._authority.commits.settle(lease.revision)
