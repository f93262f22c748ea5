"""What a step changes. That it changes nothing when it comes too late, and that no lease has two drivers, is also tried over
any interleaving: see test_domain_machine."""

from typing import Any

import msgspec
import pytest

from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.lease import plan, transition
from sparkbroker.broker.domain.lease.driver import DriverExit, DriverState
from sparkbroker.broker.domain.lease.lease import LeaseReason, LeaseState
from sparkbroker.broker.domain.lease.observation import Observation, Phase
from sparkbroker.broker.domain.lease.transition import NOTHING, Now
from sparkbroker.broker.domain.units import DriverId, LeaseId, ServingTime, WallTime

NOW = Now(ServingTime(5.0), WallTime(1005.0))


@pytest.fixture
def granted(make_lease):
    """A lease with the driver that is to be made for it."""
    changes = transition.admit(make_lease(), DriverId("d1"), provisioner="local", start_timeout=60.0, now=NOW)
    assert changes.driver is not None
    assert changes.lease is not None
    return changes.driver, changes.lease


def seen(phase=Phase.STARTING, **more) -> Observation:
    return Observation(driver_id=DriverId("d1"), phase=phase, **more)


def apply(driver, lease, step, *, look=None, max_attempts=2) -> Any:
    return transition.apply(driver, lease, step, seen=look, max_attempts=max_attempts, now=NOW)


def ready(driver, lease):
    driver = apply(driver, lease, plan.Create(), look=seen()).driver
    changes = apply(driver, lease, plan.BecomeReady(), look=seen(Phase.READY, ready=WallTime(1007.0)))
    return changes.driver, changes.lease, changes


def test_what_is_admitted_has_a_driver_to_be_made_and_its_charge(granted):
    driver, lease = granted
    assert (driver.lease_id, driver.attempt, driver.target) == (lease.id, lease.attempt, lease.charge)
    assert (driver.state, driver.start_deadline) == (DriverState.PENDING, 65.0)
    assert (lease.state, lease.driver_id) == (LeaseState.PROVISIONING, driver.id)


def test_a_start(granted):
    driver, lease, changes = ready(*granted)
    assert (driver.state, lease.state) == (DriverState.READY, LeaseState.READY)
    assert lease.timings.ready == 1007.0
    assert changes.phases["ready"] == 1006.0


@pytest.mark.promise(6)
def test_what_was_made_for_a_lease_that_has_ended_can_be_found_again(granted):
    driver, lease = granted
    ended: Any = transition.end(lease, driver, LeaseState.RELEASED, LeaseReason.RELEASED_BY_HOLDER, "m", NOW)
    look = seen(handle={"pid": 7}, resources=Resources.of(cores=1))
    changes = apply(ended.driver, ended.lease, plan.Create(), look=look)
    assert (changes.driver.state, changes.driver.handle) == (DriverState.STOPPING, {"pid": 7})
    assert (changes.lease, changes.noted) == (None, None)


@pytest.mark.parametrize("state", [DriverState.STOPPING, DriverState.GONE])
@pytest.mark.parametrize(
    "step", [plan.BecomeReady(), plan.Stop("m"), plan.Wait(plan.READY_POLL), plan.Delete(force=True)]
)
def test_a_step_that_comes_too_late_changes_nothing(granted, state, step):
    driver, lease = granted
    assert apply(msgspec.structs.replace(driver, state=state), lease, step) == NOTHING


def test_an_attempt_that_fails_is_followed_by_another(granted):
    driver, lease = granted
    changes = apply(driver, lease, plan.Stop("no image"))
    assert changes.driver.state is DriverState.STOPPING
    assert (changes.lease.state, changes.lease.reason) == (LeaseState.PROVISIONING, LeaseReason.RETRYING)
    assert changes.lease.message == "no image; attempt 2 of 2 follows"
    gone = apply(changes.driver, changes.lease, plan.Gone())
    assert (gone.driver.state, gone.lease.state, gone.lease.attempt) == (DriverState.GONE, LeaseState.QUEUED, 2)


@pytest.mark.parametrize(
    ("stop", "max_attempts", "reason"),
    [
        (plan.Stop("m"), 1, LeaseReason.START_FAILED),
        (plan.Stop("m", misconfigured=True), 2, LeaseReason.MISCONFIGURED),
        (plan.Stop("m", DriverExit(out_of_memory=True)), 1, LeaseReason.OUT_OF_MEMORY),
    ],
)
def test_a_start_that_has_failed(granted, stop, max_attempts, reason):
    driver, lease = granted
    lease = apply(driver, lease, stop, max_attempts=max_attempts).lease
    assert (lease.state, lease.outcome, lease.reason) == (LeaseState.RELEASING, LeaseState.FAILED, reason)


@pytest.mark.promise(9)
def test_a_session_that_is_lost_is_not_made_again(granted):
    driver, lease, _ = ready(*granted)
    changes = apply(driver, lease, plan.Stop("the driver ended"), max_attempts=100)
    assert (changes.lease.state, changes.lease.reason) == (LeaseState.RELEASING, LeaseReason.DRIVER_LOST)
    gone = apply(changes.driver, changes.lease, plan.Gone())
    assert (gone.lease.state, gone.lease.message) == (LeaseState.FAILED, "the driver ended")


def test_a_driver_that_nobody_recorded_is_forgotten_once_it_is_gone(granted):
    orphan = msgspec.structs.replace(granted[0], lease_id=None, state=DriverState.STOPPING)
    assert apply(orphan, None, plan.Gone()).forgotten
    of_another = msgspec.structs.replace(orphan, lease_id=LeaseId("l9"))
    assert not apply(of_another, None, plan.Gone()).forgotten


def test_sessions_that_are_ended_are_not_ended_again(granted):
    driver = msgspec.structs.replace(granted[0], ending_sessions=("a", "b"))
    assert apply(driver, None, plan.EndSessions(("a",))).driver.ending_sessions == ("b",)
    assert apply(driver, None, plan.EndSessions(("c",))) == NOTHING


@pytest.mark.parametrize("state", DriverState)
@pytest.mark.parametrize("retryable", [True, False])
@pytest.mark.parametrize("late", [True, False])
def test_a_call_that_fails_ends_only_an_attempt(granted, state, retryable, late):
    driver = msgspec.structs.replace(granted[0], state=state)
    error = ProvisionerFailed("m", retryable=retryable)
    step = plan.after_failure(driver, error, ServingTime(65.0 if late else 64.0))
    starting = state in (DriverState.PENDING, DriverState.STARTING)
    assert step == (plan.Stop("m") if starting and (late or not retryable) else None)
