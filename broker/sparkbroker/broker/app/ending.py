"""How leases and attachments end, whoever ends them: the one place where what follows from it is set going."""

import msgspec

from sparkbroker.broker.app.authority import Authority
from sparkbroker.broker.app.reconciler import Reconciler
from sparkbroker.broker.domain.lease import lease as steps
from sparkbroker.broker.domain.lease import transition
from sparkbroker.broker.domain.lease.driver import DriverState
from sparkbroker.broker.domain.lease.event import EventType
from sparkbroker.broker.domain.lease.lease import Attachment, Lease, LeaseMode, LeaseReason, LeaseState
from sparkbroker.broker.domain.units import Generation


class Ending:
    """Synchronous: what is decided and what follows commit together."""

    def __init__(self, authority: Authority, reconciler: Reconciler) -> None:
        self._authority = authority
        self._reconciler = reconciler

    def end(self, lease: Lease, outcome: LeaseState, reason: LeaseReason, message: str) -> Lease:
        """A live lease ends. Its driver is stopped; a capacity without a driver is free at once."""
        driver = self._authority.drivers.get(lease.driver_id) if lease.driver_id else None
        self._authority.record(transition.end(lease, driver, outcome, reason, message, self._authority.now()))
        if lease.spec.mode is LeaseMode.LOCAL:
            self._authority.ledger.release(lease.id)
        if driver is not None:
            self._reconciler.enqueue(driver.id)
        return self._authority.leases[lease.id]

    def detach(self, lease: Lease, generations: tuple[Generation, ...]) -> Lease:
        """Attachments end, and their Spark sessions with them; the lease stays."""
        gone = tuple(a for a in lease.attachments if a.generation in generations)
        now = self._authority.serving.now()
        for generation in generations:
            lease = steps.detach(lease, generation, now)
        lease = self._authority.put_lease(lease, *((EventType.DETACHED, a.generation) for a in gone))
        self.end_sessions(lease, gone)
        return lease

    def end_sessions(self, lease: Lease, gone: tuple[Attachment, ...]) -> None:
        """Have the Spark sessions of former attachments interrupted and released. None exists before READY."""
        driver = self._authority.drivers.get(lease.driver_id) if lease.driver_id else None
        if driver is not None and driver.state is DriverState.READY and gone:
            sessions = (*driver.ending_sessions, *(a.session_id for a in gone))
            self._authority.put_driver(msgspec.structs.replace(driver, ending_sessions=sessions))
            self._reconciler.enqueue(driver.id)
