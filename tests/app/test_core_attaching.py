"""Attachments: who is fenced off, when, and what a new holder waits for."""

import asyncio

import pytest

from sparkbroker.broker.domain.errors import (
    Forbidden,
    InvalidField,
    LeaseEnded,
    LeaseNotReady,
    NotFound,
    ProvisionerFailed,
    StaleGeneration,
    Unavailable,
)
from sparkbroker.broker.domain.lease.lease import LeaseMode, LeaseReason, LeaseSharing, LeaseState
from sparkbroker.broker.domain.units import LeaseId


@pytest.mark.promise(2)
async def test_an_older_generation_is_refused_everywhere(broker):
    lease_id = await broker.ready()
    old = (await broker.attach(lease_id)).attachment.generation
    await broker.connection(lease_id, old)
    new = (await broker.attach(lease_id)).attachment.generation
    assert new > old
    for call in (broker.renew, broker.release, broker.connection):
        with pytest.raises(StaleGeneration):
            await call(lease_id, old)
        with pytest.raises(InvalidField):
            await call(lease_id, new + 1)
    await broker.renew(lease_id, new)
    await broker.connection(lease_id, new)
    assert [a.generation for a in broker.now(lease_id).attachments] == [new]


@pytest.mark.promise(2)
async def test_generations_never_repeat_over_a_crash(broker):
    lease_id = await broker.ready()
    old = (await broker.attach(lease_id)).attachment.generation
    await broker.crash()
    await broker.start()
    new = (await broker.attach(lease_id)).attachment.generation
    assert new > old
    with pytest.raises(StaleGeneration):
        await broker.renew(lease_id, old)


@pytest.mark.promise(2)
async def test_no_renewal_succeeds_after_the_end(broker):
    for end in ("release", "expiry"):
        lease_id = await broker.ready()
        generation = (await broker.attach(lease_id)).attachment.generation
        if end == "release":
            await broker.release(lease_id, generation)
        else:
            await broker.until(lambda lease_id=lease_id: not broker.now(lease_id).live)
        for given in (generation, 0):
            with pytest.raises(LeaseEnded):
                await broker.renew(lease_id, given)
        with pytest.raises(LeaseEnded):
            await broker.attach(lease_id)


@pytest.mark.promise(2)
async def test_sessions_of_the_former_attachment_end_before_the_connection_is_given(broker):
    lease_id = await broker.ready()
    first = (await broker.attach(lease_id)).attachment
    driver = broker.driver(lease_id)
    broker.hang("end_session")
    second = (await broker.attach(lease_id)).attachment
    connecting = broker.spawn(broker.connection(lease_id, second.generation))
    await broker.passes(10)
    assert not connecting.done()
    assert not broker.called("endpoint")
    broker.unhang("end_session")
    connection = await connecting
    assert connection.session_id == second.session_id != first.session_id
    assert broker.machine.ended_sessions == [(driver.id, first.session_id)]
    assert broker.driver(lease_id).ending_sessions == ()


@pytest.mark.promise(2)
async def test_a_connection_that_waits_too_long_for_sessions_is_unavailable_and_leaks_nothing(broker):
    lease_id = await broker.ready(ttl=600)
    await broker.attach(lease_id)
    broker.hang("end_session")
    second = (await broker.attach(lease_id)).attachment
    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            await broker.connection(lease_id, second.generation)
        assert caught.value.retry_after
    assert not broker.core.session_ends._waiters
    broker.unhang("end_session")
    await broker.connection(lease_id, second.generation)


@pytest.mark.promise(2)
async def test_former_sessions_are_ended_by_the_next_broker(broker):
    lease_id = await broker.ready()
    first = (await broker.attach(lease_id)).attachment
    driver = broker.driver(lease_id)
    broker.hang("end_session")
    second = (await broker.attach(lease_id)).attachment
    await broker.crash()
    broker.unhang("end_session")
    await broker.start()
    await broker.connection(lease_id, second.generation)
    assert (driver.id, first.session_id) in broker.machine.ended_sessions


@pytest.mark.promise(2)
@pytest.mark.parametrize("where", ["end_session", "endpoint"])
async def test_superseded_while_the_connection_is_awaited(broker, where):
    lease_id = await broker.ready()
    await broker.attach(lease_id)
    second = (await broker.attach(lease_id)).attachment
    if where == "endpoint":
        await broker.connection(lease_id, second.generation)
    broker.hang(where)
    if where == "end_session":
        second = (await broker.attach(lease_id)).attachment
    connecting = broker.spawn(broker.connection(lease_id, second.generation))
    await broker.passes(1)
    third = (await broker.attach(lease_id)).attachment
    broker.unhang(where)
    with pytest.raises(StaleGeneration):
        await connecting
    await broker.connection(lease_id, third.generation)


async def test_released_while_the_connection_is_awaited(broker):
    lease_id = await broker.ready()
    await broker.attach(lease_id)
    broker.hang("end_session")
    second = (await broker.attach(lease_id)).attachment
    connecting = broker.spawn(broker.connection(lease_id, second.generation))
    await broker.passes(1)
    await broker.release(lease_id, second.generation)
    with pytest.raises(LeaseEnded):
        await connecting
    broker.unhang("end_session")
    await broker.state(lease_id, LeaseState.RELEASED)


async def test_an_endpoint_that_is_not_told_is_unavailable(broker):
    lease_id = await broker.ready()
    generation = (await broker.attach(lease_id)).attachment.generation
    broker.hang("endpoint")
    with pytest.raises(Unavailable):
        await broker.connection(lease_id, generation)
    broker.unhang("endpoint")
    seen = broker.machine.drivers.pop(broker.driver(lease_id).id)
    with pytest.raises(Unavailable):
        await broker.connection(lease_id, generation)
    broker.machine.add(seen)


async def test_a_connection_needs_an_attachment_and_a_ready_lease(broker):
    blocker = await broker.ready(cores=4)
    lease_id = await broker.lease()
    generation = (await broker.attach(lease_id)).attachment.generation
    with pytest.raises(LeaseNotReady) as caught:
        await broker.connection(lease_id, generation)
    assert caught.value.retry_after
    with pytest.raises(InvalidField):
        await broker.connection(blocker, 0)
    for caller in (broker.bob,):
        with pytest.raises(NotFound):
            await broker.connection(lease_id, generation, caller)


async def test_an_attachment_made_while_waiting_stays_when_the_lease_is_ready(broker):
    blocker = await broker.ready(cores=4)
    lease_id = await broker.lease()
    generation = (await broker.attach(lease_id)).attachment.generation
    await broker.release(blocker)
    await broker.state(lease_id, LeaseState.READY)
    await broker.renew(lease_id, generation)
    assert (await broker.connection(lease_id, generation)).connect is not None
    assert broker.now(lease_id).unattended_deadline is None


async def test_shared_leases_have_many_attachments_and_detach_one_by_one(broker):
    lease_id = await broker.ready(sharing=LeaseSharing.SHARED)
    driver = broker.driver(lease_id)
    one, two, three = [(await broker.attach(lease_id)).attachment for _ in range(3)]
    sessions = {(await broker.connection(lease_id, a.generation)).session_id for a in (one, two, three)}
    assert len(sessions) == 3
    view = await broker.release(lease_id, two.generation)
    assert view.lease.state is LeaseState.READY
    assert [a.generation for a in view.lease.attachments] == [one.generation, three.generation]
    await broker.until(lambda: broker.machine.ended_sessions == [(driver.id, two.session_id)])
    with pytest.raises(StaleGeneration):
        await broker.renew(lease_id, two.generation)
    # One of the two left loses its heartbeat: only its own attachment ends.
    for _ in range(10):
        await broker.passes(5)
        await broker.renew(lease_id, three.generation)
    assert [a.generation for a in broker.now(lease_id).attachments] == [three.generation]
    assert broker.now(lease_id).live
    await broker.release(lease_id, three.generation)
    assert broker.now(lease_id).state is LeaseState.READY
    lease = await broker.state(lease_id, LeaseState.EXPIRED)
    assert lease.reason is LeaseReason.UNATTENDED


async def test_many_heartbeats_are_stored_together_and_a_refusal_ends_none_of_the_others(broker):
    """The first after a restart has to be durable before it is answered: a thousand of them wait once, and not in turn."""
    lease_id = await broker.ready(sharing=LeaseSharing.SHARED)
    generations = [(await broker.attach(lease_id)).attachment.generation for _ in range(20)]
    await broker.release(lease_id, generations[3])
    await broker.crash()
    await broker.start()
    before = broker.store.commits
    asked = [(lease_id, generation) for generation in generations] + [("nothing", 1)]
    outcomes = await broker.core.leases.renew_all(broker.ann, asked)
    assert broker.store.commits - before <= 2
    refused = {index: type(each) for index, each in enumerate(outcomes) if isinstance(each, Exception)}
    assert refused == {3: StaleGeneration, 20: NotFound}
    assert {a.renewed_epoch for a in broker.stored(lease_id).attachments} == {broker.core.authority.epoch}
    assert await broker.core.leases.renew_all(broker.ann, []) == []


@pytest.mark.promise(2)
async def test_heartbeats_that_cannot_be_stored_are_unavailable_and_the_others_are_not(broker):
    lease_id = await broker.ready(sharing=LeaseSharing.SHARED)
    generations = [(await broker.attach(lease_id)).attachment.generation for _ in range(2)]
    await broker.crash()
    await broker.start()
    await broker.renew(lease_id, generations[0])
    broker.store.pause()
    asking = broker.spawn(
        broker.core.leases.renew_all(broker.ann, [(LeaseId("nothing"), 1), (lease_id, generations[1])])
    )
    await broker.passes(1)
    assert not asking.done()
    await broker.crash()
    assert [type(each) for each in await asking] == [NotFound, Unavailable]


async def test_the_heartbeats_of_one_principal_take_turns(broker):
    """Over however many streams they come: nobody else's waits for all of them."""
    mine = await broker.ready(sharing=LeaseSharing.SHARED)
    generation = (await broker.attach(mine)).attachment.generation
    theirs = await broker.ready(caller=broker.bob)
    order = []

    async def beat(name, caller, lease_id, number):
        await broker.renew(lease_id, number, caller)
        order.append(name)

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(beat("ann", broker.ann, mine, generation))
        group.create_task(beat("bob", broker.bob, theirs, 0))
    assert order.index("bob") <= 2


async def test_release_without_a_generation_ends_a_shared_lease(broker):
    lease_id = await broker.ready(sharing=LeaseSharing.SHARED)
    await broker.attach(lease_id)
    await broker.release(lease_id)
    lease = await broker.state(lease_id, LeaseState.RELEASED)
    assert lease.attachments == ()


async def test_an_operator_uses_nobody_elses_lease(broker):
    lease_id = await broker.ready()
    attached = await broker.attach(lease_id)
    for use in (
        broker.attach(lease_id, caller=broker.ops),
        broker.renew(lease_id, attached.attachment.generation, broker.ops),
        broker.renew(lease_id, 0, broker.ops),
        broker.connection(lease_id, attached.attachment.generation, broker.ops),
    ):
        with pytest.raises(Forbidden, match=f"lease leases/{lease_id} is ann's: an operator may see and release it"):
            await use
    assert (await broker.renew(lease_id, attached.attachment.generation)).state is LeaseState.READY


async def test_operators_release_everyones_leases_and_users_their_own(broker):
    lease_id = await broker.ready()
    with pytest.raises(NotFound):
        await broker.release(lease_id, 0, broker.bob)
    for call in (broker.renew, broker.release, broker.connection):
        with pytest.raises(NotFound):
            await call("never", 1)
    await broker.release(lease_id, 0, broker.ops)
    lease = await broker.state(lease_id, LeaseState.RELEASED)
    assert lease.reason is LeaseReason.RELEASED_BY_OPERATOR
    assert "ops" in lease.message


async def test_releasing_what_has_ended_changes_nothing(broker):
    lease_id = await broker.ready()
    await broker.release(lease_id)
    lease = await broker.state(lease_id, LeaseState.RELEASED)
    assert (await broker.release(lease_id)).lease == lease
    assert (await broker.release(lease_id, 7)).lease == lease


async def test_local_leases_need_no_driver(broker):
    lease_id = await broker.lease(mode=LeaseMode.LOCAL, cores=3)
    await broker.state(lease_id, LeaseState.READY)
    generation = (await broker.attach(lease_id)).attachment.generation
    connection = await broker.connection(lease_id, generation)
    assert connection.local.master == "local[3]"
    assert connection.local.conf["spark.ui.enabled"] == "false"
    assert broker.core.authority.ledger.pool_used("local")["cpu"] == 3000
    await broker.crash()
    await broker.start()
    assert broker.core.authority.ledger.pool_used("local")["cpu"] == 3000
    waiting = await broker.lease(mode=LeaseMode.LOCAL, cores=3)
    await broker.release(lease_id, generation)
    await broker.state(waiting, LeaseState.READY)
    assert broker.now(lease_id).state is LeaseState.RELEASED
    assert not broker.called("create")
    broker.core.authority.ledger.check()


@pytest.mark.promise(3)
async def test_a_replayed_attach_is_given_the_full_time_that_it_is_told(broker):
    """A client that repeats an attach counts its deadline from when it sent the repetition."""
    lease_id = await broker.ready()
    request_id = "7d3c9d35-5a0b-4d1c-8f0e-6f2b8a4c1e01"
    first = await broker.attach(lease_id, request_id=request_id)
    await broker.passes(first.ttl - 5)
    sent = asyncio.get_running_loop().time()
    again = await broker.attach(lease_id, request_id=request_id)
    assert again.attachment.generation == first.attachment.generation
    await broker.until(lambda: not broker.now(lease_id).live)
    assert asyncio.get_running_loop().time() - sent >= again.ttl


@pytest.mark.promise(11)
async def test_no_token_is_in_events_records_or_representations(broker):
    lease_id = await broker.ready()
    generation = (await broker.attach(lease_id)).attachment.generation
    connection = await broker.connection(lease_id, generation)
    (header,) = connection.connect.headers.values()
    token = header.removeprefix("Bearer ")
    await broker.release(lease_id, generation)
    await broker.state(lease_id, LeaseState.RELEASED)
    stored = [row.body for row in broker.database.rows.values()]
    stored += [event.body for event in broker.database.events]
    stored += [request.body for request in broker.database.requests.values()]
    assert stored
    assert not [body for body in stored if token.encode() in body]
    assert token not in repr(broker.core)


async def test_a_session_that_cannot_be_ended_is_tried_again(broker):
    lease_id = await broker.ready()
    await broker.attach(lease_id)
    driver = broker.driver(lease_id)
    original = broker.core._provisioners["local"].end_session
    failures = [ProvisionerFailed("busy", retryable=True)] * 3

    async def failing(*arguments):
        if failures:
            raise failures.pop()
        await original(*arguments)

    broker.core._provisioners["local"].end_session = failing
    second = (await broker.attach(lease_id)).attachment
    await broker.connection(lease_id, second.generation)
    assert not failures
    assert len(broker.machine.ended_sessions) == 1
    assert broker.driver(lease_id).id == driver.id
