"""An operator's word in place of a confirmation that can't come: audited, refused to users, and nothing else."""

import pytest

from sparkbroker.broker.adapters.fake_provisioner import FakeProvisioner
from sparkbroker.broker.domain.errors import Forbidden, NotFound, ProvisionerFailed
from sparkbroker.broker.domain.lease.event import EventType
from sparkbroker.broker.domain.lease.lease import LeaseReason, LeaseState
from sparkbroker.broker.domain.units import LeaseId


def forced(broker, lease_id):
    return [event.message for event in broker.stored_events(lease_id) if event.type is EventType.FORCED]


async def stuck(broker, **spec):
    """A lease whose driver doesn't end, whatever is asked."""
    lease_id = await broker.ready(**spec)
    broker.stubborn.add(broker.driver(lease_id).id)
    return lease_id


@pytest.mark.promise(5)
@pytest.mark.parametrize("released", [False, True])
async def test_an_operator_frees_what_can_not_be_confirmed_gone(broker, released):
    lease_id = await stuck(broker, cores=4)
    driver = broker.driver(lease_id)
    waiting = await broker.lease(cores=4)
    if released:
        await broker.release(lease_id)
        await broker.until(lambda: broker.called("force", driver.id) > 3)
        assert broker.now(lease_id).state is LeaseState.RELEASING
        assert broker.now(waiting).state is LeaseState.QUEUED
    answer = await broker.core.leases.force_release(broker.ops, lease_id, "node3 burnt down")
    assert answer.done == f"forgot {driver.id}"
    lease = await broker.state(lease_id, LeaseState.RELEASED)
    reason = LeaseReason.RELEASED_BY_HOLDER if released else LeaseReason.RELEASED_BY_OPERATOR
    assert lease.reason is reason
    assert forced(broker, lease_id) == [
        "ops asked to free its capacity by force (node3 burnt down)",
        f"ops waits for no confirmation any more (node3 burnt down): forgot {driver.id}",
    ]
    await broker.state(waiting, LeaseState.READY)
    broker.check()


async def test_the_intent_is_durable_before_anything_is_done(broker):
    lease_id = await stuck(broker)
    driver = broker.driver(lease_id)
    broker.store.pause()
    asking = broker.spawn(broker.core.leases.force_release(broker.ops, lease_id, ""))
    await broker.passes(5)
    assert driver.id in broker.machine.living()
    broker.store.resume()
    await asking
    assert driver.id not in broker.machine.living()


async def test_users_are_refused_and_nothing_happens(broker):
    lease_id = await stuck(broker)
    with pytest.raises(Forbidden, match="only an operator may free the capacity"):
        await broker.core.leases.force_release(broker.ann, lease_id, "")
    # Also of what it may not see, and of what isn't there: it learns nothing.
    for caller, other in ((broker.bob, lease_id), (broker.ann, LeaseId("none"))):
        with pytest.raises(Forbidden):
            await broker.core.leases.force_release(caller, other, "")
    with pytest.raises(NotFound):
        await broker.core.leases.force_release(broker.ops, LeaseId("none"), "")
    assert broker.now(lease_id).state is LeaseState.READY
    assert forced(broker, lease_id) == []


async def test_where_an_end_can_always_be_confirmed_nothing_happens(broker, monkeypatch):
    lease_id = await stuck(broker)
    monkeypatch.setattr(FakeProvisioner, "always_confirms", "it is here")
    with pytest.raises(ProvisionerFailed, match=f"leases/{lease_id} can't be forced: it is here"):
        await broker.core.leases.force_release(broker.ops, lease_id, "")
    assert broker.now(lease_id).state is LeaseState.READY
    assert forced(broker, lease_id) == []


async def test_what_could_not_be_done_is_told_too(broker):
    lease_id = await stuck(broker)
    driver = broker.driver(lease_id)
    broker.unabandonable[driver.id] = ProvisionerFailed("the API server can't be reached", retryable=True)
    with pytest.raises(ProvisionerFailed, match="can't be reached"):
        await broker.core.leases.force_release(broker.ops, lease_id, "")
    assert forced(broker, lease_id)[1] == "ops could not free its capacity by force: the API server can't be reached"
    assert driver.id in broker.core.authority.ledger
    del broker.unabandonable[driver.id]
    await broker.core.leases.force_release(broker.ops, lease_id, "")
    await broker.state(lease_id, LeaseState.RELEASED)


async def test_a_lease_that_waits_or_has_ended_has_nothing_to_be_forced(broker):
    holder = await broker.ready(cores=4)
    waiting = await broker.lease(cores=4)
    answer = await broker.core.leases.force_release(broker.ops, waiting, "")
    assert answer.view.lease.state is LeaseState.RELEASED
    assert answer.done == "it had no driver: nothing was left to wait for"
    told = forced(broker, waiting)
    again = await broker.core.leases.force_release(broker.ops, waiting, "")
    assert again.done == "it had ended already: nothing was done"
    assert forced(broker, waiting) == told
    assert broker.now(holder).state is LeaseState.READY
