from itertools import product

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.errors import IllegalTransition
from sparkbroker.broker.domain.lease import lease as steps
from sparkbroker.broker.domain.lease.driver import DRIVER_TRANSITIONS, Driver, DriverState, move, seen_with
from sparkbroker.broker.domain.lease.expiry import NEVER, Detach, End, next_due, verdict
from sparkbroker.broker.domain.lease.hindrance import hindered, unhindered
from sparkbroker.broker.domain.lease.lease import (
    CHARGED,
    LIVE,
    TERMINAL,
    TRANSITIONS,
    Attachment,
    LeaseReason,
    LeaseSharing,
    LeaseState,
)
from sparkbroker.broker.domain.units import DriverId, Epoch, Generation, ServingTime, WallTime


def attachment(generation: int, deadline: float = 20.0, epoch: int = 1) -> Attachment:
    return Attachment(
        id=f"a{generation}",
        generation=Generation(generation),
        session_id=f"s{generation}",
        attached_at=WallTime(1.0),
        deadline=ServingTime(deadline),
        renewed_epoch=Epoch(epoch),
    )


def shared(lease):
    return msgspec.structs.replace(lease, spec=msgspec.structs.replace(lease.spec, sharing=LeaseSharing.SHARED))


@pytest.mark.parametrize(("source", "target"), list(product(LeaseState, LeaseState)))
def test_a_lease_moves_as_the_table_says_and_not_else(make_lease, source, target):
    lease = make_lease(state=source)
    if target in TRANSITIONS[source]:
        assert steps._move(lease, target, LeaseReason.UNSPECIFIED, "m").state is target
    else:
        with pytest.raises(IllegalTransition):
            steps._move(lease, target, LeaseReason.UNSPECIFIED, "m")


@pytest.mark.parametrize(("source", "target"), list(product(DriverState, DriverState)))
def test_a_driver_moves_as_the_table_says_and_not_else(source, target):
    driver = Driver(
        id=DriverId("d"), provisioner="local", profile_fingerprint="f", queue="q", pool="p", state=source,
        target=Resources.of(cores=1), created=WallTime(0.0), start_deadline=ServingTime(1.0),
    )  # fmt: skip
    if target in DRIVER_TRANSITIONS[source]:
        assert move(driver, target).state is target
    else:
        with pytest.raises(IllegalTransition):
            move(driver, target)


def test_states_are_live_or_charged_or_terminal():
    assert set(LeaseState) == LIVE | TERMINAL | {LeaseState.RELEASING}
    assert not LIVE & TERMINAL
    assert not CHARGED & TERMINAL
    assert all(not TRANSITIONS[state] for state in TERMINAL)


@pytest.mark.parametrize("state", LeaseState)
@pytest.mark.parametrize("outcome", sorted(TERMINAL))
def test_a_lease_with_a_driver_ends_only_through_releasing(make_lease, state, outcome):
    lease = make_lease(state=state, driver_id=DriverId("d"), attachments=(attachment(1),))
    if state not in (LeaseState.PROVISIONING, LeaseState.READY):
        with pytest.raises(IllegalTransition):
            steps.end(lease, outcome, LeaseReason.UNSPECIFIED, "m", WallTime(2.0))
        return
    ending = steps.end(lease, outcome, LeaseReason.UNSPECIFIED, "m", WallTime(2.0))
    assert (ending.state, ending.outcome, ending.attachments) == (LeaseState.RELEASING, outcome, ())
    assert steps.finish(ending, WallTime(3.0)).state is outcome


def test_a_requeued_lease_keeps_its_place_and_counts_attempts(make_lease):
    lease = steps.admit(make_lease(), DriverId("d"), WallTime(2.0))
    again = steps.requeue(lease, ServingTime(100.0), "m")
    assert (again.state, again.attempt, again.driver_id) == (LeaseState.QUEUED, 2, None)
    assert again.enqueued == lease.enqueued
    assert again.wait_deadline == 160.0


@pytest.mark.promise(2)
def test_an_exclusive_lease_has_one_attachment_and_its_generation_grows(make_lease):
    lease = make_lease(state=LeaseState.READY)
    for generation in (1, 2, 3):
        lease = steps.attach(lease, attachment(generation))
        assert [a.generation for a in lease.attachments] == [generation]
        assert lease.generation == generation
    assert lease.attachment(Generation(2)) is None


@pytest.mark.promise(2)
def test_a_shared_lease_keeps_its_attachments(make_lease):
    lease = shared(make_lease(state=LeaseState.READY))
    for generation in (1, 2, 3):
        lease = steps.attach(lease, attachment(generation))
    assert [a.generation for a in steps.detach(lease, Generation(2), ServingTime(0.0)).attachments] == [1, 3]


@pytest.mark.promise(2)
@given(st.sets(st.integers(1, 40), max_size=12), st.integers(1, 40))
def test_a_renewal_is_of_one_attachment_and_none_other(make_lease, generations, renewed):
    lease = shared(make_lease(state=LeaseState.READY))
    for generation in sorted(generations):
        lease = steps.attach(lease, attachment(generation))
    after = steps.renew(lease, Generation(renewed), ServingTime(500.0), Epoch(9))
    assert [a.generation for a in after.attachments] == sorted(generations)
    assert {a.generation for a in after.attachments if a.renewed_epoch == 9} == generations & {renewed}
    assert after.attachment(Generation(renewed)) in (*after.attachments, None)
    assert (after.attachment(Generation(renewed)) is None) == (renewed not in generations)


@pytest.mark.promise(2)
@pytest.mark.parametrize("state", sorted(set(LeaseState) - LIVE))
def test_nothing_attaches_to_what_has_ended(make_lease, state):
    with pytest.raises(IllegalTransition):
        steps.attach(make_lease(state=state), attachment(1))


@pytest.mark.promise(2)
@given(st.integers(1, 5), st.integers(1, 5), st.floats(0, 1e6))
def test_an_old_generation_renews_nothing(make_lease, old, newer, now):
    lease = steps.attach(make_lease(state=LeaseState.READY), attachment(old + newer))
    renewed = steps.renew(lease, Generation(old), ServingTime(now), Epoch(1))
    assert renewed.attachments == lease.attachments


def test_the_last_to_detach_leaves_it_unattended(make_lease):
    lease = steps.attach(make_lease(state=LeaseState.READY, unattended_deadline=ServingTime(1.0)), attachment(1))
    assert lease.unattended_deadline is None
    lease = steps.detach(lease, Generation(1), ServingTime(7.0))
    assert (lease.unattended_deadline, lease.wait_deadline) == (47.0, 67.0)


@pytest.mark.promise(4)
@given(
    deadline=st.floats(0, 1e6),
    renewed=st.integers(1, 4),
    began=st.lists(st.floats(0, 1e6), min_size=1, max_size=5).map(sorted),
)
def test_recovery_gives_a_full_ttl_from_the_leadership_after_the_last_renewal(make_lease, deadline, renewed, began):
    starts = {Epoch(number): ServingTime(moment) for number, moment in enumerate(began, start=1)}
    lease = make_lease(
        state=LeaseState.READY,
        attachments=(attachment(1, deadline, renewed),),
        wait_deadline=ServingTime(deadline),
        renewed_epoch=Epoch(renewed),
    )
    after = steps.recover(lease, starts)
    follows = starts.get(Epoch(renewed + 1))
    if follows is None:
        assert after == lease
    else:
        assert after.attachments[0].deadline == max(deadline, follows + lease.spec.ttl)
        assert after.wait_deadline == max(deadline, follows + lease.spec.wait_ttl)


@pytest.mark.promise(4)
def test_recovery_gives_whoever_was_about_to_attach_their_time_again(make_lease):
    lease = make_lease(state=LeaseState.READY, unattended_deadline=ServingTime(4.0), renewed_epoch=Epoch(1))
    starts = {Epoch(1): ServingTime(0.0), Epoch(2): ServingTime(3.0)}
    after = steps.recover(lease, starts)
    assert after.unattended_deadline == 3.0 + lease.spec.unattended_ttl
    assert steps.recover(after, starts | {Epoch(3): ServingTime(9.0)}) == after, "once, and not at each restart"


@pytest.mark.promise(4)
def test_recovery_tells_the_attachments_of_one_lease_apart(make_lease):
    lease = shared(make_lease(state=LeaseState.READY, attachments=(attachment(1, 5.0, 1), attachment(2, 5.0, 2))))
    after = steps.recover(lease, {Epoch(2): ServingTime(3.0), Epoch(3): ServingTime(10.0)})
    assert [a.deadline for a in after.attachments] == [23.0, 30.0]


@pytest.mark.promise(4)
def test_a_dead_holder_is_found_however_often_the_broker_restarts(make_lease):
    """It restarts each 19 s of serving, of a ttl of 20 s; the holder renewed last in leadership 1."""
    lease = make_lease(state=LeaseState.READY, attachments=(attachment(1, 20.0, 1),))
    starts = {Epoch(1): ServingTime(0.0)}
    now = 0.0
    while verdict(lease, ServingTime(now), watched=False) is None:
        now += 19.0
        assert now < 60, "it is never freed"
        starts[Epoch(len(starts) + 1)] = ServingTime(now)
        lease = steps.recover(lease, starts)


@pytest.mark.parametrize("state", sorted(set(LeaseState) - LIVE))
def test_recovery_leaves_alone_what_is_not_live(make_lease, state):
    lease = make_lease(state=state)
    assert steps.recover(lease, {Epoch(2): ServingTime(1e6)}) is lease


TIMES = st.none() | st.floats(0, 1000)


@given(
    state=st.sampled_from(LeaseState), attached=st.lists(st.floats(0, 1000), max_size=3), wait=st.floats(0, 1000),
    unattended=TIMES, acquire=TIMES, most=TIMES, now=st.floats(0, 1000), keep=st.booleans(), limit=TIMES,
)  # fmt: skip
def test_nothing_is_due_before_the_next_deadline_and_something_is_at_it(
    make_lease, state, attached, wait, unattended, acquire, most, now, keep, limit
):
    lease = make_lease(
        state=state,
        attachments=tuple(attachment(i + 1, deadline) for i, deadline in enumerate(attached)),
        wait_deadline=ServingTime(wait), unattended_deadline=unattended, acquire_deadline=acquire, max_deadline=most,
    )  # fmt: skip
    spec = msgspec.structs.replace(lease.spec, keep_when_holder_lost=keep, max_duration=limit)
    lease = msgspec.structs.replace(lease, spec=spec)
    due = next_due(lease)
    if due is None or now < due:
        assert verdict(lease, ServingTime(now), watched=False) is None
    if due is not None:
        assert due < NEVER
        assert verdict(lease, due, watched=False) is not None


def test_a_lost_holder_ends_an_exclusive_lease_and_not_a_shared_one(make_lease):
    lease = make_lease(state=LeaseState.READY, attachments=(attachment(1, 20.0),))
    assert verdict(lease, ServingTime(19.9), watched=False) is None
    lost = verdict(lease, ServingTime(20.0), watched=False)
    assert isinstance(lost, End)
    assert lost.reason is LeaseReason.HOLDER_LOST
    assert verdict(shared(lease), ServingTime(20.0), watched=False) == Detach((Generation(1),))


def a_driver(**changes):
    driver = Driver(
        id=DriverId("d"), provisioner="local", profile_fingerprint="f", queue="q", pool="p", handle={"pid": 1},
        target=Resources({"cpu": 2, "memory": 2}), created=WallTime(0.0), start_deadline=ServingTime(1.0),
    )  # fmt: skip
    return msgspec.structs.replace(driver, **changes)


SEEN = st.dictionaries(st.sampled_from(["cpu", "memory", "gpu"]), st.integers(0, 4)).map(Resources)


@pytest.mark.promise(1, 5)
@given(looks=st.lists(SEEN, min_size=1), state=st.sampled_from([s for s in DriverState if s is not DriverState.GONE]))
def test_a_driver_is_charged_for_what_is_seen_of_it_and_never_for_less_than_its_target(looks, state):
    driver = a_driver(state=state)
    for seen in looks:
        after = seen_with(driver, {}, seen)
        names = ("cpu", "memory", "gpu")
        assert [after.charge[name] for name in names] == [max(driver.target[name], seen[name]) for name in names]
        changed = any(after.charge[name] != driver.charge[name] for name in names)
        assert (after is not driver) is changed, "a look that changes nothing is not written"
        driver = after
    assert driver.handle == {"pid": 1}
    assert not a_driver(state=DriverState.GONE, observed=looks[-1]).charge.quantities


def test_a_driver_has_the_handle_that_was_seen_last():
    driver = a_driver()
    assert seen_with(driver, {"pid": 1}, Resources()) is driver
    assert seen_with(driver, {"pid": 2}, Resources()).handle == {"pid": 2}


FAILURES = st.lists(st.sampled_from(["", "full", "away"]))


@pytest.mark.parametrize("reason", [LeaseReason.RELEASED_BY_HOLDER, LeaseReason.RETRYING])
@given(failures=FAILURES)
def test_what_holds_an_end_up_is_in_the_message_while_it_does(make_lease, reason, failures):
    state = LeaseState.PROVISIONING if reason is LeaseReason.RETRYING else LeaseState.RELEASING
    lease = make_lease(state=state, reason=reason, message="done", outcome=LeaseState.RELEASED)
    for failure in failures:
        lease = hindered(lease, failure) if failure else unhindered(lease)
        expected = f"done; its driver isn't confirmed gone: {failure}; tried again" if failure else "done"
        assert (lease.full_message, lease.message) == (expected, "done")
        assert (hindered(lease, failure) if failure else unhindered(lease)) is lease
    if state is LeaseState.RELEASING:
        ended = steps.finish(lease, WallTime(2.0))
        assert (ended.message, ended.hindrance) == ("done", "")


@pytest.mark.parametrize("state", sorted(LIVE - {LeaseState.PROVISIONING}) + sorted(TERMINAL))
def test_a_lease_that_waits_for_no_call_tells_none(make_lease, state):
    lease = make_lease(state=state, message="m")
    assert hindered(lease, "full") is lease
    assert unhindered(lease) is lease
