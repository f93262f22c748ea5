"""Who of a principal's streams sends when: few at a time, first come, first served, and within a bound of unread bytes."""

import asyncio
import contextlib

from sparkbroker.broker.domain.errors import Unavailable
from sparkbroker.broker.domain.units import Principal
from sparkbroker.broker.ports.authenticator import Caller
from sparkbroker.broker.ports.metrics import NoMetrics
from sparkbroker.broker.rpc.limits import Limits
from sparkbroker.broker.rpc.streams import SENT_AT_ONCE, Streams

ANNS = ("ann", "watch")


class Slow:
    """A call's context whose peer takes a message only when it is let."""

    def __init__(self):
        self.taken = asyncio.Event()
        self.given = []

    async def write(self, data):
        self.given.append(data)
        await self.taken.wait()


async def test_streams_that_are_not_read_hold_messages_up_to_a_bound():
    streams = Streams(Limits(answer_bytes_per_principal=10), NoMetrics())
    contexts = [Slow() for _ in range(4)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(streams.write(ANNS, context, lambda: b"1234")) for context in contexts]
        bob = Slow()
        group.create_task(streams.write(("bob", "watch"), bob, lambda: b"0123456789ab"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [len(context.given) for context in contexts] == [1, 1, 0, 0]
        assert bob.given == [b"0123456789ab"]  # a message that is larger than the bound, alone
        tasks[2].cancel()
        contexts[0].taken.set()
        async with asyncio.timeout(20):
            while not contexts[3].given:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0)
        assert not contexts[2].given
        for context in (*contexts, bob):
            context.taken.set()
    assert not streams._unsent


async def test_a_small_message_passes_those_that_wait_for_bytes():
    streams, stuck, small = Streams(Limits(answer_bytes_per_principal=10), NoMetrics()), Slow(), Slow()
    small.taken.set()
    async with asyncio.TaskGroup() as group:
        group.create_task(streams.write(ANNS, stuck, lambda: b"12345678"))
        await asyncio.sleep(0)
        large = [group.create_task(streams.write(ANNS, Slow(), lambda: b"1234")) for _ in range(2 * SENT_AT_ONCE)]
        await asyncio.sleep(0)
        await asyncio.wait_for(group.create_task(streams.write(ANNS, small, lambda: b"12")), 5)
        assert small.given == [b"12"]
        for task in large:
            task.cancel()
        stuck.taken.set()


async def test_who_always_has_news_keeps_nobody_waiting():
    streams, quick = Streams(Limits(), NoMetrics()), Slow()
    quick.taken.set()

    async def tell_for_ever():
        while True:
            context = Slow()
            asyncio.get_running_loop().call_soon(context.taken.set)
            await streams.write(ANNS, context, lambda: b"news")

    async with asyncio.TaskGroup() as group:
        busy = [group.create_task(tell_for_ever()) for _ in range(SENT_AT_ONCE)]
        await asyncio.sleep(0)
        last = group.create_task(streams.write(ANNS, quick, lambda: b"last"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert last.done()
        for task in busy:
            task.cancel()


async def test_peers_that_do_not_read_keep_no_other_stream_of_theirs_waiting():
    streams, quick = Streams(Limits(), NoMetrics()), Slow()
    quick.taken.set()
    async with asyncio.TaskGroup() as group:
        stuck = [group.create_task(streams.write(ANNS, Slow(), lambda: b"1")) for _ in range(SENT_AT_ONCE)]
        await asyncio.sleep(0)
        given_up = group.create_task(streams.write(ANNS, Slow(), lambda: b"2"))
        last = group.create_task(streams.write(ANNS, quick, lambda: b"3"))
        await asyncio.sleep(0)
        assert not last.done()
        given_up.cancel()
        await asyncio.wait_for(last, 20)
        for task in stuck:
            task.cancel()
    assert not streams._unsent


async def test_a_stream_that_ends_by_its_age_can_be_ended_meanwhile():
    streams, ann = Streams(Limits(stream_seconds=0.0), NoMetrics()), Caller(Principal("ann"), frozenset())
    with contextlib.suppress(Unavailable):
        async with streams.open("WatchLeases", ann, lambda: ann):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                streams.close()  # as the broker does while its end takes long
                raise
    assert len(streams) == 0
