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
from sparkbroker.broker.domain.lease.driver import Driver, DriverState, move, seen_with
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
from sparkbroker.broker.domain.lease.timings import Timings
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
    )  # fmt: skip
    def acquire(self, queue, pool, cores, memory, priority, sharing):
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

    @rule()
    def admit(self):
        while admitted := self.admission.admit_next(self.ledger, lambda w: f"d{self.count}-{w.lease_id}"):
            self.count += 1
            lease = self.leases[admitted.waiting.lease_id]
            driver = Driver(
                id=DriverId(admitted.owner), lease_id=lease.id, attempt=lease.attempt, provisioner="local",
                profile_fingerprint="f", queue=lease.spec.queue, pool=lease.pool, target=lease.charge,
                created=WALL, start_deadline=ServingTime(self.now + 9),
            )  # fmt: skip
            self.drivers[driver.id] = driver
            self.leases[lease.id] = steps.admit(lease, driver.id, WALL)
            for name in lease.charge.quantities:
                if lease.charge[name]:
                    assert name not in self.limits[driver.queue].quantities or (
                        self.ledger.used(driver.queue)[name] <= self.limits[driver.queue][name]
                    )
                    assert self.ledger.pool_used(driver.pool)[name] <= POOLS[driver.pool][name]
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

    @rule(index=INDEX)
    def ready(self, index):
        lease = self.pick(index, lambda v: v.state is LeaseState.PROVISIONING)
        if lease is not None and self.drivers[driver_of(lease)].state is DriverState.PENDING:
            self.drivers[driver_of(lease)] = move(self.drivers[driver_of(lease)], DriverState.READY)
            self.leases[lease.id] = steps.become_ready(lease, lease.timings, ServingTime(self.now))

    @rule(index=INDEX, outcome=st.sampled_from([LeaseState.RELEASED, LeaseState.EXPIRED, LeaseState.FAILED]))
    def end(self, index, outcome):
        lease = self.pick(index, lambda v: v.live)
        if lease is None:
            return
        self.admission.remove(lease.id)
        self.leases[lease.id] = steps.end(lease, outcome, LeaseReason.UNSPECIFIED, "m", WALL)
        if lease.driver_id is not None:
            self.stop(driver_of(lease))

    @rule(index=INDEX)
    def start_fails(self, index):
        lease = self.pick(index, lambda v: v.state is LeaseState.PROVISIONING)
        if lease is not None:
            self.stop(driver_of(lease))

    def stop(self, driver_id: DriverId) -> None:
        if self.drivers[driver_id].state is not DriverState.STOPPING:
            self.drivers[driver_id] = move(self.drivers[driver_id], DriverState.STOPPING)

    @rule(index=INDEX)
    def gone(self, index):
        stopping = [driver for driver in self.drivers.values() if driver.state is DriverState.STOPPING]
        if not stopping:
            return
        driver = stopping[index % len(stopping)]
        self.drivers[driver.id] = move(driver, DriverState.GONE)
        self.ledger.release(driver.id)
        lease = self.leases[driver.lease_id]
        if lease.state is LeaseState.RELEASING:
            self.leases[lease.id] = steps.finish(lease, WALL)
        else:
            self.leases[lease.id] = steps.requeue(lease, ServingTime(self.now), "again")
            self.wait(self.leases[lease.id])

    @rule(index=INDEX, cores=st.integers(0, 14), memory=st.integers(0, 14))
    def is_seen(self, index, cores, memory):
        """It has grown, or shrunk: it is charged for that, and never for less than it was promised."""
        running = [driver for driver in self.drivers.values() if driver.state is not DriverState.GONE]
        if running:
            driver = running[index % len(running)]
            resources = Resources.of(cores=cores, memory=memory)
            driver = seen_with(driver, {}, resources)
            assert driver.charge == driver.target.maximum(resources)
            self.drivers[driver.id] = driver
            assert self.ledger.resize(driver.id, driver.charge)

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
            running = [lease for lease in self.leases.values() if lease.state in CHARGED]
            if not running:
                break
            for lease in running:
                if lease.live:
                    self.leases[lease.id] = steps.end(lease, LeaseState.RELEASED, LeaseReason.UNSPECIFIED, "m", WALL)
                self.stop(driver_of(lease))
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
            owners = [d for d in self.drivers.values() if d.lease_id == lease.id and d.state is not DriverState.GONE]
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
    run_state_machine_as_test(Broker, settings=settings(max_examples=120, stateful_step_count=50, deadline=None))
