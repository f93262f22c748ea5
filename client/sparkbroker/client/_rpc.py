"""The broker's calls: deadlines, retries of what is safe, and watches that resume."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final

from google.protobuf.message import Message

from sparkbroker.client._clock import now
from sparkbroker.client._errors import BrokerUnreachable, SparkbrokerError
from sparkbroker.client._retry import reopen_delay, retry_delay
from sparkbroker.client._transport import Interrupted, Reply, Transport
from sparkbroker.v1 import broker_pb2 as pb

CALL_TIMEOUT: Final = 15.0
"""Seconds for one try of a call."""
STREAM_TIMEOUT: Final = 50.0
"""Seconds for which a watch is left open before it is asked for anew: a connection that died silently shows then."""
MAX_OFFSETS: Final = 1000
"""Executors of which a request says where their logs go on."""


class Rpc:
    """Calls over one transport. ``patience``: seconds for all tries of a call together."""

    def __init__(self, transport: Transport, *, patience: float) -> None:
        self.transport = transport
        self.patience = patience

    async def call(self, method: str, request: Message, reply: type[Reply], *, patience: float | None = None) -> Reply:
        """Call until it is answered, or ``patience`` is over; raise the last try's error.

        Only for what may be repeated: reads, renewals, releases, and what carries a request id. Promise 8: the tries of a call
        are one request, under one id.
        """
        end = now() + (self.patience if patience is None else patience)
        attempt = 0
        while True:
            attempt += 1
            try:
                timeout = max(0.05, min(CALL_TIMEOUT, end - now()))
                return await self.transport.unary(method, request, reply, timeout)
            except Interrupted:
                attempt -= 1
                continue
            except SparkbrokerError as error:
                delay = retry_delay(error, attempt, end - now(), random.random())  # noqa: S311  jitter
                if delay is None:
                    raise
            await asyncio.sleep(delay)

    async def watch(
        self, name: str, after_revision: int, *, outages: bool = False
    ) -> AsyncGenerator[pb.WatchLeaseResponse | BrokerUnreachable, None]:
        """Follow a lease to its terminal event, across broken connections, which it resumes by revision (promise 14).

        Raise BrokerUnreachable when the broker can't be reached for ``patience`` seconds, and EventsCompacted. With
        ``outages`` a failed try is also given out, as the error that it met.
        """
        request = pb.WatchLeaseRequest(name=name, after_revision=after_revision)
        async with aclosing(self._follow("WatchLease", request, pb.WatchLeaseResponse, again=True)) as updates:
            async for update in updates:
                if isinstance(update, BrokerUnreachable):
                    if outages:
                        yield update
                    continue
                request.after_revision = max(request.after_revision, update.revision)
                yield update
                if _is_last(update):
                    return

    async def watch_all(self, filter: str, after_revision: int) -> AsyncIterator[pb.WatchLeasesResponse]:
        """Follow all leases that the filter selects, for ever; errors as of ``watch``."""
        request = pb.WatchLeasesRequest(filter=filter, after_revision=after_revision)
        async with aclosing(self._follow("WatchLeases", request, pb.WatchLeasesResponse, again=True)) as updates:
            async for update in updates:
                if not isinstance(update, BrokerUnreachable):
                    request.after_revision = max(request.after_revision, update.revision)
                    yield update

    async def logs(self, request: pb.StreamLogsRequest) -> AsyncIterator[pb.StreamLogsResponse]:
        """A driver's log, and its executors' if asked for, across broken connections, which it resumes by offset; errors
        as of ``watch``."""
        resumed = pb.StreamLogsRequest()
        resumed.CopyFrom(request)
        heard = dict.fromkeys(request.executor_offsets)
        async with aclosing(self._follow("StreamLogs", resumed, pb.StreamLogsResponse, again=False)) as chunks:
            async for chunk in chunks:
                if not isinstance(chunk, BrokerUnreachable):
                    if chunk.source:
                        _note_offset(resumed, heard, chunk)
                    else:
                        resumed.offset = chunk.next_offset
                    if not resumed.executors:
                        resumed.tail_lines = 0  # it says where to begin, as the offset now does
                    yield chunk

    async def _follow(
        self, method: str, request: Message, reply: type[Reply], *, again: bool
    ) -> AsyncGenerator[Reply | BrokerUnreachable, None]:
        """A stream's messages, and each failed try as its error, until the broker can't be reached for ``patience``.

        It is opened anew with ``request``, in which the caller keeps how far it has come; with ``again`` also when the
        broker has ended it in good order, which is its limit on the age of streams.
        """
        reached, attempt = now(), 0
        while True:
            opened = now()
            delay: float | None
            failed: BrokerUnreachable | None = None
            try:
                async with aclosing(self.transport.stream(method, request, reply, STREAM_TIMEOUT)) as stream:
                    async for message in stream:
                        reached, attempt = now(), 0
                        yield message
                if not again:
                    return
                reached, attempt = now(), attempt + 1
                delay = reopen_delay(attempt)
            except Interrupted:
                continue
            except BrokerUnreachable as error:
                if now() - opened >= STREAM_TIMEOUT * 0.9:
                    reached = now()  # it was open all the time and had nothing to say
                    continue
                attempt += 1
                delay = retry_delay(error, attempt, self.patience - (now() - reached), random.random())  # noqa: S311
                if delay is None:
                    raise
                failed = error
            if failed is not None:
                yield failed
            await asyncio.sleep(delay)


def _note_offset(resumed: pb.StreamLogsRequest, heard: dict[str, None], chunk: pb.StreamLogsResponse) -> None:
    """Go on there. The broker takes so many offsets and no more: that of who was silent the longest is dropped."""
    heard.pop(chunk.source, None)
    heard[chunk.source] = None
    resumed.executor_offsets[chunk.source] = chunk.next_offset
    if len(heard) > MAX_OFFSETS:
        oldest = next(iter(heard))
        del heard[oldest], resumed.executor_offsets[oldest]


def _is_last(update: pb.WatchLeaseResponse) -> bool:
    match update.WhichOneof("update"):
        case "event":
            state = update.event.state
        case "snapshot":
            state = update.snapshot.state
        case _:
            return False
    return state >= pb.LEASE_STATE_RELEASED
