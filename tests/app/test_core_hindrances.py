"""A call that is tried again is told by its lease as long as it is: what holds a start up, and what holds an end up."""

import msgspec
import pytest

from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.lease.driver import DriverState
from sparkbroker.broker.domain.lease.lease import LeaseReason, LeaseState
from sparkbroker.broker.domain.lease.observation import Phase

QUOTA = ProvisionerFailed("the quota 'small' of namespace 'spark' is full: this takes cpu=2", retryable=True)
RIGHTS = ProvisionerFailed("the broker may not delete pods in namespace 'spark'", retryable=True)
FULL = f"the driver is being created: {QUOTA.message}; tried again"


def follow(broker, lease_id):
    """All updates of a watch, as they come."""
    told = []

    async def watch():
        async for update in broker.core.leases.watch(broker.ann, lease_id, 0):
            told.append(update)  # noqa: PERF401 - seen as they come

    broker.spawn(watch())
    return told


def of_progress(told):
    return [update.progress.message for update in told if update.progress is not None]


async def test_why_a_creation_is_tried_again_is_told_until_it_succeeds(broker):
    broker.machine.automatic = False
    broker.machine.failures = [QUOTA] * 1000
    lease_id = await broker.lease()
    told = follow(broker, lease_id)
    await broker.until(lambda: FULL in of_progress(told))
    assert (await broker.core.leases.get(broker.ann, lease_id)).lease.message == FULL
    events, tried = broker.stored_events(lease_id), broker.called("create")
    revision, stored = broker.core.authority.commits.revision, broker.stored(lease_id)
    await broker.until(lambda: broker.called("create") > tried + 4)
    assert of_progress(told).count(FULL) == 1, "what is the same is told once"
    assert (broker.stored_events(lease_id), broker.stored(lease_id)) == (events, stored)
    assert broker.core.authority.commits.revision == revision, "nothing is written for it"
    broker.machine.failures.clear()
    await broker.until(broker.machine.living)
    await broker.until(lambda: "Spark is starting in it" in of_progress(told)[-1])
    assert broker.now(lease_id).message == "its process runs; Spark is starting in it"
    broker.machine.set(broker.driver(lease_id).id, Phase.READY)
    lease = await broker.state(lease_id, LeaseState.READY)
    assert "quota" not in lease.message


async def test_each_other_failure_is_told_in_its_turn(broker):
    broker.machine.failures = [QUOTA, QUOTA, RIGHTS, RIGHTS, QUOTA]
    lease_id = await broker.lease()
    told = follow(broker, lease_id)
    await broker.state(lease_id, LeaseState.READY)
    rights = f"the driver is being created: {RIGHTS.message}; tried again"
    assert [message for message in of_progress(told) if "tried again" in message] == [FULL, rights, FULL]


async def test_a_look_at_a_driver_that_starts_is_told_while_it_fails(broker):
    broker.machine.automatic = False
    lease_id = await broker.lease()
    await broker.until(broker.machine.living)
    driver = broker.driver(lease_id)
    await broker.until(lambda: "Spark is starting" in broker.now(lease_id).message)
    broker.doubtful[driver.id] = ProvisionerFailed("the API server can't be reached", retryable=True)
    message = "its process runs; Spark is starting in it: the API server can't be reached; tried again"
    await broker.until(lambda: broker.now(lease_id).message == message)
    broker.doubtful.clear()
    await broker.until(lambda: broker.now(lease_id).message == "its process runs; Spark is starting in it")


async def test_a_call_that_hangs_is_told(broker):
    broker.hang("create")
    lease_id = await broker.lease()
    await broker.until(lambda: "did not answer within 60 s; tried again" in broker.now(lease_id).message)
    broker.unhang("create")
    lease = await broker.state(lease_id, LeaseState.READY)
    assert lease.message == "the session can be opened"


async def test_a_ready_lease_keeps_its_message_while_its_driver_cannot_be_looked_at(broker):
    lease_id = await broker.ready()
    driver = broker.driver(lease_id)
    broker.doubtful[driver.id] = RIGHTS
    seen = broker.called("observe", driver.id)
    await broker.until(lambda: broker.called("observe", driver.id) > seen + 3)
    assert broker.now(lease_id).message == "the session can be opened"


@pytest.mark.promise(5)
@pytest.mark.parametrize("call", ["delete", "observe"])
async def test_why_an_end_lasts_is_told_until_it_is_over(broker, call):
    lease_id = await broker.ready(cores=4)
    driver = broker.driver(lease_id)
    waiting = await broker.lease(cores=4)
    told = follow(broker, lease_id)
    failing = broker.undeletable if call == "delete" else broker.doubtful
    failing[driver.id] = RIGHTS
    ended = (await broker.release(lease_id)).lease.message
    message = f"{ended}; its driver isn't confirmed gone: {RIGHTS.message}; tried again"
    await broker.until(lambda: message in of_progress(told))
    events, revision = broker.stored_events(lease_id), broker.core.authority.commits.revision
    tried = broker.called("observe", driver.id)
    await broker.until(lambda: broker.called("observe", driver.id) > tried + 4)
    assert (await broker.core.leases.get(broker.ann, lease_id)).lease.full_message == message
    assert of_progress(told).count(message) == 1
    assert (broker.stored_events(lease_id), broker.core.authority.commits.revision) == (events, revision)
    assert broker.now(waiting).state is LeaseState.QUEUED, "and it is charged all the time"
    broker.stubborn.add(driver.id)
    failing.clear()
    await broker.until(lambda: of_progress(told)[-1] == ended)
    lease = broker.now(lease_id)
    assert (lease.state, lease.message, lease.hindrance) == (LeaseState.RELEASING, ended, "")
    broker.machine.set(driver.id, Phase.ABSENT)
    lease = await broker.state(lease_id, LeaseState.RELEASED)
    assert (lease.message, lease.hindrance) == (ended, "")
    assert broker.stored_events(lease_id)[-1].message == ended
    await broker.state(waiting, LeaseState.READY)


async def test_an_end_that_cannot_be_carried_out_is_told_again_after_a_restart(broker):
    lease_id = await broker.ready()
    driver = broker.driver(lease_id)
    broker.undeletable[driver.id] = RIGHTS
    ended = (await broker.release(lease_id)).lease.message
    await broker.until(lambda: broker.now(lease_id).hindrance)
    # Written with a change of the row for another reason, it is neither doubled nor kept.
    broker.core.authority.put_lease(broker.now(lease_id))
    await broker.settled()
    assert broker.stored(lease_id).hindrance
    await broker.crash()
    await broker.start()
    tried = broker.called("observe", driver.id)
    await broker.until(lambda: broker.called("observe", driver.id) > tried + 2)
    assert broker.now(lease_id).full_message.count(RIGHTS.message) == 1
    broker.machine.set(driver.id, Phase.ABSENT)  # somebody else ended it: no call of ours has succeeded
    assert (await broker.state(lease_id, LeaseState.RELEASED)).message == ended


async def test_what_a_further_attempt_waits_for_is_told(broker):
    broker.machine.automatic = False
    lease_id = await broker.lease()
    await broker.until(broker.machine.living)
    first = broker.driver(lease_id)
    told = follow(broker, lease_id)
    broker.doubtful[first.id] = ProvisionerFailed("it can't start", retryable=False)
    broker.undeletable[first.id] = RIGHTS
    await broker.until(lambda: broker.now(lease_id).reason is LeaseReason.RETRYING)
    broker.doubtful.clear()
    failed = "it can't start; attempt 2 of 2 follows"
    message = f"{failed}; its driver isn't confirmed gone: {RIGHTS.message}; tried again"
    await broker.until(lambda: message in of_progress(told))
    assert broker.now(lease_id).state is LeaseState.PROVISIONING
    broker.machine.automatic = True
    broker.machine.set(first.id, Phase.ABSENT)
    await broker.state(lease_id, LeaseState.READY)
    queued = [event for event in broker.stored_events(lease_id) if event.state is LeaseState.QUEUED]
    assert queued[-1].message == failed


async def test_what_failed_of_a_start_is_not_what_its_end_waits_for(broker):
    broker.machine.failures = [QUOTA]
    broker.hang("create")
    lease_id = await broker.lease()
    await broker.until(lambda: broker.called("create"))
    told = follow(broker, lease_id)
    await broker.release(lease_id)
    assert broker.driver(lease_id).state is DriverState.STOPPING
    broker.unhang("create")
    await broker.state(lease_id, LeaseState.RELEASED)
    await broker.until(lambda: told[-1].event is not None and told[-1].event.state is LeaseState.RELEASED)
    assert not any("quota" in msgspec.json.encode(update).decode() for update in told)
