"""Logs of a driver and its executors as one: the merge, what is kept, and on a real cluster."""

import asyncio

import pytest

from sparkbroker.broker.adapters.kubernetes_provisioner import _executor_logs
from sparkbroker.broker.adapters.kubernetes_provisioner._driver import KnownDriver
from sparkbroker.broker.adapters.kubernetes_provisioner._driver_logs import DriverLogs
from sparkbroker.broker.adapters.kubernetes_provisioner._executor_logs import KEPT, Merge, path_of, saved
from sparkbroker.broker.adapters.kubernetes_provisioner._fleet import Fleet
from sparkbroker.broker.adapters.kubernetes_provisioner._logs import Tail, write_saved
from sparkbroker.broker.adapters.system_clock import SystemClock
from sparkbroker.broker.domain.units import DriverId
from sparkbroker.broker.ports.provisioner import LogChunk
from sparkbroker.client import AsyncBroker
from tests.kubernetes.broker import broker


async def said(source, *pieces):
    for number, piece in enumerate(pieces):
        await asyncio.sleep(0)
        yield LogChunk(piece, number, source)


async def everything(merge):
    found = []
    while merge.busy:
        if (chunk := await merge.next(5)) is not None:
            found.append((chunk.source, chunk.data))
    return found


async def test_many_streams_are_one_each_in_its_order():
    merge = Merge()
    own = [b"%d" % number for number in range(100)]
    merge.add("", said("", *own))
    merge.add("e1", said("e1", b"a", b"b"))
    merge.add("e2", said("e2"))
    found = await everything(merge)
    assert [data for source, data in found if not source] == own
    assert [data for source, data in found if source == "e1"] == [b"a", b"b"]
    assert not merge.running("e2")
    assert await merge.next(0.01) is None
    await merge.close()


async def test_a_stream_that_fails_fails_the_whole_and_a_close_ends_all():
    closed = []

    async def endless():
        try:
            await asyncio.Event().wait()
            yield LogChunk(b"", 0)
        finally:
            closed.append("endless")

    async def broken():
        yield LogChunk(b"x", 1, "e")
        raise ValueError("a bug")

    merge = Merge()
    merge.add("", endless())
    merge.add("e", broken())
    with pytest.raises(ValueError, match="a bug"):
        await everything(merge)
    await merge.close()
    assert closed == ["endless"]
    assert not merge.busy


def test_the_logs_of_the_last_executors_are_kept(tmp_path):
    tail = Tail(100)
    tail.feed(b"x\n")
    for number in range(KEPT + 3):
        write_saved(path_of(tmp_path, f"e{number:02}"), tail)
        _executor_logs._drop_oldest(tmp_path)
    kept = saved(tmp_path)
    assert len(kept) == KEPT
    assert f"e{KEPT + 2:02}" in kept


async def test_who_follows_reads_what_an_executor_left_just_before_its_driver_ended(tmp_path):
    """It has lived for less than the time between two looks."""
    known = KnownDriver(DriverId("d" * 24), "token")
    logs, tail = DriverLogs(tmp_path, Fleet(key=b"key", clock=SystemClock())), Tail(100)
    tail.feed(b"its last words\n")

    async def own():
        yield LogChunk(b"the driver's", 12)
        write_saved(path_of(tmp_path / known.id, "exec-2"), tail)

    told = [(chunk.source, chunk.data) async for chunk in logs._merged(known, own(), {}, 0, follow=True)]
    assert told == [("", b"the driver's"), ("exec-2", b"its last words\n")]


@pytest.mark.kubernetes
@pytest.mark.timeout(600)
async def test_what_executors_say_is_told_with_their_names_also_after_the_end(space, tmp_path):
    async with broker(tmp_path, space) as running:
        name = await running.ready(executors=1)

        def use(client):
            with client.open(name) as lease:
                lease.attach()
                with lease.session(api="connect") as spark:
                    spark.range(10).selectExpr("sum(id)").collect()
                (executor,) = {piece.source for piece in client.all_logs(name)} - {""}
                return executor, said_by(client.all_logs(name))

        def said_by(pieces):
            found: dict[str, bytes] = {}
            for piece in pieces:
                found[piece.source] = found.get(piece.source, b"") + piece.data
            return found

        executor, live = await running.ask(use)
        assert executor.endswith("-exec-1")
        assert b"Spark Connect server started" in live[""]
        assert b"Starting executor ID 1" in live[executor]
        await running.until_ended(name)
        await running.until_free(space)
        kept = await running.ask(lambda client: said_by(client.all_logs(name)))
        assert set(kept) == {"", executor}
        assert kept[executor].startswith(live[executor])
        (line,) = await running.ask(
            lambda client: [piece.data for piece in client.all_logs(name, tail_lines=1) if piece.source]
        )
        assert line.count(b"\n") <= 1


def ending():
    """A UDF that ends the first executor, and names the one where it comes through. It needs a session."""
    from pyspark.sql.functions import udf

    @udf("string")
    def end(_):
        import os
        import signal
        import socket
        import time

        if socket.gethostname().endswith("-exec-1"):
            os.kill(1, signal.SIGTERM)
            time.sleep(600)
        return socket.gethostname()

    return end


@pytest.mark.kubernetes
@pytest.mark.timeout(600)
@pytest.mark.long
async def test_an_executor_that_was_killed_leaves_its_log_and_who_follows_reads_both(space, tmp_path):
    async with broker(tmp_path, space) as running:
        name = await running.ready(executors=1)

        def die(client):
            """The first executor's JVM ends by itself, and Spark makes another."""
            with client.open(name) as lease:
                lease.attach()
                with lease.session(api="connect") as spark:
                    return spark.range(1).select(ending()("id").alias("host")).collect()[0]["host"]

        async def follow():
            found = set()
            async with AsyncBroker(running.url) as client:
                async for piece in client.all_logs(name, follow=True):
                    found.add(piece.source)
            return found

        following = asyncio.get_running_loop().create_task(follow())
        assert (await running.ask(die)).endswith("-exec-2")
        await running.until_ended(name)
        await running.until_free(space)
        async with asyncio.timeout(60):
            told = await following
        kept = await running.ask(lambda client: {piece.source for piece in client.all_logs(name)})
        numbers = {source.rpartition("-")[2] for source in told}
        assert {"", "1", "2"} <= numbers
        assert kept == told
