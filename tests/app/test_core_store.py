"""What callers are told is committed; what a failing or stopping broker does with what isn't."""

import asyncio
from contextlib import aclosing

import pytest

from sparkbroker.broker.app.commits import StoreLost
from sparkbroker.broker.app.views import OnExisting
from sparkbroker.broker.domain.asking.request import SizeRequest, SpecRequest
from sparkbroker.broker.domain.errors import BrokerError, KeyInUse, LeaseEnded, StaleGeneration, Unavailable
from sparkbroker.broker.domain.lease.filter import parse_filter
from sparkbroker.broker.domain.lease.lease import LeaseMode, LeaseState


def leaves(error):
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in leaves(each)]
    return [error]


async def first_of(iterator):
    async with aclosing(iterator):
        return await anext(iterator)


async def last_of(iterator):
    last = None
    async for each in iterator:
        last = each
    return last


async def waits_for_the_commit(world, call, *errors):
    """``call`` reads what isn't committed yet: it answers only when it is."""
    task = world.spawn(call)
    await world.passes(3)
    assert not task.done(), task
    world.store.resume()
    if not errors:
        return await task
    with pytest.raises(errors):
        await task
    return None


async def test_every_answer_waits_for_the_commit_of_what_it_read(broker):
    world, leases = broker, broker.core.leases
    lease_id = await world.ready()
    generation = (await world.attach(lease_id)).attachment.generation

    def change():
        """Something is decided and not committed."""
        world.store.pause()
        world.spawn(world.attach(lease_id))

    reads = (
        lambda: leases.get(world.ann, lease_id),
        lambda: leases.list(world.ann, parse_filter(""), descending=True, after=None, limit=10),
        lambda: world.renew(lease_id, world.now(lease_id).generation),
        lambda: first_of(leases.watch(world.ann, lease_id, 0)),
        lambda: world.connection(lease_id, world.now(lease_id).generation),
        world.acquire,
    )
    for read in reads:
        change()
        await world.passes(0.5)
        await waits_for_the_commit(world, read())
    for call in (world.renew, world.release, world.connection):
        change()
        await world.passes(0.5)
        old = world.now(lease_id).generation - 1
        await waits_for_the_commit(world, call(lease_id, old), StaleGeneration)
    assert generation


@pytest.mark.parametrize("call", ["renew", "release", "connection", "attach", "get"])
async def test_an_end_that_is_told_has_happened(broker, call):
    """“Already released”, and then a crash, was a lie."""
    world = broker
    lease_id = await world.ready(ttl=600)
    generation = (await world.attach(lease_id)).attachment.generation
    world.store.pause()
    world.spawn(world.release(lease_id))
    await world.passes(1)
    calls = {
        "renew": lambda: world.renew(lease_id, generation),
        "release": lambda: world.release(lease_id),
        "connection": lambda: world.connection(lease_id, generation),
        "attach": lambda: world.attach(lease_id),
        "get": lambda: world.core.leases.get(world.ann, lease_id),
    }
    asking = world.spawn(calls[call]())
    await world.passes(3)
    assert not asking.done()
    await world.crash(lose=True)
    await world.start()
    assert world.now(lease_id).state is LeaseState.READY


async def test_a_key_that_is_told_to_be_in_use_is(broker):
    world = broker
    world.store.pause()
    world.spawn(world.acquire(key="k"))
    await world.passes(1)
    await waits_for_the_commit(world, world.acquire(key="k"), KeyInUse)
    world.store.pause()
    world.spawn(world.acquire(key="other"))
    await world.passes(1)
    found = await waits_for_the_commit(world, world.acquire(key="other", on_existing=OnExisting.REATTACH))
    assert found.existing


async def test_a_connection_that_waited_tells_of_an_end_only_when_it_is_committed(broker):
    world = broker
    lease_id = await world.ready(ttl=600)
    await world.attach(lease_id)
    world.hang("end_session")
    second = (await world.attach(lease_id)).attachment.generation
    connecting = world.spawn(world.connection(lease_id, second))
    await world.passes(1)
    world.store.pause()
    world.spawn(world.release(lease_id, second))
    await world.passes(3)
    assert not connecting.done()
    world.store.resume()
    with pytest.raises(LeaseEnded):
        await connecting
    world.unhang("end_session")


@pytest.mark.parametrize("fault", ["unknown-written", "unknown-lost", "deposed"])
async def test_when_the_store_is_lost_everyone_is_told_and_the_broker_ends(broker, fault):
    world = broker
    lease_id = await world.ready(mode=LeaseMode.LOCAL)
    idle = world.spawn(last_of(world.core.leases.watch_all(world.ann, parse_filter(""), 0)))
    await world.passes(1)
    world.store.pause()
    waiting = [world.spawn(world.acquire()) for _ in range(20)]
    await world.passes(1)
    waiting.append(world.spawn(world.release(lease_id)))
    watching = world.spawn(first_of(world.core.leases.watch(world.ann, lease_id, 0)))
    await world.passes(1)
    world.store.fail_next_commit = fault
    world.store.resume()
    error = await world.ended()
    assert {type(leaf) for leaf in leaves(error)} <= {StoreLost, Unavailable}
    assert any(isinstance(leaf, StoreLost) for leaf in leaves(error))
    results = await asyncio.gather(*waiting, watching, return_exceptions=True)
    await asyncio.wait([idle], timeout=5)
    assert idle.done(), "watches end with the broker"
    assert {type(result) for result in results} == {Unavailable}
    assert all(isinstance(result, Unavailable) and result.retry_after for result in results)
    with pytest.raises(Unavailable):
        await world.acquire()
    with pytest.raises(Unavailable):
        await world.release(lease_id)
    await world.start()
    assert len(world.core.authority.leases) == (21 if fault == "unknown-written" else 1)
    world.check()


async def test_a_later_leader_deposes_this_one(broker):
    world = broker
    old, store = world.core, world.store
    old_task, world._running = world._running, None
    await world.start()
    request = SpecRequest(driver=SizeRequest(cores=1), mode=LeaseMode.LOCAL)
    with pytest.raises(Unavailable):
        await old.leases.acquire(world.ann, request_id="", key="", on_existing=OnExisting.FAIL, request=request)
    await asyncio.wait([old_task])
    assert any(isinstance(leaf, StoreLost) for leaf in leaves(old_task.exception()))
    assert not store.commits
    assert not world.core.authority.leases


@pytest.mark.promise(15)
async def test_stopping_commits_what_was_accepted_and_leaves_the_sessions(broker):
    world = broker
    kept = await world.ready()
    generation = (await world.attach(kept)).attachment.generation
    world.store.pause()
    accepted = [world.spawn(world.acquire(mode=LeaseMode.LOCAL, key=f"k{n}")) for n in range(10)]
    watching = world.spawn(first_of(world.core.leases.watch_all(world.ann, parse_filter(""), 1)))
    await world.passes(1)
    stopping = world.spawn(world.stop())
    await world.passes(1)
    assert not stopping.done()
    world.store.resume()
    await stopping
    results = await asyncio.gather(*accepted)
    assert all(world.stored(result.view.lease.id) for result in results)
    await watching
    assert len(world.machine.living()) == 1
    assert not world.called("delete")
    await world.start()
    await world.renew(kept, generation)
    world.check()


@pytest.mark.promise(15)
@pytest.mark.parametrize("where", ["create", "created", "observe", "inventory", "delete", "end_session", "forget"])
async def test_stopping_waits_for_no_provisioner(world, where):
    if where == "inventory":
        world.hang(where)
        await world.start(inventory=False)
        await world.lease()
    else:
        await world.start()
        lease_id = await world.ready()
        await world.attach(lease_id)
        world.hang(where)
        if where == "delete":
            await world.release(lease_id)
        else:
            await world.attach(lease_id)
            await world.lease()
    await world.passes(15)
    stopping = world.spawn(world.stop())
    await world.passes(2)
    assert stopping.done()
    world.unhang(where)
    await world.start()
    await world.passes(15)
    world.check()


@pytest.mark.promise(15)
@pytest.mark.parametrize("message", ["snapshot", "progress"])
async def test_a_watch_ends_when_the_broker_stops_whatever_it_was_doing(broker, message):
    world = broker
    await world.ready(cores=4)
    queued = await world.lease()

    async def follow():
        async for update in world.core.leases.watch(world.ann, queued, 0):
            if getattr(update, message) is not None:
                world.core.stop()  # while the watch is between two messages

    watching = world.spawn(follow())
    await world.ended()
    await asyncio.wait([watching], timeout=5)
    assert watching.done()


async def test_a_stopped_broker_accepts_nothing(broker):
    world = broker
    await world.stop()
    call = world.spawn(world.acquire())
    await world.passes(5)
    assert call.done(), "it waits for a commit that nobody will make"
    with pytest.raises(BrokerError):
        await call


async def test_when_a_part_fails_everyone_who_waits_is_told(broker):
    world = broker
    world.store.pause()
    call = world.spawn(world.acquire())
    await world.passes(1)
    world.core._janitor.sweep = None  # a bug
    await world.ended()
    await world.passes(5)
    assert call.done()


@pytest.mark.promise(1)
async def test_nothing_is_admitted_before_the_first_inventory(world):
    world.hang("inventory")
    await world.start(inventory=False)
    lease_id = await world.lease(mode=LeaseMode.LOCAL)
    view = await world.core.leases.get(world.ann, lease_id)
    await world.passes(30)
    assert view.progress.reason == "INVENTORY"
    assert world.now(lease_id).state is LeaseState.QUEUED
    world.unhang("inventory")
    await world.state(lease_id, LeaseState.READY)
