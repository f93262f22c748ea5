"""Turns waiting leases into charged ones, as ``domain.admission`` decides."""

import asyncio
from collections.abc import Callable

import structlog

from sparkbroker.broker.app.authority import Authority
from sparkbroker.broker.app.ids import Ids
from sparkbroker.broker.domain.admission.cycle import Admission, Progress, Waiting
from sparkbroker.broker.domain.lease import transition
from sparkbroker.broker.domain.lease.event import EventType
from sparkbroker.broker.domain.lease.lease import Lease, LeaseMode, LeaseState, grant_local
from sparkbroker.broker.domain.units import DriverId, Generation
from sparkbroker.broker.ports.metrics import Metrics

log = structlog.get_logger()

STEPS_AT_ONCE = 256
"""Admissions in one turn of the loop; more go on in the next, so that requests are answered between them."""


class Admitter:
    """Nothing is admitted before ``begin`` (promise 1). What is admitted commits with its charge, and
    its driver is made only after that."""

    def __init__(
        self,
        authority: Authority,
        admission: Admission,
        ids: Ids,
        metrics: Metrics,
        on_driver: Callable[[DriverId], None],
    ) -> None:
        self._authority = authority
        self._admission = admission
        self._ids = ids
        self._metrics = metrics
        self._on_driver = on_driver
        self._scheduled = False
        self._inventory_complete = False
        authority.on_lease.append(self.note)
        authority.ledger.on_freed(self._soon)

    def __repr__(self) -> str:
        return f"<Admitter of {self._admission!r}>"

    def begin(self) -> None:
        """Everything that runs is charged."""
        self._inventory_complete = True
        self._soon()

    def note(self, lease: Lease) -> None:
        """A lease as it is now: it waits, or it waits no more."""
        if lease.state is not LeaseState.QUEUED:
            if self._admission.remove(lease.id):
                self._soon()
        elif lease.id not in self._admission:
            self._add(lease)

    def _add(self, lease: Lease) -> None:
        self._admission.add(
            Waiting(
                lease_id=lease.id,
                queue=lease.spec.queue,
                pool=lease.pool,
                amount=lease.charge,
                priority=lease.spec.priority,
                enqueued=lease.enqueued,
            )
        )
        self._soon()

    def _soon(self) -> None:
        """Capacity or a queue has changed: look, in this turn of the loop and so in the same commit."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._run)

    def progress(self, lease: Lease) -> Progress | None:
        """Why a lease waits; None: it doesn't."""
        if lease.id not in self._admission:
            return None
        return self._admission.progress(lease.id, self._authority.ledger, inventory_complete=self._inventory_complete)

    def queue_length(self, queue: str) -> int:
        return self._admission.queue_length(queue)

    def blocking_message(self, queue: str) -> str:
        """Why the first in line waits; empty: none waits."""
        return self._admission.blocking_message(
            queue, self._authority.ledger, inventory_complete=self._inventory_complete
        )

    def _run(self) -> None:
        self._scheduled = False
        if not self._inventory_complete or self._authority.commits.refuses:
            return
        for _ in range(STEPS_AT_ONCE):
            admitted = self._admission.admit_next(self._authority.ledger, self._owner)
            if admitted is None:
                return
            lease = self._authority.leases[admitted.waiting.lease_id]
            self._metrics.phase("queued", max(0.0, self._authority.serving.now() - lease.enqueued))
            if lease.spec.mode is LeaseMode.LOCAL:
                now = self._authority.now()
                lease = grant_local(lease, now.serving, now.wall)
                self._authority.put_lease(lease, (EventType.STATE, Generation(0)))
            else:
                self._provision(lease, DriverId(admitted.owner))
        self._soon()

    def _owner(self, waiting: Waiting) -> str:
        """Who is charged: the driver to be made, or the lease itself where there is none."""
        lease = self._authority.leases[waiting.lease_id]
        return lease.id if lease.spec.mode is LeaseMode.LOCAL else self._ids.driver()

    def _provision(self, lease: Lease, driver_id: DriverId) -> None:
        profile = self._authority.profiles[lease.profile_fingerprint]
        changes = transition.admit(
            lease,
            driver_id,
            provisioner=profile.provisioner,
            start_timeout=profile.start_timeout,
            now=self._authority.now(),
        )
        self._authority.record(changes)
        log.info("lease.admitted", lease=lease.id, driver=driver_id, queue=lease.spec.queue, attempt=lease.attempt)
        self._on_driver(driver_id)
