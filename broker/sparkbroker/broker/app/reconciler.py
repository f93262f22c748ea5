"""Brings the world to what is recorded, one driver at a time: intent is committed before anything is made, and capacity
is freed only when a driver is confirmed gone (promises 5, 6, 7)."""

import asyncio
from collections.abc import Mapping
from typing import Final, assert_never

import structlog

from sparkbroker.broker.app.authority import Authority
from sparkbroker.broker.app.workqueue import Slot, WorkQueue
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.errors import ProvisionerFailed, Unavailable
from sparkbroker.broker.domain.lease import plan, transition
from sparkbroker.broker.domain.lease.driver import Driver, DriverState
from sparkbroker.broker.domain.lease.hindrance import hindered, unhindered
from sparkbroker.broker.domain.lease.lease import Lease, LeaseState
from sparkbroker.broker.domain.lease.observation import Observation
from sparkbroker.broker.domain.lease.transition import Changes
from sparkbroker.broker.domain.units import DriverId
from sparkbroker.broker.ports.provisioner import DriverRequest, Provisioner

log = structlog.get_logger()

WORKERS: Final = 16
"""Drivers that are worked on at a time, not counting those whose call is slow (``Slot``): a provisioner that hangs
for some of them delays no others (promise 13). How many there can be of these is bounded by the capacity."""
CALL_LIMIT: Final = 60.0
"""Seconds that one call of a provisioner may take."""


class Reconciler:
    """One worker per driver at a time. ``<Reconciler <WorkQueue […]>>``."""

    def __init__(self, authority: Authority, provisioners: Mapping[str, Provisioner]) -> None:
        self._authority = authority
        self._provisioners = provisioners
        self._queue: WorkQueue[DriverId] = WorkQueue()

    def __repr__(self) -> str:
        return f"<Reconciler {self._queue!r}>"

    def enqueue(self, driver_id: DriverId) -> None:
        """Look at this driver."""
        self._queue.add(driver_id)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for name, provisioner in self._provisioners.items():
                group.create_task(self._follow(provisioner), name=f"changes-{name}")
            slots = asyncio.Semaphore(WORKERS)
            while True:
                await slots.acquire()
                driver_id = await self._queue.get()
                group.create_task(self._work(driver_id, Slot(slots)), name=f"reconcile-{driver_id}")

    async def _follow(self, provisioner: Provisioner) -> None:
        while True:
            try:
                changed = await provisioner.wait_for_change()
            except ProvisionerFailed as error:
                # Polling goes on without the hints.
                log.warning("provisioner.changes_unknown", provisioner=provisioner.name, message=error.message)
                await asyncio.sleep(plan.READY_POLL)
                continue
            for driver_id in changed:
                if driver_id in self._authority.drivers:
                    self.enqueue(driver_id)

    async def _work(self, driver_id: DriverId, slot: Slot) -> None:
        """One driver's turn. Whatever its calls do, the others have theirs (promise 13)."""
        after: float | None = None
        failed = False
        begun = self._authority.drivers.get(driver_id)
        try:
            after = await self.reconcile(driver_id)
            self._call_succeeded(driver_id)
        except ProvisionerFailed as error:
            failed = self._call_failed(begun, driver_id, error)
        except TimeoutError:
            slow = ProvisionerFailed(f"the provisioner did not answer within {CALL_LIMIT:g} s", retryable=True)
            failed = self._call_failed(begun, driver_id, slow)
        except Unavailable:
            raise  # the store is lost, and with it this leadership
        except Exception:
            # A bug about one driver must not end everyone's sessions, nor be forgotten.
            failed = True
            log.exception("driver.bug", driver=driver_id)
        finally:
            slot.free()
            self._queue.done(driver_id, failed=failed, after=after)

    def _call_failed(self, begun: Driver | None, driver_id: DriverId, error: ProvisionerFailed) -> bool:
        """Whether the call is to be tried again: then its lease says why. ``begun``: the driver as it was before."""
        driver = self._authority.drivers.get(driver_id)
        stop = None if driver is None else plan.after_failure(driver, error, self._authority.serving.now())
        log.warning("driver.call_failed", driver=driver_id, message=error.message, retries=stop is None)
        if driver is None:
            return True
        if stop is not None:
            self._apply(driver, stop)
            self.enqueue(driver_id)
            return False
        lease = self._lease_of(driver)
        # What failed of a start that was given up meanwhile isn't what its end waits for.
        if lease is not None and begun is not None and driver.state is begun.state:
            self._note(lease, hindered(lease, error.message))
        return True

    def _call_succeeded(self, driver_id: DriverId) -> None:
        driver = self._authority.drivers.get(driver_id)
        lease = None if driver is None else self._lease_of(driver)
        if lease is not None:
            self._note(lease, unhindered(lease))

    def _note(self, lease: Lease, noted: Lease) -> None:
        """Told to who reads and watches; no event, and written with the lease's next change."""
        if noted != lease:
            self._authority.note_progress(noted)

    async def _recorded(self, driver_id: DriverId) -> Driver | None:
        """The driver as it is now, once that is durable. None: it needs nothing any more."""
        while (driver := self._authority.drivers.get(driver_id)) is not None and driver.state is not DriverState.GONE:
            if driver.revision <= self._authority.commits.durable:
                return driver
            await self._authority.commits.settle(driver.revision)
        return None

    async def reconcile(self, driver_id: DriverId) -> float | None:
        """Take one step for this driver, once all that is recorded of it is durable (promise 6). Return after how many seconds
        to look again, None: never by itself."""
        # The record comes first: what is made or ended below is found again after a crash at any point.
        driver = await self._recorded(driver_id)
        if driver is None:
            return None
        seen: Observation | None = None
        if driver.state is not DriverState.PENDING:
            provisioner = self._provisioners[driver.provisioner]
            async with asyncio.timeout(CALL_LIMIT):
                seen = await provisioner.observe(driver.id, driver.handle, self._profile(driver))
            driver = self._see(driver_id, seen)
            if driver is None:
                return 0.0
        step = plan.next_step(driver, seen, self._authority.serving.now())
        async with asyncio.timeout(CALL_LIMIT):
            seen = await self._carry_out(driver, step) or seen
        # It may have gone on while the world was being changed.
        driver = self._authority.drivers.get(driver_id)
        if driver is None:
            return None
        self._apply(driver, step, seen)
        return plan.look_again(step, self._authority.drivers.get(driver_id, driver), seen)

    async def _carry_out(self, driver: Driver, step: plan.Step) -> Observation | None:
        """The part of a step that is done to the world; return what was seen by it, if anything."""
        provisioner = self._provisioners[driver.provisioner]
        match step:
            case plan.Create():
                return await provisioner.create(self._request(driver))
            case plan.EndSessions(sessions):
                for session_id in sessions:
                    await provisioner.end_session(driver.id, driver.handle, self._profile(driver), session_id)
            case plan.Delete(force):
                await provisioner.delete(driver.id, driver.handle, force=force)
            case plan.Wait() | plan.BecomeReady() | plan.Stop() | plan.Gone():
                pass
            case _:
                assert_never(step)
        return None

    def _request(self, driver: Driver) -> DriverRequest:
        lease = self._authority.leases[driver.lease_id] if driver.lease_id else None
        if lease is None:
            raise ProvisionerFailed(f"driver {driver.id} has no lease to be made for", retryable=False)
        return DriverRequest.of(driver, lease, self._profile(driver))

    def _profile(self, driver: Driver) -> Profile:
        """A driver that nobody recorded has none: ending it needs none, but the call has to say something."""
        profile = self._authority.profiles.get(driver.profile_fingerprint)
        return profile if profile is not None else Profile.unknown(driver.provisioner)

    # -- what was seen and done becomes what is recorded; no await between the read and the write

    def _lease_of(self, driver: Driver) -> Lease | None:
        """The lease that this driver fills now (not one that has gone on to another attempt)."""
        lease = self._authority.leases.get(driver.lease_id) if driver.lease_id else None
        return lease if lease is not None and lease.driver_id == driver.id and not lease.terminal else None

    def _see(self, driver_id: DriverId, seen: Observation) -> Driver | None:
        """Record what has changed of the driver itself; return it as it is now."""
        driver = self._authority.drivers.get(driver_id)
        if driver is None:
            return None
        self._authority.note_executors(driver_id, seen.executors)
        self._authority.record(transition.look(driver, self._lease_of(driver), seen))
        return self._authority.drivers[driver_id]

    def _apply(self, driver: Driver, step: plan.Step, seen: Observation | None = None) -> None:
        changes = transition.apply(
            driver,
            self._lease_of(driver),
            step,
            seen=seen,
            max_attempts=self._profile(driver).max_attempts,
            now=self._authority.now(),
        )
        self._authority.record(changes)
        _log(driver, changes)


def _log(driver: Driver, changes: Changes) -> None:
    lease = changes.lease
    if changes.forgotten:
        log.warning("driver.orphan_ended", driver=driver.id)
    if lease is None or lease.state is LeaseState.QUEUED:
        return
    if lease.state is LeaseState.READY:
        log.info("lease.ready", lease=lease.id, driver=driver.id)
    elif lease.state is LeaseState.PROVISIONING:
        log.warning(
            "driver.start_failed", lease=lease.id, driver=driver.id, attempt=lease.attempt, message=lease.message
        )
    elif lease.state is LeaseState.RELEASING:
        log.warning("lease.failed", lease=lease.id, driver=driver.id, reason=str(lease.reason), message=lease.message)
    else:
        log.info("lease.ended", lease=lease.id, state=str(lease.state), reason=str(lease.reason))
