"""What stands around each method, once, from its registration on: authentication, bounds, errors, metrics, log fields.

Plain wrappers and not gRPC interceptors, which cost more than a small call itself. Three shapes: ``unary`` (one request,
one answer), ``watch`` (one request, a stream) and ``dialogue`` (a stream with one answer per request). A cancelled call
is cancelled inside too: CancelledError passes through (swallowed, it would leak the call).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import partial
from time import perf_counter
from typing import Any, Final, NoReturn, TypeVar, cast

import grpc
import structlog
from google.protobuf.message import Message

from sparkbroker.broker.domain.errors import BrokerError, Unauthenticated
from sparkbroker.broker.log_setup import bind_lazily
from sparkbroker.broker.ports.authenticator import Authenticator, Caller
from sparkbroker.broker.ports.metrics import Metrics
from sparkbroker.broker.rpc.calls import Calls
from sparkbroker.broker.rpc.decode import reader
from sparkbroker.broker.rpc.errors import DeadlineExceeded, failure
from sparkbroker.broker.rpc.inflight import END, Call, Place
from sparkbroker.broker.rpc.limits import Limits
from sparkbroker.broker.rpc.streams import Stream

Context = Any
"""grpc.aio's servicer context, generic and untyped where it matters."""
Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)
U = TypeVar("U")

_CANCELLED: Final = "CANCELLED"
_LOUD: Final = frozenset({
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAUTHENTICATED,
})  # fmt: skip
"""What an operator wants to know the caller of."""

log = structlog.get_logger()


class Handlers:
    """Makes gRPC's handlers from methods that take and give messages and raise BrokerError.

    One for each way to authenticate; ``calls`` is shared by all of a server's. To gRPC each is the handler of a stream of
    requests, the wire being the same: it runs when the headers are there, and not when the whole request is, so that
    nothing is read of somebody whom the broker doesn't know.
    """

    def __init__(self, authenticator: Authenticator, calls: Calls, metrics: Metrics, limits: Limits) -> None:
        self._authenticator = authenticator
        self._calls = calls
        self._metrics = metrics
        self._limits = limits
        self._place = Place()

    def unary(
        self, name: str, kind: type[Q], method: Callable[[Caller, Q], Awaitable[Message]]
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        """One request, one answer, within the caller's deadline or the server's bound, whichever is less."""
        bound = self._limits.unary_seconds

        async def serve(caller: Caller, call: Call, context: Context) -> bytes:
            request = _checked(name, caller, await call.read(name, context))
            call.check_room()
            answer, remaining = method(caller, request), context.time_remaining()
            # gRPC itself cancels at the caller's deadline; a timer of our own costs 3 us.
            in_time = remaining is not None and remaining <= bound
            return call.answer(await (answer if in_time else _bounded(answer, bound)))

        return self._unary(name, kind, serve)

    def page(
        self, name: str, kind: type[Q], method: Callable[[Caller, Q], Awaitable[Message]]
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        """As ``unary``, for an answer that may be large: a principal's are made one after the other."""
        bound, paging = self._limits.unary_seconds, self._calls.paging

        async def serve(caller: Caller, call: Call, context: Context) -> bytes:
            request = _checked(name, caller, await call.read(name, context))

            async def answer() -> Message:
                async with paging.place(caller.principal):
                    call.check_room()
                    return await method(caller, request)

            return call.answer(await _bounded(answer(), bound))

        return self._unary(name, kind, serve)

    def _unary(
        self, name: str, kind: type[Q], serve: Callable[[Caller, Call, Context], Awaitable[bytes]]
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        return grpc.stream_unary_rpc_method_handler(self._wrapped(name, serve), reader(kind))

    def watch(
        self,
        name: str,
        kind: type[Q],
        method: Callable[[Caller, Q], AsyncIterator[U]],
        convert: Callable[[U], Message],
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        """One request, a stream of what ``method``'s generator yields, converted. Ends with OK at the maximum age.

        Who calls is decided anew for each update, and when the tokens have changed: a token that was taken away ends the
        stream with an error; a caller with other roles than before ends it with OK, and may begin another.
        """
        streams = self._calls.streams

        async def serve(caller: Caller, call: Call, context: Context) -> None:
            streams.check_room(caller.principal)  # before anything is read: refused ones come by the thousand
            request = _checked(name, caller, await call.read(name, context))
            admit = partial(self._authenticate, context)
            async with self._open(name, caller, call, admit), _closing(method(caller, request)) as updates:
                # At once, so that a client that resumes learns that it is heard before something happens.
                await context.send_initial_metadata(())
                async for update in updates:
                    if admit() != caller:
                        break
                    await streams.write((call.line, "watch"), context, partial(_encode, convert, update))

        return grpc.stream_stream_rpc_method_handler(self._wrapped(name, serve), reader(kind))

    def dialogue(
        self, name: str, kind: type[Q], method: Callable[[Caller, Q], Awaitable[Message]]
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        """A stream of requests, each answered by one message, in order. Ends with OK at the maximum age.

        Who calls is decided anew for each request, and when the tokens have changed: a token that was taken away ends
        the stream.
        """
        bound, streams = self._limits.unary_seconds, self._calls.streams

        async def serve(caller: Caller, call: Call, context: Context) -> None:
            admit = partial(self._authenticate, context)
            async with self._open(name, caller, call, admit):
                while (request := await context.read()) is not END:
                    now = admit()
                    answer = await _bounded(method(now, _checked(name, now, request)), bound)
                    await streams.write((call.line, "dialogue"), context, answer.SerializeToString)

        return grpc.stream_stream_rpc_method_handler(self._wrapped(name, serve), reader(kind))

    def _wrapped(
        self, name: str, serve: Callable[[Caller, Call, Context], Awaitable[U]]
    ) -> Callable[..., Awaitable[U]]:
        """``serve`` for who is known; its errors as the call's status; counted."""
        report, turn = self._metrics.rpc, self._calls.beginning.turn

        async def call(_requests: object, context: Context) -> U:
            started = perf_counter()
            code = _CANCELLED
            entered: Call | None = None
            try:
                caller, entered = self._enter(context)
                await turn(entered.line)
                result = await serve(caller, entered, context)
                code = "OK"
            except Exception as error:  # noqa: BLE001 - every failure becomes the call's status
                code, end = self._described(name, error, context)
                await end
            except asyncio.CancelledError:
                if entered is not None and entered.refusal is None:
                    self._calls.connections.cancelled(entered.connection)
                if entered is None or entered.refusal is None or not entered.interrupted():
                    raise
                code, end = self._described(name, entered.refusal, context)
                await end
            finally:
                report(name, code, perf_counter() - started)
            return result

        return call

    def _enter(self, context: Context) -> tuple[Caller, Call]:
        """Who calls, and the call's place among those under way. Raise Unavailable, Unauthenticated, TooMany."""
        connection = self._calls.connections.of(context.peer())
        if connection.closing:
            # There may be thousands of them, and an answer costs more than all the rest. The connection's end ends them.
            raise asyncio.CancelledError
        try:
            caller = self._authenticate(context)
        except Unauthenticated:
            self._calls.connections.refused(connection)
            raise
        call = self._calls.inflight.enter(caller, connection, self._place)
        context.add_done_callback(call.end)
        connection.used = perf_counter()
        if caller.principal:
            connection.authenticate(caller.principal)
        return caller, call

    def _authenticate(self, context: Context) -> Caller:
        """Raise Unavailable, Unauthenticated."""
        self._calls.streams.refuse_if_closing()
        return self._authenticator.authenticate(dict(context.invocation_metadata()))

    def _open(self, name: str, caller: Caller, call: Call, admit: Callable[[], Caller]) -> Stream:
        """From now on it is a stream and no unary call; without a token it remains both."""
        if caller.principal:
            call.leave()
        return self._calls.streams.open(name, caller, admit)

    def _described(self, name: str, error: Exception, context: Context) -> tuple[str, Awaitable[NoReturn]]:
        """The code's name, and what ends the call with it."""
        code, message, trailing = failure(error)
        if code is grpc.StatusCode.INTERNAL:
            log.error("rpc.failed", rpc=name, exc_info=error)
        elif code in _LOUD:
            self._calls.refusals.note(perf_counter(), str(code.name), context.peer(), rpc=name, message=message)
        else:
            log.debug("rpc.refused", rpc=name, code=code.name, message=message)
        return str(code.name), context.abort(code, message, trailing)


def _checked(name: str, caller: Caller, request: Q | BrokerError) -> Q:
    """The request, bound to the log; raise what its bytes were refused with."""
    if isinstance(request, BrokerError):
        raise request
    bind_lazily(partial(_log_fields, name, caller, request))
    return request


def _closing(updates: AsyncIterator[U]) -> aclosing[AsyncGenerator[U, None]]:
    """A generator that is closed when its stream ends, and not when somebody collects it."""
    return aclosing(cast("AsyncGenerator[U, None]", updates))


def _log_fields(name: str, caller: Caller, request: Message) -> Mapping[str, str]:
    fields = {"rpc": name, "principal": str(caller.principal)}
    for log_name, attribute in (("lease", "name"), ("request_id", "request_id")):
        value = getattr(request, attribute, "")
        if value:
            fields[log_name] = str(value)[:128]
    return fields


async def _bounded(answer: Awaitable[A], seconds: float) -> A:
    """Raise DeadlineExceeded if it takes longer."""
    timeout = asyncio.timeout(seconds)
    try:
        async with timeout:
            return await answer
    except TimeoutError as error:
        if not timeout.expired():
            raise
        raise DeadlineExceeded(
            f"the broker could not answer within {seconds:g} s; whether it was done is unknown: repeat it with the same "
            "request_id, or read the lease"
        ) from error


def _encode(convert: Callable[[U], Message], update: U) -> bytes:
    return convert(update).SerializeToString()
