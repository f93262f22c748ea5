"""All of it together: leases and drivers by their tables, the ledger and admission, over any interleaving."""

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from sparkbroker.broker.domain.admission.cycle import Admission, Waiting
from sparkbroker.broker.domain.capacity.ledger import Ledger
from sparkbroker.broker.domain.capacity.queue import Queue
from sparkbroker.broker.domain.capacity.resources import Resources, total
from sparkbroker.broker.domain.lease import lease as steps
from sparkbroker.broker.domain.lease import plan, transition
from sparkbroker.broker.domain.lease.driver import Driver, DriverExit, DriverState
from sparkbroker.broker.domain.lease.expiry import next_due, verdict
from sparkbroker.broker.domain.lease.lease import (
    CHARGED,
    Attachment,
    ContainerSize,
    Lease,
    LeaseReason,
    LeaseSharing,
    LeaseSpec,
    LeaseState,
)
from sparkbroker.broker.domain.lease.observation import Observation, Phase
from sparkbroker.broker.domain.lease.timings import Timings
from sparkbroker.broker.domain.lease.transition import Changes, Now
from sparkbroker.broker.domain.units import (
    DriverId,
    Epoch,
    Generation,
    LeaseId,
    Principal,
    Seconds,
    ServingTime,
    WallTime,
)

QUEUES = {
    "a": Queue(name="a", nominal=Resources.of(cores=6), bypass_budget=2),
    "b": Queue(name="b", nominal=Resources.of(cores=8, memory=8), bypass_budget=2),
}
POOLS = {"p": Resources.of(cores=10, memory=12), "r": Resources.of(cores=3, memory=12)}
WALL = WallTime(1.0)
INDEX = st.integers(0, 1000)
MAX_ATTEMPTS = 3


def driver_of(lease: Lease) -> DriverId:
    assert lease.driver_id is not None
    return lease.driver_id


class Broker(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.leases: dict[LeaseId, Lease] = {}
        self.drivers: dict[DriverId, Driver] = {}
        self.now, self.epoch, self.count = 0.0, 1, 0
        self.began = {Epoch(1): ServingTime(0.0)}
        self.limits = {name: queue.nominal for name, queue in QUEUES.items()}
        self.fenced: dict[LeaseId, int] = {}
        self.back: set[DriverId] = set()
        """Those that were confirmed gone and run again: the world's doing, and not the broker's."""
        self.rebuild()

    def rebuild(self) -> None:
        """What a recovery does: from the rows, and nothing else."""
        self.ledger = Ledger(self.limits, POOLS)
        self.admission = Admission(QUEUES)
        for driver in self.drivers.values():
            if driver.state is not DriverState.GONE:
                self.ledger.charge(driver.id, driver.queue, driver.pool, driver.charge, force=True)
        for lease in self.leases.values():
            if lease.state is LeaseState.QUEUED:
                self.wait(lease)

    def wait(self, lease: Lease) -> None:
        self.admission.add(
            Waiting(
                lease_id=lease.id, queue=lease.spec.queue, pool=lease.pool, amount=lease.charge,
                priority=lease.spec.priority, enqueued=lease.enqueued,
            )
        )  # fmt: skip

    def pick(self, index: int, accept: Callable[[Lease], bool]) -> Lease | None:
        found = [lease for lease in self.leases.values() if accept(lease)]
        return found[index % len(found)] if found else None

    @rule(
        queue=st.sampled_from(sorted(QUEUES)), pool=st.sampled_from(sorted(POOLS)), cores=st.integers(1, 6),
        memory=st.integers(0, 6), priority=st.integers(-2, 2), sharing=st.sampled_from(LeaseSharing),
        at_once=st.booleans(),
    )  # fmt: skip
    def acquire(self, queue, pool, cores, memory, priority, sharing, at_once):
        self.count += 1
        size = ContainerSize(cores=cores, memory=memory)
        spec = LeaseSpec(
            profile="p", queue=queue, driver=size, priority=priority, sharing=sharing, ttl=Seconds(5.0),
            wait_ttl=Seconds(20.0), unattended_ttl=Seconds(10.0),
        )  # fmt: skip
        lease = Lease(
            id=LeaseId(f"l{self.count}"), principal=Principal("ann"), spec=spec, profile_fingerprint="f", pool=pool,
            charge=Resources.of(cores=cores, memory=memory), timings=Timings(queued=WALL),
            enqueued=ServingTime(self.now), wait_deadline=ServingTime(self.now + 20), renewed_epoch=Epoch(self.epoch),
        )  # fmt: skip
        self.leases[lease.id] = lease
        self.wait(lease)
        if at_once:
            self.admit()

    @rule()
    def admit(self):
        while admitted := self.admission.admit_next(self.ledger, lambda w: f"d{self.count}-{w.lease_id}"):
            self.count += 1
            lease = self.leases[admitted.waiting.lease_id]
            self.record(
                transition.admit(
                    lease, DriverId(admitted.owner), provisioner="local", start_timeout=9.0, now=self.moment()
                )
            )
            queue, pool = lease.spec.queue, lease.pool
            for name in lease.charge.quantities:
                if lease.charge[name]:
                    assert name not in self.limits[queue].quantities or (
                        self.ledger.used(queue)[name] <= self.limits[queue][name]
                    )
                    assert self.ledger.pool_used(pool)[name] <= POOLS[pool][name]
        self.nothing_was_overlooked()

    def nothing_was_overlooked(self) -> None:
        """A look at everything, without what was remembered, finds nothing either; the first in each line can't go."""
        for queue in QUEUES:
            message = self.admission.blocking_message(queue, self.ledger)
            assert "what it asks is free" not in message
            assert (message == "") is (self.admission.queue_length(queue) == 0)
        for line in self.admission._lines.values():
            self.admission._change(line)
        assert self.admission.admit_next(self.ledger, lambda w: "overlooked") is None

    def moment(self) -> Now:
        return Now(ServingTime(self.now), WALL)

    def record(self, changes: Changes) -> None:
        """As ``app.authority`` and ``app.admitter`` do."""
        if changes.driver is not None:
            driver = self.drivers[changes.driver.id] = changes.driver
            if driver.state is DriverState.GONE:
                self.ledger.release(driver.id)
            elif not self.ledger.resize(driver.id, driver.charge):
                assert driver.state is DriverState.STOPPING, "admission charges what is to be made"
                self.ledger.charge(driver.id, driver.queue, driver.pool, driver.charge, force=True)
            if changes.forgotten:
                del self.drivers[driver.id]
        lease = changes.lease or changes.noted
        if lease is not None:
            self.leases[lease.id] = lease
            if lease.state is LeaseState.QUEUED:
                self.wait(lease)

    def pick_driver(self, index: int, *states: DriverState) -> Driver | None:
        found = [driver for driver in self.drivers.values() if driver.state in states]
        return found[index % len(found)] if found else None

    def filled_by(self, driver: Driver) -> Lease | None:
        lease = None if driver.lease_id is None else self.leases[driver.lease_id]
        return lease if lease is not None and lease.driver_id == driver.id and not lease.terminal else None

    def apply(self, driver: Driver, step: plan.Step, seen: Observation | None = None) -> None:
        self.record(
            transition.apply(
                driver, self.filled_by(driver), step, seen=seen, max_attempts=MAX_ATTEMPTS, now=self.moment()
            )
        )

    def create(self, driver: Driver) -> None:
        self.apply(driver, plan.Create(), Observation(driver_id=driver.id, phase=Phase.STARTING, handle={"pid": 1}))
        assert self.drivers[driver.id].handle == {"pid": 1}, "what was made can be found again"

    @rule(index=INDEX)
    def starts(self, index):
        """Or has ended while it was made."""
        if driver := self.pick_driver(index, DriverState.PENDING, DriverState.STOPPING):
            self.create(driver)

    @rule(index=INDEX)
    def ready(self, index):
        """Or has ended meanwhile."""
        self.admit()
        if driver := self.pick_driver(index, DriverState.PENDING, DriverState.STARTING, DriverState.STOPPING):
            if driver.state is DriverState.PENDING:
                self.create(driver)
            seen = Observation(driver_id=driver.id, phase=Phase.READY)
            self.apply(self.drivers[driver.id], plan.BecomeReady(), seen)

    @rule(index=INDEX, outcome=st.sampled_from([LeaseState.RELEASED, LeaseState.EXPIRED, LeaseState.FAILED]))
    def end(self, index, outcome):
        lease = self.pick(index, lambda v: v.live)
        if lease is not None:
            self.admission.remove(lease.id)
            self.finish(lease, outcome)

    def finish(self, lease: Lease, outcome: LeaseState) -> None:
        driver = None if lease.driver_id is None else self.drivers[lease.driver_id]
        self.record(transition.end(lease, driver, outcome, LeaseReason.UNSPECIFIED, "m", self.moment()))

    @rule(index=INDEX, misconfigured=st.booleans(), out_of_memory=st.booleans())
    def fails(self, index, misconfigured, out_of_memory):
        driver = self.pick_driver(index, *set(DriverState) - {DriverState.GONE})
        if driver is None:
            return
        before = self.filled_by(driver)
        exit = DriverExit(out_of_memory=True) if out_of_memory else None
        self.apply(driver, plan.Stop("m", exit, misconfigured=misconfigured))
        assert self.drivers[driver.id].state is DriverState.STOPPING
        if before is not None and before.state is LeaseState.READY:
            after = self.leases[before.id]
            assert (after.state, after.outcome) == (LeaseState.RELEASING, LeaseState.FAILED), "it is never tried again"

    @rule(index=INDEX)
    def gone(self, index):
        driver = self.pick_driver(index, DriverState.STOPPING)
        if driver is not None:
            self.apply(driver, plan.Gone())

    @rule(index=INDEX, pool=st.sampled_from(sorted(POOLS)), cores=st.integers(1, 6))
    def is_found_running(self, index, pool, cores):
        """Nobody recorded it, or it was confirmed gone."""
        gone = self.pick_driver(index, DriverState.GONE)
        resources = Resources.of(cores=cores)
        if gone is not None and index % 2:
            seen = Observation(driver_id=gone.id, phase=Phase.READY, resources=resources)
            self.record(transition.come_back(gone, seen, self.moment()))
            self.back.add(gone.id)
        else:
            self.count += 1
            seen = Observation(driver_id=DriverId(f"o{self.count}"), phase=Phase.READY, resources=resources, pool=pool)
            self.record(transition.find("local", seen, self.moment()))

    @rule(index=INDEX, cores=st.integers(0, 14), memory=st.integers(0, 14))
    def is_seen(self, index, cores, memory):
        """It has grown, or shrunk: it is charged for that, and never for less than it was promised."""
        driver = self.pick_driver(index, *set(DriverState) - {DriverState.GONE})
        if driver is not None:
            resources = Resources.of(cores=cores, memory=memory)
            seen = Observation(driver_id=driver.id, phase=Phase.STARTING, resources=resources)
            self.record(transition.look(driver, self.filled_by(driver), seen))
            assert self.drivers[driver.id].charge == driver.target.maximum(resources)

    @rule(index=INDEX)
    def attach(self, index):
        lease = self.pick(index, lambda v: v.live)
        if lease is None:
            return
        generation = Generation(lease.generation + 1)
        attached = steps.attach(
            lease,
            Attachment(
                id=f"{lease.id}/{generation}", generation=generation, session_id="s", attached_at=WALL,
                deadline=ServingTime(self.now + 5), renewed_epoch=Epoch(self.epoch),
            ),
        )  # fmt: skip
        if lease.spec.sharing is LeaseSharing.EXCLUSIVE:
            self.fenced[lease.id] = lease.generation
        self.leases[lease.id] = attached

    @rule(index=INDEX, generation=st.integers(0, 4))
    def renew_or_detach(self, index, generation):
        lease = self.pick(index, lambda v: v.live)
        if lease is None:
            return
        now = ServingTime(self.now)
        renewed = steps.renew(lease, Generation(generation), now, Epoch(self.epoch))
        if generation and lease.attachment(Generation(generation)) is None:
            assert renewed.attachments == lease.attachments
            return
        self.leases[lease.id] = steps.detach(renewed, Generation(generation), now) if generation % 2 else renewed

    @rule(seconds=st.floats(0.1, 7))
    def time_passes(self, seconds):
        self.now += seconds

    @rule()
    def the_broker_crashes_and_recovers(self):
        self.epoch += 1
        self.began[Epoch(self.epoch)] = ServingTime(self.now)
        for lease in list(self.leases.values()):
            self.leases[lease.id] = steps.recover(lease, self.began)
        self.rebuild()

    @rule(queue=st.sampled_from(sorted(QUEUES)), cores=st.integers(1, 12))
    def the_quota_changes(self, queue, cores):
        self.limits = {**self.limits, queue: Resources.of(cores=cores)}
        self.ledger.reconfigure(self.limits, POOLS)

    @precondition(lambda self: self.leases)
    @rule()
    def everything_ends(self):
        """Nothing is left charged, and nothing that can fit waits for ever."""
        for _ in range(1000):
            self.admit()
            running = [driver for driver in self.drivers.values() if driver.state is not DriverState.GONE]
            if not running:
                break
            for lease in list(self.leases.values()):
                if lease.live and lease.driver_id is not None:
                    self.finish(lease, LeaseState.RELEASED)
            for _ in running:
                self.gone(0)
        assert len(self.ledger) == 0
        for lease in self.leases.values():
            if lease.state is LeaseState.QUEUED:
                assert self.ledger.never_fits(lease.spec.queue, lease.pool, lease.charge), f"{lease.id} is starved"

    @invariant()
    def charges_are_the_sum_over_drivers(self):
        self.ledger.check()
        for queue in QUEUES:
            charges = {str(d.id): d.charge for d in self.drivers.values() if d.queue == queue}
            expected = total(charges).quantities
            assert self.ledger.used(queue).quantities == {name: v for name, v in expected.items() if v}

    @invariant()
    def leases_and_drivers_agree(self):
        for lease in self.leases.values():
            assert (lease.id in self.admission) is (lease.state is LeaseState.QUEUED)
            if lease.state in CHARGED:
                assert self.drivers[driver_of(lease)].state is not DriverState.GONE
            owners = [
                driver for driver in self.drivers.values()
                if driver.lease_id == lease.id and driver.state is not DriverState.GONE and driver.id not in self.back
            ]  # fmt: skip
            assert len(owners) == (lease.state in CHARGED), "never two drivers for a lease, and none without one"

    @invariant()
    def exclusive_leases_have_one_attachment_and_old_generations_none(self):
        for lease in self.leases.values():
            if lease.spec.sharing is LeaseSharing.EXCLUSIVE:
                assert len(lease.attachments) <= 1
            assert all(a.generation > self.fenced.get(lease.id, 0) for a in lease.attachments)
            assert lease.live or not lease.attachments

    @invariant()
    def deadlines_are_found(self):
        for lease in self.leases.values():
            due = next_due(lease)
            assert (verdict(lease, ServingTime(self.now), watched=False) is not None) is (
                due is not None and due <= self.now
            )


@pytest.mark.promise(1)
@pytest.mark.promise(2)
@pytest.mark.promise(4)
@pytest.mark.promise(13)
def test_any_interleaving_keeps_the_promises():
    run_state_machine_as_test(Broker, settings=settings(max_examples=300, stateful_step_count=50, deadline=None))
