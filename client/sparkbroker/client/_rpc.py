"""The broker's calls: deadlines, retries of what is safe, and watches that resume."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Final

from google.protobuf.message import Message

from sparkbroker.client._clock import now
from sparkbroker.client._errors import BrokerUnreachable, SparkbrokerError
from sparkbroker.client._retry import retry_delay
from sparkbroker.client._transport import Reply, Transport
from sparkbroker.v1 import broker_pb2 as pb

CALL_TIMEOUT: Final = 15.0
"""Seconds for one try of a call."""
STREAM_TIMEOUT: Final = 50.0
"""Seconds for which a watch is left open before it is asked for anew: a connection that died silently shows then."""


class Rpc:
    """Calls over one transport. ``patience``: seconds for all tries of a call together."""

    def __init__(self, transport: Transport, *, patience: float) -> None:
        self.transport = transport
        self.patience = patience

    async def call(self, method: str, request: Message, reply: type[Reply], *, patience: float | None = None) -> Reply:
        """Call until it is answered, or ``patience`` is over; raise the last try's error.

        Only for what may be repeated: reads, renewals, releases, and what carries a request id.
        """
        end = now() + (self.patience if patience is None else patience)
        attempt = 0
        while True:
            attempt += 1
            try:
                timeout = max(0.05, min(CALL_TIMEOUT, end - now()))
                return await self.transport.unary(method, request, reply, timeout)
            except SparkbrokerError as error:
                delay = retry_delay(error, attempt, end - now(), random.random())  # noqa: S311  jitter
                if delay is None:
                    raise
            await asyncio.sleep(delay)

    async def watch(
        self, name: str, after_revision: int, *, outages: bool = False
    ) -> AsyncIterator[pb.WatchLeaseResponse | BrokerUnreachable]:
        """Follow a lease to its terminal event, across broken connections, which it resumes by revision.

        Raise BrokerUnreachable when the broker can't be reached for ``patience`` seconds, and EventsCompacted. With
        ``outages`` a failed try is also given out, as the error that it met.
        """
        revision = after_revision
        reached = now()
        attempt = 0
        while True:
            request = pb.WatchLeaseRequest(name=name, after_revision=revision)
            opened = now()
            try:
                stream = self.transport.stream("WatchLease", request, pb.WatchLeaseResponse, STREAM_TIMEOUT)
                async for update in stream:
                    revision, reached, attempt = max(revision, update.revision), now(), 0
                    yield update
                    if _is_last(update):
                        return
                reached = now()
            except BrokerUnreachable as error:
                if now() - opened >= STREAM_TIMEOUT * 0.9:
                    reached = now()  # it was open all the time and had nothing to say
                    continue
                attempt += 1
                delay = retry_delay(error, attempt, self.patience - (now() - reached), random.random())  # noqa: S311
                if delay is None:
                    raise
                if outages:
                    yield error
            else:
                # Ended with OK: the server's limit on the age of streams. A server that ends each at once isn't spun on.
                attempt += 1
                delay = min(1.0, 0.05 * 2 ** min(attempt, 5))
            await asyncio.sleep(delay)

    async def watch_all(self, filter: str, after_revision: int) -> AsyncIterator[pb.WatchLeasesResponse]:
        """Follow all leases that the filter selects, for ever; errors as of ``watch``."""
        revision, reached, attempt = after_revision, now(), 0
        delay: float | None
        while True:
            request = pb.WatchLeasesRequest(filter=filter, after_revision=revision)
            opened = now()
            try:
                async for update in self.transport.stream(
                    "WatchLeases", request, pb.WatchLeasesResponse, STREAM_TIMEOUT
                ):
                    revision, reached, attempt = max(revision, update.revision), now(), 0
                    yield update
            except BrokerUnreachable as error:
                if now() - opened >= STREAM_TIMEOUT * 0.9:
                    reached = now()
                    continue
                attempt += 1
                delay = retry_delay(error, attempt, self.patience - (now() - reached), random.random())  # noqa: S311
                if delay is None:
                    raise
            else:
                delay = 0.05
            await asyncio.sleep(delay)

    async def logs(self, request: pb.StreamLogsRequest) -> AsyncIterator[pb.StreamLogsResponse]:
        """A driver's log, across broken connections, which it resumes by offset; errors as of ``watch``."""
        reached = now()
        attempt = 0
        while True:
            opened = now()
            try:
                async for chunk in self.transport.stream("StreamLogs", request, pb.StreamLogsResponse, STREAM_TIMEOUT):
                    reached, attempt = now(), 0
                    yield chunk
                    request = _resumed(request, chunk.next_offset)
            except BrokerUnreachable as error:
                if now() - opened >= STREAM_TIMEOUT * 0.9:
                    reached = now()
                    continue
                attempt += 1
                delay = retry_delay(error, attempt, self.patience - (now() - reached), random.random())  # noqa: S311
                if delay is None:
                    raise
            else:
                return
            await asyncio.sleep(delay)


def _resumed(request: pb.StreamLogsRequest, offset: int) -> pb.StreamLogsRequest:
    return pb.StreamLogsRequest(name=request.name, offset=offset, follow=request.follow, attempt=request.attempt)


def _is_last(update: pb.WatchLeaseResponse) -> bool:
    match update.WhichOneof("update"):
        case "event":
            state = update.event.state
        case "snapshot":
            state = update.snapshot.state
        case _:
            return False
    return state >= pb.LEASE_STATE_RELEASED
