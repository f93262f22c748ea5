"""The faults and pauses that the store in memory can be asked for, for the tests of others."""

import asyncio

import pytest

from sparkbroker.broker.adapters.memory_store import MemoryDatabase, MemoryStore
from sparkbroker.broker.domain.units import Revision, ServingTime
from sparkbroker.broker.ports.store import Batch, Committed, Deposed, RowImage, RowKind, Unknown


def batch(revision: int) -> Batch:
    image = RowImage(RowKind.LEASE, f"r{revision}", Revision(revision), Revision(0), b"{}")
    return Batch(revision=Revision(revision), serving=ServingTime(0.0), rows=(image,))


@pytest.mark.parametrize(("fault", "written"), [("unknown-written", 1), ("unknown-lost", 0)])
async def test_an_unknown_result_is_the_last(fault, written):
    database = MemoryDatabase()
    store = MemoryStore(database)
    epoch = await store.lead()
    store.fail_next_commit = fault
    assert isinstance(await store.commit(epoch, batch(1)), Unknown)
    assert isinstance(await store.commit(epoch, batch(2)), Unknown)
    assert len(database.rows) == written
    after = MemoryStore(database)
    assert await after.commit(await after.lead(), batch(3)) == Committed(Revision(3))


async def test_deposed_writes_nothing_and_is_once():
    store = MemoryStore()
    epoch = await store.lead()
    store.fail_next_commit = "deposed"
    assert isinstance(await store.commit(epoch, batch(1)), Deposed)
    assert not store.database.rows
    assert await store.commit(epoch, batch(1)) == Committed(Revision(1))
    assert store.commits == 1


async def test_a_paused_commit_waits_and_is_lost_in_a_crash():
    database = MemoryDatabase()
    store = MemoryStore(database)
    epoch = await store.lead()
    store.pause()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(store.commit(epoch, batch(1)))
        await store.commit_waiting()
        second = group.create_task(store.commit(epoch, batch(2)))
        await asyncio.sleep(0)
        assert "2 pending, paused" in repr(store)
        assert not first.done()
        assert not second.done()
        assert not (await MemoryStore(database).load()).rows
        store.resume()
        assert await first == Committed(Revision(1))
    assert second.result() == Committed(Revision(2))
    assert "2 rows" in repr(database)
