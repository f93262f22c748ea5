"""Brings the world to what is recorded, one driver at a time: intent is committed before anything is made, and capacity
is freed only when a driver is confirmed gone (promises 5, 6, 7)."""

import asyncio
from collections.abc import Mapping
from typing import Final, assert_never

import msgspec
import structlog

from sparkbroker.broker.app.admitter import Admitter
from sparkbroker.broker.app.authority import Authority
from sparkbroker.broker.app.workqueue import WorkQueue
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.errors import ProvisionerFailed, Unavailable
from sparkbroker.broker.domain.lease import plan
from sparkbroker.broker.domain.lease.driver import Driver, DriverExit, DriverState, move, seen_with
from sparkbroker.broker.domain.lease.event import EventType
from sparkbroker.broker.domain.lease.hindrance import explain, hindered, unhindered
from sparkbroker.broker.domain.lease.lease import (
    Lease,
    LeaseReason,
    LeaseState,
    become_ready,
    end,
    finish,
    requeue,
    retrying,
)
from sparkbroker.broker.domain.lease.observation import Observation, Phase
from sparkbroker.broker.domain.lease.timings import durations, seen_starting
from sparkbroker.broker.domain.units import DriverId, Generation
from sparkbroker.broker.ports.clock import Clock
from sparkbroker.broker.ports.metrics import Metrics
from sparkbroker.broker.ports.provisioner import DriverRequest, Provisioner

log = structlog.get_logger()

WORKERS: Final = 16
"""Drivers that are worked on at a time, not counting those whose call takes longer than SLOW: a provisioner that hangs
for some of them delays no others (promise 13). How many there can be of these is bounded by the capacity."""
SLOW: Final = 2.0
CALL_LIMIT: Final = 60.0
"""Seconds that one call of a provisioner may take."""


class Reconciler:
    """One worker per driver at a time. ``<Reconciler <WorkQueue […]>>``."""

    def __init__(
        self, authority: Authority, provisioners: Mapping[str, Provisioner], clock: Clock, metrics: Metrics
    ) -> None:
        self._authority = authority
        self._provisioners = provisioners
        self._clock = clock
        self._metrics = metrics
        self._queue: WorkQueue[DriverId] = WorkQueue()
        self._session_waiters: dict[DriverId, set[asyncio.Future[None]]] = {}
        self.admitter: Admitter | None = None

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
                group.create_task(self._work(driver_id, _Slot(slots)), name=f"reconcile-{driver_id}")

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

    async def _work(self, driver_id: DriverId, slot: "_Slot") -> None:
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
        again = not self._give_up(driver_id, error)
        log.warning("driver.call_failed", driver=driver_id, message=error.message, retries=again)
        driver, lease = self._told_of(driver_id)
        # What failed of a start that was given up meanwhile isn't what its end waits for.
        if again and lease is not None and begun is not None and driver is not None and driver.state is begun.state:
            self._note(lease, hindered(lease, error.message))
        return again

    def _call_succeeded(self, driver_id: DriverId) -> None:
        _, lease = self._told_of(driver_id)
        if lease is not None:
            self._note(lease, unhindered(lease))

    def _told_of(self, driver_id: DriverId) -> tuple[Driver | None, Lease | None]:
        driver = self._authority.drivers.get(driver_id)
        return driver, None if driver is None else self._lease_of(driver)

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
        """Take one step for this driver; return after how many seconds to look again, None: never by itself."""
        # The record comes first: what is made or ended below is found again after a crash at any point.
        driver = await self._recorded(driver_id)
        if driver is None:
            return None
        provisioner = self._provisioners[driver.provisioner]
        profile = self._authority.profiles.get(driver.profile_fingerprint)
        seen: Observation | None = None
        if driver.state is not DriverState.PENDING:
            async with asyncio.timeout(CALL_LIMIT):
                seen = await provisioner.observe(driver.id, driver.handle, _of(profile, driver))
            driver = self._see(driver_id, seen)
            if driver is None:
                return 0.0
        step = plan.next_step(driver, seen, self._authority.serving.now())
        async with asyncio.timeout(CALL_LIMIT):
            return await self._take(provisioner, profile, driver, seen, step)

    async def _take(
        self,
        provisioner: Provisioner,
        profile: Profile | None,
        driver: Driver,
        seen: Observation | None,
        step: plan.Step,
    ) -> float | None:
        match step:
            case plan.Create():
                seen = await provisioner.create(self.request(driver, _of(profile, driver)))
                return self._created(driver.id, seen)
            case plan.Wait(after):
                return after
            case plan.BecomeReady():
                self._ready(driver, seen)
                return plan.READY_POLL
            case plan.EndSessions(sessions):
                for session_id in sessions:
                    await provisioner.end_session(driver.id, driver.handle, _of(profile, driver), session_id)
                self._sessions_ended(driver.id, sessions)
                return plan.READY_POLL
            case plan.Stop(message, exit):
                self._stop(driver, message, exit)
                return 0.0
            case plan.Delete(force):
                await provisioner.delete(driver.id, driver.handle, force=force)
                return plan.STOPPING_POLL
            case plan.Gone(exit):
                self._gone(driver, exit)
                return None
            case _:
                assert_never(step)

    def request(self, driver: Driver, profile: Profile) -> DriverRequest:
        """What its provisioner is to make, as its lease was granted."""
        lease = self._authority.leases[driver.lease_id] if driver.lease_id else None
        if lease is None:
            raise ProvisionerFailed(f"driver {driver.id} has no lease to be made for", retryable=False)
        return DriverRequest(
            driver_id=driver.id,
            attempt=driver.attempt,
            spec=lease.spec,
            profile=profile,
            profile_fingerprint=driver.profile_fingerprint,
            target=driver.target,
            principal=lease.principal,
        )

    # -- what was seen becomes what is recorded; no await between the read and the write

    def _lease_of(self, driver: Driver) -> Lease | None:
        """The lease that this driver fills now (not one that has gone on to another attempt)."""
        lease = self._authority.leases.get(driver.lease_id) if driver.lease_id else None
        return lease if lease is not None and lease.driver_id == driver.id and not lease.terminal else None

    def _created(self, driver_id: DriverId, seen: Observation) -> float:
        driver = self._authority.drivers[driver_id]
        if driver.state is DriverState.PENDING:
            driver = self._put_seen(move(driver, DriverState.STARTING, handle=seen.handle, observed=seen.resources))
            self._note_phases(driver, seen)
            return 0.0 if seen.phase is not Phase.STARTING else plan.STARTING_POLL
        # It was released meanwhile: what was made has to be found again to be ended.
        self._put_seen(msgspec.structs.replace(driver, handle=seen.handle, observed=seen.resources))
        return 0.0

    def _see(self, driver_id: DriverId, seen: Observation) -> Driver | None:
        """Record what has changed of the driver itself; return it as it is now."""
        driver = self._authority.drivers.get(driver_id)
        if driver is None:
            return None
        self._authority.note_executors(driver_id, seen.executors)
        noticed = seen_with(driver, seen.handle, seen.resources)
        if noticed is not driver:
            driver = self._put_seen(noticed)
        self._note_phases(driver, seen)
        return driver

    def _put_seen(self, driver: Driver) -> Driver:
        before = self._authority.drivers[driver.id].charge
        driver = self._authority.put_driver(driver)
        if self.admitter is not None and not before.fits(driver.charge):
            self.admitter.soon()  # some of it is free
        return driver

    def _note_phases(self, driver: Driver, seen: Observation) -> None:
        """Phase timings and hindrances as they happen."""
        lease = self._lease_of(driver)
        if lease is None or driver.state in (DriverState.STOPPING, DriverState.GONE):
            return
        noted = lease
        if lease.state is LeaseState.PROVISIONING:
            noted = msgspec.structs.replace(lease, timings=seen_starting(lease.timings, seen))
        self._note(lease, explain(noted, seen.message))

    def _ready(self, driver: Driver, seen: Observation | None) -> None:
        if driver.state is not DriverState.STARTING:
            return
        self._authority.put_driver(move(driver, DriverState.READY))
        lease = self._lease_of(driver)
        if lease is None or lease.state is not LeaseState.PROVISIONING:
            return
        ready = seen.ready if seen is not None and seen.ready is not None else self._clock.wall()
        timings = msgspec.structs.replace(lease.timings, ready=ready)
        now = self._authority.serving.now()
        lease = self._authority.put_lease(become_ready(lease, timings, now), (EventType.STATE, Generation(0)))
        for name, seconds in durations(timings).items():
            self._metrics.phase(name, seconds)
        log.info("lease.ready", lease=lease.id, driver=driver.id)

    def _sessions_ended(self, driver_id: DriverId, sessions: tuple[str, ...]) -> None:
        driver = self._authority.drivers.get(driver_id)
        if driver is not None:
            left = tuple(session for session in driver.ending_sessions if session not in sessions)
            self._authority.put_driver(msgspec.structs.replace(driver, ending_sessions=left))
        for waiter in self._session_waiters.pop(driver_id, ()):
            if not waiter.done():
                waiter.set_result(None)

    async def sessions_ended(self, driver_id: DriverId) -> None:
        """Wait until the Spark sessions of this driver's former attachments are ended, or it is. The caller bounds
        it in time."""
        while (driver := self._authority.drivers.get(driver_id)) is not None and driver.ending_sessions:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiters = self._session_waiters.setdefault(driver_id, set())
            waiters.add(waiter)
            self.enqueue(driver_id)
            try:
                await waiter
            finally:
                waiters.discard(waiter)
                if not waiters and self._session_waiters.get(driver_id) is waiters:
                    del self._session_waiters[driver_id]

    def stop(self, driver: Driver, message: str) -> None:
        """Its lease has no more use for it."""
        if driver.state not in (DriverState.STOPPING, DriverState.GONE):
            now = self._authority.serving.now()
            self._authority.put_driver(
                move(driver, DriverState.STOPPING, stop_requested=now, stop_message=message, ending_sessions=())
            )
            self._sessions_ended(driver.id, ())
        self.enqueue(driver.id)

    def _stop(self, driver: Driver, message: str, exit: DriverExit | None, *, misconfigured: bool = False) -> None:
        """It has failed: so has its lease, or this attempt of it."""
        if driver.state in (DriverState.STOPPING, DriverState.GONE):
            return
        lost = driver.state is DriverState.READY
        driver = msgspec.structs.replace(driver, exit=exit, misconfigured=misconfigured)
        self.stop(driver, message)
        lease = self._lease_of(driver)
        if lease is None or not lease.live:
            return
        profile = self._authority.profiles[lease.profile_fingerprint]
        if not lost and not misconfigured and lease.attempt < profile.max_attempts:
            text = f"{message}; attempt {lease.attempt + 1} of {profile.max_attempts} follows"
            self._authority.put_lease(retrying(lease, text), (EventType.STATE, Generation(0)))
            log.warning("driver.start_failed", lease=lease.id, driver=driver.id, attempt=lease.attempt, message=text)
            return
        reason = LeaseReason.DRIVER_LOST if lost else LeaseReason.START_FAILED
        if exit is not None and exit.out_of_memory:
            reason = LeaseReason.OUT_OF_MEMORY
        elif misconfigured:
            reason = LeaseReason.MISCONFIGURED
        ended = end(lease, LeaseState.FAILED, reason, message, self._clock.wall(), exit)
        self._authority.put_lease(ended, (EventType.STATE, Generation(0)))
        log.warning("lease.failed", lease=lease.id, driver=driver.id, reason=str(reason), message=message)

    def _give_up(self, driver_id: DriverId, error: ProvisionerFailed) -> bool:
        """A call failed for good while its driver was being made: that ends the attempt. False: try the call again."""
        driver = self._authority.drivers.get(driver_id)
        if driver is None or driver.state not in (DriverState.PENDING, DriverState.STARTING):
            return False
        overdue = self._authority.serving.now() >= driver.start_deadline
        if error.retryable and not overdue:
            return False
        self._stop(driver, error.message, None, misconfigured=error.misconfigured)
        return True

    def _gone(self, driver: Driver, exit: DriverExit | None) -> None:
        self._authority.put_driver(move(driver, DriverState.GONE, exit=driver.exit or exit))
        wall = self._clock.wall()
        lease = self._lease_of(driver)
        admitter = self.admitter
        if lease is not None and lease.state is LeaseState.RELEASING:
            lease = self._authority.put_lease(finish(lease, wall), (EventType.STATE, Generation(0)))
            log.info("lease.ended", lease=lease.id, state=str(lease.state), reason=str(lease.reason))
        elif lease is not None and lease.state is LeaseState.PROVISIONING:
            lease = requeue(lease, self._authority.serving.now(), lease.why)
            lease = self._authority.put_lease(lease, (EventType.STATE, Generation(0)))
            if admitter is not None:
                admitter.add(lease)
        elif driver.lease_id is None:
            log.warning("driver.orphan_ended", driver=driver.id)
            self._authority.drop_driver(driver.id)
        if admitter is not None:
            admitter.soon()


class _Slot:
    """One of the WORKERS, given back at the end of the work, or earlier if it turns out to be slow."""

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots: asyncio.Semaphore | None = slots
        self._timer = asyncio.get_running_loop().call_later(SLOW, self.free)

    def free(self) -> None:
        """Idempotent."""
        self._timer.cancel()
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.release()


def _of(profile: Profile | None, driver: Driver) -> Profile:
    """A driver that nobody recorded has no profile: ending it needs none, but the call has to say something."""
    return profile if profile is not None else Profile.unknown(driver.provisioner)
