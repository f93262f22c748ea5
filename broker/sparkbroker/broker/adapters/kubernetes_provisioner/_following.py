"""A pod's log for people: from an offset, or some lines before its end, and on until its container has ended, across connections
that break and files that the node rotates.

Each byte that the node still has is told once. Offsets (see ``_logs``) are the broker's only memory between two readers' calls, so
there are two limits. Of a file that was rotated after an offset was told, and that has grown past it, what lies before the offset
isn't told. A reader that comes with an offset beyond what there is gets the new file from its beginning, also what was told
of it in a call before; within a call the last bytes that were told say where to go on.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from http import HTTPStatus
from typing import Final

import structlog

from sparkbroker.broker.adapters.kubernetes_provisioner import _logs
from sparkbroker.broker.adapters.kubernetes_provisioner._cluster import Cluster
from sparkbroker.broker.adapters.kubernetes_provisioner._errors import ApiFailed
from sparkbroker.broker.adapters.kubernetes_provisioner._pods import Pod

log = structlog.get_logger()

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 15.0
LAST_TRIES: Final = 3
"""For what is left to read of a container that has ended."""
_KNOWN: Final = 512
"""Bytes by which the place is found again in a file whose beginning has gone."""

EndedWithin = Callable[[float], Awaitable[bool]]
"""Wait for a container's end, at most so many seconds. Whether it has ended, or its pod has gone."""


class LogReader:
    """One reader of one log, and how far it has come."""

    def __init__(self, cluster: Cluster, pod: Pod, token: str, offset: int) -> None:
        self.offset = offset
        self.whole = False
        """Whether the last connection ended in good order, and not before the offset."""
        self._cluster = cluster
        self._pod = pod
        self._token = token
        self._last = b""
        """What came before the offset: its end, as far as this one has seen it."""

    def __repr__(self) -> str:
        return f"<LogReader {self._pod.metadata.name} at {self.offset}>"

    async def tail(self, lines: int) -> bytes:
        """The last ones; the offset is after them."""
        tail = await _logs.measure(self._cluster, self._pod, self._token, _logs.LONGEST_TAIL, for_people=True)
        self.offset, self._last = tail.total, tail.data[-_KNOWN:]
        return tail.lines(lines)

    async def connect(self, *, follow: bool) -> AsyncGenerator[bytes, None]:
        """What there is after the offset, over one connection, with ``follow`` also what comes. It ends early where there is less
        than the offset says, with the offset where to go on. Raise ApiFailed."""
        # All is read again from its beginning: the API takes a time to begin at, in whole seconds, and no offset; and the times
        # of lines aren't in order where a container writes to both of its streams.
        position, looked, last, self.whole = 0, False, b"", False
        async with aclosing(self._stream(follow=follow)) as pieces:
            async for data in pieces:
                position, last = position + len(data), (last + data)[-_KNOWN:]
                if position >= self.offset:
                    new = data[len(data) - (position - self.offset) :]
                    self.offset, self._last = position, last
                    if new:
                        yield new
                elif not data and not looked:
                    looked = True
                    if await self._rotated():
                        return
        self.whole = position >= self.offset
        if not self.whole and not looked:
            await self._rotated()

    async def _rotated(self) -> bool:
        """Whether there is less than the offset says; then the offset is after what was told last, as far as that is still there,
        else at the beginning. That a connection has told no more doesn't say it: it may be slow, or cut."""
        total, place, window, head = 0, 0, b"", b""
        async with aclosing(self._stream(follow=False)) as pieces:
            async for data in pieces:
                total, window, head = total + len(data), window[-_KNOWN:] + data, head + data[: _KNOWN - len(head)]
                found = window.rfind(self._last) if self._last else -1
                if found >= 0:
                    place = total - len(window) + found + len(self._last)
        if total >= self.offset:
            return False
        place = place or next((n for n in range(len(head), 0, -1) if self._last.endswith(head[:n])), 0)
        log.info("driver.log_rotated", pod=self._pod.metadata.name, offset=self.offset, length=total, place=place)
        self.offset = place
        return True

    def _stream(self, *, follow: bool) -> AsyncGenerator[bytes, None]:
        return _logs.stream(self._cluster, self._pod, self._token, follow=follow, for_people=True)


async def live(
    cluster: Cluster,
    pod: Pod,
    token: str,
    offset: int,
    tail_lines: int,
    ended_within: EndedWithin | None,
) -> AsyncGenerator[tuple[bytes, int], None]:
    """A log from an offset or a number of lines before its end, with the offset after each piece; followed until its container
    has ended if that can be asked. What its pod takes with it when it goes meanwhile was saved."""
    reader, pause, tries = LogReader(cluster, pod, token, offset), FIRST_PAUSE, 0
    while tries < LAST_TRIES:
        try:
            if tail_lines:
                told, tail_lines = await reader.tail(tail_lines), 0
                if told:
                    yield told, reader.offset
                if ended_within is None:
                    return
            async with aclosing(reader.connect(follow=ended_within is not None)) as pieces:
                async for data in pieces:
                    pause = FIRST_PAUSE
                    yield data, reader.offset
        except ApiFailed as error:
            log.info("driver.log_cut", pod=pod.metadata.name, message=error.message)
            if not _may_pass(error):
                return
        # A stream ends in good order also where a node's kubelet is restarted: only the container's end is the end.
        over = ended_within is None or await ended_within(pause)
        if over and reader.whole:
            return
        tries, pause = tries + over, min(LONGEST_PAUSE, pause * 2)


def _may_pass(error: ApiFailed) -> bool:
    return error.retryable and error.code not in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
