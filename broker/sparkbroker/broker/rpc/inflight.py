"""The calls that are under way: how many there are of each principal, and what they keep in memory.

A call counts from its headers until gRPC has nothing more of it: an answer that the peer doesn't take (a flow-control
window that it keeps shut) is kept by gRPC, and counts. Streams count here until they have read their request; then
``streams`` has them.
"""

import asyncio
from collections.abc import Iterator
from time import perf_counter
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from sparkbroker.broker.domain.errors import BrokerError, TooMany
from sparkbroker.broker.domain.units import Principal
from sparkbroker.broker.ports.authenticator import Caller
from sparkbroker.broker.ports.metrics import Limit, Metrics
from sparkbroker.broker.rpc.connections import Connections
from sparkbroker.broker.rpc.crowding import NOBODY, Connection
from sparkbroker.broker.rpc.errors import DeadlineExceeded, MalformedRequest
from sparkbroker.broker.rpc.limits import Limits
from sparkbroker.broker.rpc.turns import Turns

END: Final[Any] = grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs lack it
"""What ``read`` of a context returns when the peer has no more messages."""
_RETRY: Final = 1.0


class InFlight:
    """One for all listeners of a server. Beside its methods, what it holds is for ``Call`` alone."""

    def __init__(self, limits: Limits, metrics: Metrics, connections: Connections) -> None:
        self.connections = connections
        self.limits = limits
        self._metrics = metrics
        self.accounts: dict[Principal, _Account] = {}
        self.anonymous: dict[Call, None] = {}
        self.reading: dict[Call, float] = {}
        self.answered: dict[Call, float] = {}

    def __repr__(self) -> str:
        count = sum(account.calls for account in self.accounts.values())
        return f"<InFlight [{count} calls of {len(self.accounts)} principals, {len(self.anonymous)} anonymous]>"

    def enter(self, caller: Caller, connection: Connection, place: "Place") -> "Call":
        """A call has begun. Raise TooMany; otherwise ``end`` it, once."""
        if caller.principal == NOBODY:
            return self._enter_anonymous(connection)
        account = self.accounts.get(caller.principal)
        if account is None:
            account = self.accounts[caller.principal] = _Account(caller.principal)
        if account.calls >= self.limits.calls_per_principal:
            raise self._too_many("calls_per_principal", f"{account.calls} calls of {caller.principal} are under way")
        if account.answer_bytes >= self.limits.answer_bytes_per_principal:
            raise self.unread(account)
        if place.calls >= self.limits.concurrent_rpcs:
            raise self._too_many("concurrent_rpcs", f"{place.calls} calls are under way on this address")
        account.calls += 1
        return Call(self, account, connection, place)

    def stalled(self, now: float) -> Iterator[str]:
        """The peers (gRPC's names) that don't take an answer in time. Times are of ``time.perf_counter``."""
        for call, answered in self.answered.items():
            if now - answered <= self.limits.answer_seconds:
                return
            yield call.connection.name

    def interrupt_late(self, now: float) -> None:
        """Refuse those whose request doesn't come in time. Times are of ``time.perf_counter``."""
        seconds = self.limits.request_seconds
        for call, began in list(self.reading.items()):
            if now - began <= seconds:
                return
            self._metrics.limited("request_seconds")
            call.interrupt(DeadlineExceeded(f"the call's request did not come within {seconds:g} s of its headers"))

    def _enter_anonymous(self, connection: Connection) -> "Call":
        if len(self.anonymous) >= self.limits.anonymous_calls:
            self._metrics.limited("anonymous_calls")
            most: dict[str, int] = {}
            for call in self.anonymous:
                most[call.connection.name] = most.get(call.connection.name, 0) + 1
            crowd = max(most, key=lambda name: most[name])
            oldest = next(call for call in self.anonymous if call.connection.name == crowd)
            oldest.leave()
            oldest.interrupt(TooMany("too many calls without a token are under way", retry_after=_RETRY))
        call = Call(self, _Account(NOBODY), connection, Place())
        self.anonymous[call] = None
        return call

    def unread(self, account: "_Account") -> TooMany:
        """The refusal of a call whose answer would be one too many."""
        what = f"the clients of {account.principal} have not read {account.answer_bytes} bytes of answers"
        return self._too_many("answer_bytes_per_principal", what)

    def _too_many(self, limit: Limit, what: str) -> TooMany:
        self._metrics.limited(limit)
        allowed = getattr(self.limits, limit)
        return TooMany(f"{what} (the limit is {allowed}): try again later", retry_after=_RETRY, limit=str(allowed))


class Place:
    """A listener, as far as calls fill it, those of streams included."""

    __slots__ = ("calls",)

    def __init__(self) -> None:
        self.calls = 0


class _Account:
    """What a principal has under way."""

    __slots__ = ("answer_bytes", "calls", "principal", "reading", "turns")

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.calls = 0
        self.answer_bytes = 0
        self.reading = 0
        self.turns: Turns | None = None
        """Of calls that wait to read their request; made when the first one does."""

    async def turn(self) -> None:
        """Wait until another call has read its request."""
        if self.turns is None:
            self.turns = Turns()
        await self.turns.wait()


class Call:
    """One call. Its methods are called in its own task, but for ``interrupt`` and ``end``."""

    __slots__ = ("_account", "_inflight", "_left", "_place", "_size", "_task", "connection", "refusal")

    def __init__(self, inflight: InFlight, account: _Account, connection: Connection, place: Place) -> None:
        self._inflight = inflight
        self._place = place
        self._account = account
        self._size = 0
        self._task = asyncio.current_task()
        self._left = False
        self.connection = connection
        connection.calls += 1
        place.calls += 1
        self.refusal: BrokerError | None = None
        """What it was interrupted with."""

    async def read(self, name: str, context: Any) -> Any:
        """The first message, or what its bytes were refused with. It is interrupted if that takes too long."""
        account, reading = self._account, self._inflight.reading
        reading[self] = perf_counter()
        try:
            while account.reading >= self._inflight.limits.requests_read_per_principal:
                await account.turn()
            account.reading += 1
            try:
                request = await context.read()
            finally:
                account.reading -= 1
                if account.turns:
                    account.turns.next()
        finally:
            del reading[self]
        if request is END:
            # So it also looks when the peer takes the call back at once.
            self._inflight.connections.cancelled(self.connection)
            raise MalformedRequest(f"the call of {name} carries no request; send one message")
        return request

    @property
    def line(self) -> Principal:
        """In which it waits for its turn: its principal's, and without one that of its connection."""
        return self._account.principal or Principal(self.connection.name)

    def check_room(self) -> None:
        """Raise TooMany if the principal's clients have so much to take that no page has room: then none is made."""
        limits, held = self._inflight.limits, self._account.answer_bytes
        if held and held + limits.page_bytes > limits.answer_bytes_per_principal:
            raise self._inflight.unread(self._account)

    def answer(self, message: Message) -> bytes:
        """The answer's bytes, which count until the call is left. Raise TooMany."""
        inflight, account = self._inflight, self._account
        data = message.SerializeToString()
        if account.answer_bytes + len(data) > inflight.limits.answer_bytes_per_principal:
            del (
                message,
                data,
            )  # The error's traceback has this frame: a thousand refused calls would keep as many pages.
            raise inflight.unread(account)
        account.answer_bytes += len(data)
        self._size = len(data)
        inflight.answered[self] = perf_counter()
        return data

    def interrupt(self, refusal: BrokerError) -> None:
        """Refuse it after all. Its task gets a CancelledError, and sees by ``interrupted`` what it is."""
        if self.refusal is None and self._task is not None:
            self.refusal = refusal
            self._task.cancel()

    def interrupted(self) -> bool:
        """In its task, after a CancelledError: whether that was ``interrupt``, and nothing else. Then the task goes on."""
        return self.refusal is not None and self._task is not None and not self._task.uncancel()

    def leave(self) -> None:
        """It counts no more."""
        if self._left:
            return
        self._left = True
        inflight, account = self._inflight, self._account
        inflight.answered.pop(self, None)
        account.answer_bytes -= self._size
        if account.principal == NOBODY:
            inflight.anonymous.pop(self, None)
            return
        account.calls -= 1
        if not account.calls:
            inflight.accounts.pop(account.principal, None)

    def end(self, _context: object = None) -> None:
        """It is over, for gRPC too. Called once."""
        self.connection.calls -= 1
        self._place.calls -= 1
        self.leave()
