"""The streams that are open: how many each principal has, how old they may get, and how they end when the broker does."""

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter
from types import TracebackType
from typing import Any, Final, Self

from sparkbroker.broker.domain.errors import BrokerError, TooMany, Unavailable
from sparkbroker.broker.domain.units import Principal
from sparkbroker.broker.ports.authenticator import Caller
from sparkbroker.broker.ports.metrics import Metrics
from sparkbroker.broker.rpc.limits import Limits

SENT_AT_ONCE: Final = 16
"""Messages of one principal's streams that are on their way into the network: a millisecond or two of work."""
STALLED: Final = 0.25
"""Seconds after which a message that isn't sent has a peer that doesn't read. It is looked for as often."""
Line = tuple[str, str]
"""Streams that send in turns: whose they are (see ``Call.line``), and which kind. Heartbeats don't wait behind watches."""
STOPPING: Final = "the broker is stopping; sessions go on: connect again and resume"


class Streams:
    """One for all listeners of a server. ``add`` and ``remove`` are for ``Stream`` alone."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self.limits = limits
        self._metrics = metrics
        self._open: set[Stream] = set()
        self._by_principal: dict[Principal, int] = {}
        self._unsent: dict[Line, _Unsent] = {}
        self.closing = False

    def __repr__(self) -> str:
        return f"<Streams [{len(self._open)} open, {len(self._by_principal)} principals]>"

    def __len__(self) -> int:
        return len(self._open)

    def open(self, method: str, caller: Caller, admit: Callable[[], Caller]) -> "Stream":
        """A context in which one stream runs, in the current task. ``admit`` says who its caller is now, or raises."""
        return Stream(self, method, caller, admit)

    def close(self) -> None:
        """End all streams with UNAVAILABLE, and refuse new calls the same way. Idempotent; returns at once."""
        self.closing = True
        for stream in self._open:
            stream.end()

    def admit_again(self) -> None:
        """End those whose caller isn't admitted any more, with that error; with OK those whose caller has other roles."""
        for stream in self._open:
            stream.admit_again()

    def refuse_if_closing(self) -> None:
        if self.closing:
            raise Unavailable(STOPPING, retry_after=1.0)

    async def write(self, line: Line, context: Any, encode: Callable[[], bytes]) -> None:
        """Send a message on one of the streams of a line, once it is its turn. ``encode`` makes it, perhaps twice.

        gRPC keeps a message until the peer's flow control lets it go. Without a bound on the bytes of a line, each stream that
        nobody reads would hold one. And few are sent at a time: gRPC tells their ends in one line with new calls, a single
        one in each turn of the loop once they are some hundreds, so that a thousand streams with news would hold up
        everybody's calls.
        """
        unsent = self._unsent.get(line)
        if unsent is None:
            unsent = self._unsent[line] = _Unsent(self.limits.answer_bytes_per_principal, self._metrics)
        unsent.streams += 1
        try:
            data = encode()
            size = len(data)
            ticket = unsent.enter(size)
            if ticket is None:
                del data  # Hundreds may wait.
                ticket = await unsent.turn(size)
                data = encode()
            try:
                await context.write(data)
            finally:
                unsent.leave(ticket, size)
        finally:
            unsent.streams -= 1
            if not unsent.streams:
                self._unsent.pop(line, None)

    def check_room(self, principal: Principal) -> None:
        """Raise TooMany if the principal may open no more."""
        count = self._by_principal.get(principal, 0)
        if count >= self.limits.streams_per_principal:
            self._metrics.limited("streams_per_principal")
            raise TooMany(
                f"{count} streams of {principal} are open, and at most {self.limits.streams_per_principal} may be; "
                "end some, or watch all leases over one stream (WatchLeases)",
                retry_after=5.0,
                limit=str(self.limits.streams_per_principal),
            )

    def add(self, stream: "Stream") -> None:
        """Count a stream. Raise TooMany, Unavailable."""
        self.refuse_if_closing()
        self.check_room(stream.principal)
        self._by_principal[stream.principal] = self._by_principal.get(stream.principal, 0) + 1
        self._open.add(stream)
        self._metrics.streams(stream.method, 1)

    def remove(self, stream: "Stream") -> None:
        """It has ended."""
        self._open.discard(stream)
        left = self._by_principal[stream.principal] - 1
        if left:
            self._by_principal[stream.principal] = left
        else:
            del self._by_principal[stream.principal]
        self._metrics.streams(stream.method, -1)


class _Unsent:
    """The messages of a line that gRPC has and that aren't sent yet, and those that wait: first come, first served, but that
    a small one passes those that wait for more bytes to be read.

    One that isn't sent when it is looked for after STALLED has a peer that doesn't read: it is no longer among those that are
    being sent, and keeps nothing of its line's other streams from going on.
    """

    __slots__ = ("_began", "_count", "_limit", "_metrics", "_size", "_timer", "_waiting", "streams")

    def __init__(self, limit: int, metrics: Metrics) -> None:
        self._limit = limit
        self._metrics = metrics
        self._size = 0
        self._began: dict[int, float] = {}
        """When each that is being sent began, by its ticket, in that order."""
        self._count = 0
        self._waiting: deque[tuple[int, asyncio.Future[int]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.streams = 0

    def enter(self, size: int) -> int | None:
        """A message's ticket, with which it ``leave``s; None: it has to wait for its ``turn``."""
        if not self._has_bytes(size):
            self._metrics.limited("answer_bytes_per_principal")
        elif not self._waiting and len(self._began) < SENT_AT_ONCE:
            return self._take(size)
        return None

    async def turn(self, size: int) -> int:
        """Wait for a ticket."""
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        self._look_for_stalled()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(turn.result(), size)  # It was given, and isn't used.
            raise

    def leave(self, ticket: int, size: int) -> None:
        """It is sent, or never will be."""
        self._size -= size
        self._began.pop(ticket, None)
        self._grant()

    def _has_bytes(self, size: int) -> bool:
        return not self._size or self._size + size <= self._limit

    def _take(self, size: int) -> int:
        self._count += 1
        self._size += size
        self._began[self._count] = perf_counter()
        return self._count

    def _grant(self) -> None:
        passed: list[tuple[int, asyncio.Future[int]]] = []
        while self._waiting and len(self._began) < SENT_AT_ONCE:
            size, turn = self._waiting.popleft()
            if turn.done():
                continue  # cancelled
            if self._has_bytes(size):
                turn.set_result(self._take(size))
            else:
                passed.append((size, turn))
        self._waiting.extendleft(reversed(passed))

    def _look_for_stalled(self) -> None:
        if self._timer is None and self._waiting and self._began:
            self._timer = asyncio.get_running_loop().call_later(STALLED, self._pass_stalled)

    def _pass_stalled(self) -> None:
        self._timer = None
        now = perf_counter()
        for ticket in [ticket for ticket, began in self._began.items() if now - began >= STALLED]:
            del self._began[ticket]
        self._grant()
        self._look_for_stalled()


class Stream:
    """The body is interrupted at the maximum age, which ends the stream well, or by ``end``, which raises Unavailable, or
    by ``admit_again``, which raises what its caller is refused with.

    Raise TooMany or Unavailable at the entry. A cancellation from outside (the client has gone) passes through.
    """

    __slots__ = ("_admit", "_caller", "_refusal", "_streams", "_timeout", "method", "principal")

    def __init__(self, streams: Streams, method: str, caller: Caller, admit: Callable[[], Caller]) -> None:
        self._streams = streams
        self._caller = caller
        self._admit = admit
        self._refusal: BrokerError | None = None
        self.method = method
        self.principal = caller.principal
        self._timeout = asyncio.timeout(streams.limits.stream_seconds)

    def end(self) -> None:
        if not self._timeout.expired():  # It is ending already, and may take a while.
            self._timeout.reschedule(asyncio.get_running_loop().time())

    def admit_again(self) -> None:
        try:
            if self._admit() == self._caller:
                return
        except BrokerError as error:
            self._refusal = error
        self.end()

    async def __aenter__(self) -> Self:
        self._streams.add(self)
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._streams.remove(self)
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            self._streams.refuse_if_closing()
            if self._refusal is not None:
                raise self._refusal from None
            return True
        return False
