"""Repetitions: the same answer, one driver, whatever happened in between."""

import asyncio
import uuid

import pytest

from sparkbroker.broker.app.allowance import Allowance
from sparkbroker.broker.app.views import OnExisting
from sparkbroker.broker.domain.capacity.queue import Queue
from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.errors import (
    KeyInUse,
    LeaseEnded,
    RequestIdReused,
    StaleGeneration,
    TooMany,
    Unavailable,
)
from sparkbroker.broker.domain.lease.lease import LeaseReason, LeaseState

FAIL, REATTACH, REPLACE = OnExisting.FAIL, OnExisting.REATTACH, OnExisting.REPLACE


@pytest.mark.promise(8)
@pytest.mark.parametrize("between", ["nothing", "ready", "crash", "released"])
async def test_a_repeated_acquire_gets_the_same_lease(broker, between):
    request_id = str(uuid.uuid4())
    first = (await broker.acquire(request_id=request_id, key="k")).view.lease
    match between:
        case "ready":
            await broker.state(first.id, LeaseState.READY)
        case "crash":
            await broker.crash()
            await broker.start()
        case "released":
            await broker.release(first.id)
            await broker.state(first.id, LeaseState.RELEASED)
    again = (await broker.acquire(request_id=request_id, key="k")).view.lease
    assert again.id == first.id
    assert len(broker.core.authority.leases) == 1
    await broker.passes(5)
    assert len(broker.machine.created) == 1


@pytest.mark.promise(8)
async def test_duplicates_at_once_make_one_lease(broker):
    request_id = str(uuid.uuid4())
    made = await asyncio.gather(*[broker.acquire(request_id=request_id) for _ in range(10)])
    assert len({acquired.view.lease.id for acquired in made}) == 1
    lease_id = made[0].view.lease.id
    await broker.state(lease_id, LeaseState.READY)
    request_id = str(uuid.uuid4())
    attached = await asyncio.gather(*[broker.attach(lease_id, request_id=request_id) for _ in range(10)])
    assert {each.attachment.generation for each in attached} == {1}
    assert broker.now(lease_id).generation == 1
    assert len(broker.machine.created) == 1


@pytest.mark.promise(8)
async def test_a_repeated_attach_that_was_superseded_steals_nothing(broker):
    lease_id = await broker.ready()
    request_id = str(uuid.uuid4())
    old = await broker.attach(lease_id, request_id=request_id)
    assert (await broker.attach(lease_id, request_id=request_id)).attachment.generation == old.attachment.generation
    new = await broker.attach(lease_id)
    with pytest.raises(StaleGeneration, match="superseded"):
        await broker.attach(lease_id, request_id=request_id)
    await broker.renew(lease_id, new.attachment.generation)
    await broker.crash()
    await broker.start()
    with pytest.raises(StaleGeneration):
        await broker.attach(lease_id, request_id=request_id)
    await broker.release(lease_id)
    with pytest.raises(LeaseEnded):
        await broker.attach(lease_id, request_id=request_id)


@pytest.mark.promise(8)
async def test_a_request_id_belongs_to_one_request_of_one_principal(broker):
    request_id = str(uuid.uuid4())
    mine = await broker.acquire(request_id=request_id)
    for other in ({"cores": 2}, {"key": "k"}, {"on_existing": REPLACE}, {"ttl": 60.0}):
        with pytest.raises(RequestIdReused):
            await broker.acquire(request_id=request_id, **other)
    with pytest.raises(RequestIdReused):
        await broker.attach(mine.view.lease.id, request_id=request_id)
    theirs = await broker.acquire(broker.bob, request_id=request_id)
    assert theirs.view.lease.id != mine.view.lease.id
    attaching = str(uuid.uuid4())
    await broker.attach(mine.view.lease.id, request_id=attaching)
    with pytest.raises(RequestIdReused):
        await broker.attach(mine.view.lease.id, request_id=attaching, holder="another")


@pytest.mark.promise(8)
async def test_a_late_repetition_of_a_pruned_lease_makes_no_new_one(world):
    world.retention = type(world.retention)(terminal_count=0)
    await world.start()
    request_id = str(uuid.uuid4())
    lease_id = (await world.acquire(request_id=request_id)).view.lease.id
    await world.release(lease_id)
    await world.until(lambda: lease_id not in world.core.authority.leases)
    with pytest.raises(LeaseEnded, match="no longer kept"):
        await world.acquire(request_id=request_id)
    assert not world.core.authority.leases


@pytest.mark.promise(8)
async def test_a_call_cancelled_at_any_moment_is_answered_when_it_is_repeated(broker):
    for turns in range(8):
        request_id = str(uuid.uuid4())
        task = broker.spawn(broker.acquire(request_id=request_id, key=f"k{turns}"))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        lease = (await broker.acquire(request_id=request_id, key=f"k{turns}")).view.lease
        assert [each.id for each in broker.core.authority.leases.values() if each.key == f"k{turns}"] == [lease.id]
        await broker.state(lease.id, LeaseState.READY)
        attach_id = str(uuid.uuid4())
        task = broker.spawn(broker.attach(lease.id, request_id=attach_id))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        generation = (await broker.attach(lease.id, request_id=attach_id)).attachment.generation
        assert generation == 1
        await broker.release(lease.id, generation)
        await broker.state(lease.id, LeaseState.RELEASED)
    assert not broker.core.authority.commits._waiters


@pytest.mark.promise(8)
@pytest.mark.parametrize("fault", ["unknown-written", "unknown-lost"])
async def test_repeated_after_an_answer_that_was_lost_with_the_store(broker, fault):
    request_id = str(uuid.uuid4())
    broker.store.fail_next_commit = fault
    with pytest.raises(Unavailable):
        await broker.acquire(request_id=request_id, key="k")
    await broker.ended()
    await broker.start()
    again = await broker.acquire(request_id=request_id, key="k")
    await broker.state(again.view.lease.id, LeaseState.READY)
    assert len(broker.core.authority.leases) == 1
    assert len(broker.machine.created) == 1


async def test_existing_keys(broker):
    first = (await broker.acquire(key="k")).view.lease
    with pytest.raises(KeyInUse, match="is live"):
        await broker.acquire(key="k")
    same = await broker.acquire(key="k", on_existing=REATTACH)
    assert same.existing
    assert same.view.lease.id == first.id
    with pytest.raises(KeyInUse, match="another spec"):
        await broker.acquire(key="k", cores=2, on_existing=REATTACH)
    other = await broker.acquire(broker.bob, key="k")
    assert other.view.lease.id != first.id
    replaced = await broker.acquire(key="k", cores=2, on_existing=REPLACE)
    assert not replaced.existing
    assert replaced.view.lease.id != first.id
    old = await broker.state(first.id, LeaseState.RELEASED)
    assert old.reason is LeaseReason.REPLACED
    await broker.state(replaced.view.lease.id, LeaseState.READY)
    fresh = await broker.acquire(key="new", on_existing=REATTACH)
    assert not fresh.existing


async def test_a_key_is_free_while_its_lease_is_releasing(broker):
    first = await broker.ready(key="k")
    driver = broker.driver(first)
    broker.stubborn.add(driver.id)
    await broker.release(first)
    assert broker.now(first).state is LeaseState.RELEASING
    second = await broker.lease(key="k")
    assert second != first
    broker.machine.set(driver.id, "ABSENT")
    await broker.state(first, LeaseState.RELEASED)
    assert broker.core.authority.keys["ann", "k"] == second, "the end of the old one frees nothing of the new one's"
    with pytest.raises(KeyInUse):
        await broker.acquire(key="k")
    await broker.crash()
    await broker.start()
    assert broker.core.authority.keys["ann", "k"] == second


async def test_a_replacement_of_what_uses_everything_waits_for_its_driver_to_go(broker):
    first = await broker.ready(key="k", cores=4)
    driver = broker.driver(first)
    broker.stubborn.add(driver.id)
    second = (await broker.acquire(key="k", cores=4, on_existing=REPLACE)).view.lease.id
    await broker.passes(30)
    assert broker.now(second).state is LeaseState.QUEUED
    broker.machine.set(driver.id, "ABSENT")
    await broker.state(second, LeaseState.READY)


async def test_a_replacement_and_the_end_of_the_old_lease_commit_together(broker):
    first = await broker.ready(key="k")
    broker.store.pause()
    broker.spawn(broker.acquire(key="k", cores=2, on_existing=REPLACE))
    await broker.passes(1)
    await broker.crash(lose=True)
    await broker.start()
    assert list(broker.core.authority.leases) == [first]
    assert broker.now(first).state is LeaseState.READY
    broker.check()


async def test_a_full_disk_is_for_the_ends_of_what_is_there(broker):
    request_id = str(uuid.uuid4())
    first = (await broker.acquire(request_id=request_id, key="k")).view.lease
    broker.store.full = "the disk is full"
    for on_existing in (FAIL, REPLACE):
        with pytest.raises(TooMany, match="the disk is full") as caught:
            await broker.acquire(key="k" if on_existing is REPLACE else "", on_existing=on_existing)
        assert caught.value.retry_after
    assert (await broker.acquire(request_id=request_id, key="k")).view.lease.id == first.id
    assert (await broker.acquire(key="k", on_existing=REATTACH)).view.lease.id == first.id
    again = str(uuid.uuid4())
    generation = (await broker.attach(first.id, request_id=again)).attachment.generation
    broker.store.scarce = "the disk is very full"
    for call in (lambda: broker.acquire(key="k", on_existing=REATTACH), lambda: broker.attach(first.id)):
        with pytest.raises(TooMany, match="the disk is very full"):
            await call()
    assert (await broker.attach(first.id, request_id=again)).attachment.generation == generation
    assert (await broker.renew(first.id, generation)).state is LeaseState.READY
    await broker.release(first.id)
    await broker.state(first.id, LeaseState.RELEASED)
    broker.store.full = broker.store.scarce = ""
    assert (await broker.acquire(key="k")).view.lease.id != first.id


async def test_limits(world):
    world.allowance = Allowance(live=3)
    nominal = Resources.of(cores=4, memory=1 << 40)
    world.quotas = {"default": Queue(name="default", nominal=nominal, max_queued=2)}
    await world.start()
    ids = [await world.ready(cores=1, key=f"k{n}") for n in range(3)]
    with pytest.raises(TooMany, match="ann has 3 live leases") as caught:
        await world.acquire()
    assert caught.value.retry_after
    await world.acquire(key="k0", on_existing=REPLACE)
    await world.release(ids[1])
    await world.acquire()
    await world.ready(cores=1, caller=world.bob)
    for _ in range(2):
        await world.acquire(world.bob, cores=4)
    with pytest.raises(TooMany, match="2 leases wait in queue default"):
        await world.acquire(world.ops, cores=4)
    assert world.core.authority.live_of == {"ann": 3, "bob": 3}
    await world.crash()
    await world.start()
    assert world.core.authority.live_of == {"ann": 3, "bob": 3}
