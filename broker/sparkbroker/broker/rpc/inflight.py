"""The calls that are under way: how many there are of each principal, and what they keep in memory.

A call counts from its headers until gRPC has nothing more of it: an answer that the peer doesn't take (a flow-control
window that it keeps shut) is kept by gRPC, and counts. Streams count here until they have read their request; then
``streams`` has them.
"""

import asyncio
from collections.abc import Iterator
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from sparkbroker.broker.domain.errors import BrokerError, TooMany
from sparkbroker.broker.domain.units import Principal
from sparkbroker.broker.ports.authenticator import Caller
from sparkbroker.broker.ports.metrics import Metrics
from sparkbroker.broker.rpc.crowding import NOBODY, Connection
from sparkbroker.broker.rpc.errors import DeadlineExceeded, MalformedRequest
from sparkbroker.broker.rpc.limits import Limits

END: Final[Any] = grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs lack it
"""What ``read`` of a context returns when the peer has no more messages."""
_RETRY: Final = 1.0


class InFlight:
    """One for all listeners of a server."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._accounts: dict[Principal, _Account] = {}
        self._anonymous: dict[Call, None] = {}
        self._answered: dict[Call, float] = {}

    def __repr__(self) -> str:
        return f"<InFlight [{len(self._accounts)} principals, {len(self._anonymous)} anonymous]>"

    def enter(self, caller: Caller, connection: Connection, place: "Place") -> "Call":
        """A call has begun. Raise TooMany; otherwise ``end`` it, once."""
        if caller.principal == NOBODY:
            return self._enter_anonymous(connection)
        account = self._accounts.get(caller.principal)
        if account is None:
            account = self._accounts[caller.principal] = _Account(caller.principal, self._limits)
        if account.calls >= self._limits.calls_per_principal:
            raise self._too_many("calls_per_principal", f"{account.calls} calls of this principal are under way")
        if account.answer_bytes >= self._limits.answer_bytes_per_principal:
            raise self._unread(account)
        if place.calls >= self._limits.concurrent_rpcs:
            raise self._too_many("concurrent_rpcs", f"{place.calls} calls are under way on this address")
        account.calls += 1
        return Call(self, account, connection, place)

    def stalled(self, now: float) -> Iterator[str]:
        """The peers (gRPC's names) that don't take an answer in time."""
        for call, answered in self._answered.items():
            if now - answered <= self._limits.answer_seconds:
                return
            yield call.connection.name

    def _enter_anonymous(self, connection: Connection) -> "Call":
        if len(self._anonymous) >= self._limits.anonymous_calls:
            self._metrics.limited("anonymous_calls")
            most: dict[str, int] = {}
            for call in self._anonymous:
                most[call.connection.name] = most.get(call.connection.name, 0) + 1
            crowd = max(most, key=lambda name: most[name])
            next(call for call in self._anonymous if call.connection.name == crowd).evict()
        call = Call(self, _Account(NOBODY, self._limits), connection, Place())
        self._anonymous[call] = None
        return call

    def _unread(self, account: "_Account") -> TooMany:
        what = f"{account.answer_bytes} bytes of answers wait for this principal's clients to take them"
        return self._too_many("answer_bytes_per_principal", what)

    def _too_many(self, limit: str, what: str) -> TooMany:
        self._metrics.limited(limit)
        allowed = getattr(self._limits, limit)
        return TooMany(f"{what}, and at most {allowed} may be", retry_after=_RETRY, limit=str(allowed))


class Place:
    """A listener, as far as calls fill it, those of streams included."""

    __slots__ = ("calls",)

    def __init__(self) -> None:
        self.calls = 0


class _Account:
    """What a principal has under way."""

    __slots__ = ("answer_bytes", "calls", "principal", "readers")

    def __init__(self, principal: Principal, limits: Limits) -> None:
        self.principal = principal
        self.calls = 0
        self.answer_bytes = 0
        self.readers = asyncio.Semaphore(limits.requests_read_per_principal)


class Call:
    """One call. Its methods are called in its own task, but for ``evict`` and ``end``."""

    __slots__ = ("_account", "_inflight", "_place", "_size", "_task", "connection", "evicted", "left")

    def __init__(self, inflight: InFlight, account: _Account, connection: Connection, place: Place) -> None:
        self._inflight = inflight
        self._place = place
        self._account = account
        self._size = 0
        self._task = asyncio.current_task()
        self.connection = connection
        connection.calls += 1
        place.calls += 1
        self.evicted = False
        self.left = False

    async def read(self, name: str, context: Any) -> Any:
        """The first message, or what its bytes were refused with. Raise DeadlineExceeded."""
        seconds = self._inflight._limits.request_seconds  # noqa: SLF001 - one thing in two classes
        timeout = asyncio.timeout(seconds)
        try:
            async with timeout, self._account.readers:
                request = await context.read()
        except TimeoutError as error:
            if not timeout.expired():
                raise
            self._inflight._metrics.limited("request_seconds")  # noqa: SLF001 - as above
            raise DeadlineExceeded(f"the call's request did not come within {seconds:g} s of its headers") from error
        if request is END:
            raise MalformedRequest(f"the call of {name} carries no request; send one message")
        return request

    def answer(self, message: Message) -> bytes:
        """The answer's bytes, which count until the call is left. Raise TooMany."""
        data = message.SerializeToString()
        inflight, account = self._inflight, self._account
        if account.answer_bytes + len(data) > inflight._limits.answer_bytes_per_principal:  # noqa: SLF001 - as above
            raise inflight._unread(account)  # noqa: SLF001 - as above
        account.answer_bytes += len(data)
        self._size = len(data)
        inflight._answered[self] = asyncio.get_running_loop().time()  # noqa: SLF001 - as above
        return data

    def evict(self) -> None:
        """End it for another one: its task gets a CancelledError, and ``evicted`` tells why."""
        self.evicted = True
        self.leave()
        if self._task is not None:
            self._task.cancel()

    def made_way(self) -> bool:
        """In its task, after a CancelledError: whether it was evicted, and nothing else. Then the task goes on."""
        return self.evicted and self._task is not None and not self._task.uncancel()

    def eviction(self) -> BrokerError:
        """What an evicted call is refused with."""
        return TooMany("too many calls without a token are under way, and this was the oldest", retry_after=_RETRY)

    def leave(self) -> None:
        """It counts no more."""
        if self.left:
            return
        self.left = True
        inflight, account = self._inflight, self._account
        inflight._answered.pop(self, None)  # noqa: SLF001 - as above
        account.answer_bytes -= self._size
        if account.principal == NOBODY:
            inflight._anonymous.pop(self, None)  # noqa: SLF001 - as above
            return
        account.calls -= 1
        if not account.calls:
            inflight._accounts.pop(account.principal, None)  # noqa: SLF001 - as above

    def end(self, _context: object = None) -> None:
        """It is over, for gRPC too. Called once."""
        self.connection.calls -= 1
        self._place.calls -= 1
        self.leave()
