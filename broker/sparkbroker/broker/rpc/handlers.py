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

from sparkbroker.broker.domain.errors import BrokerError
from sparkbroker.broker.log_setup import bind_lazily
from sparkbroker.broker.ports.authenticator import Authenticator, Caller
from sparkbroker.broker.ports.metrics import Metrics
from sparkbroker.broker.rpc.decode import reader
from sparkbroker.broker.rpc.errors import DeadlineExceeded, failure
from sparkbroker.broker.rpc.limits import Limits
from sparkbroker.broker.rpc.streams import Streams

Context = Any
"""grpc.aio's servicer context, generic and untyped where it matters."""
Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)
U = TypeVar("U")

_END: Final[Any] = grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs lack it
_CANCELLED: Final = "CANCELLED"
_LOUD: Final = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})

log = structlog.get_logger()


class Handlers:
    """Makes gRPC's handlers from methods that take and give messages and raise BrokerError.

    One for each way to authenticate; ``streams`` is shared by all of a server's.
    """

    def __init__(self, authenticator: Authenticator, streams: Streams, metrics: Metrics, limits: Limits) -> None:
        self._authenticator = authenticator
        self._streams = streams
        self._metrics = metrics
        self._limits = limits

    def unary(
        self, name: str, kind: type[Q], method: Callable[[Caller, Q], Awaitable[Message]]
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        """One request, one answer, within the caller's deadline or the server's bound, whichever is less."""
        report, bound = self._metrics.rpc, self._limits.unary_seconds

        async def call(request: Q | BrokerError, context: Context) -> Message:
            started = perf_counter()
            code = _CANCELLED
            try:
                caller = self._admit(context)
                answer = method(caller, _checked(name, caller, request))
                remaining = context.time_remaining()
                # gRPC itself cancels at the caller's deadline; a timer of our own costs 3 us.
                result = await (answer if remaining is not None and remaining <= bound else _bounded(answer, bound))
            except Exception as error:  # noqa: BLE001 - every failure becomes the call's status
                code, end = _described(name, error, context)
                await end
            else:
                code = "OK"
                return result
            finally:
                report(name, code, perf_counter() - started)

        return grpc.unary_unary_rpc_method_handler(call, reader(kind), _serialize)

    def watch(
        self,
        name: str,
        kind: type[Q],
        method: Callable[[Caller, Q], AsyncIterator[U]],
        convert: Callable[[U], Message],
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        """One request, a stream of what ``method``'s generator yields, converted. Ends with OK at the maximum age.

        Who calls is decided anew for each update: a token that was taken away ends the stream with an error; a caller
        with other roles than before ends it with OK, and may begin another.
        """
        report = self._metrics.rpc

        async def call(request: Q | BrokerError, context: Context) -> None:
            started = perf_counter()
            code = _CANCELLED
            try:
                caller = self._admit(context)
                checked = _checked(name, caller, request)
                async with self._streams.open(name, caller.principal), _closing(method(caller, checked)) as updates:
                    # At once, so that a client that resumes learns that it is heard before something happens.
                    await context.send_initial_metadata(())
                    async for update in updates:
                        if self._admit(context) != caller:
                            break
                        await context.write(convert(update))
                code = "OK"
            except Exception as error:  # noqa: BLE001 - every failure becomes the call's status
                code, end = _described(name, error, context)
                await end
            finally:
                report(name, code, perf_counter() - started)

        return grpc.unary_stream_rpc_method_handler(call, reader(kind), _serialize)

    def dialogue(
        self, name: str, kind: type[Q], method: Callable[[Caller, Q], Awaitable[Message]]
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        """A stream of requests, each answered by one message, in order. Ends with OK at the maximum age.

        Who calls is decided anew for each request: a token that was taken away ends the stream.
        """
        report, bound = self._metrics.rpc, self._limits.unary_seconds

        async def call(_requests: object, context: Context) -> None:
            started = perf_counter()
            code = _CANCELLED
            try:
                caller = self._admit(context)
                async with self._streams.open(name, caller.principal):
                    while (request := await context.read()) is not _END:
                        caller = self._admit(context)
                        answer = await _bounded(method(caller, _checked(name, caller, request)), bound)
                        await context.write(answer)
                code = "OK"
            except Exception as error:  # noqa: BLE001 - every failure becomes the call's status
                code, end = _described(name, error, context)
                await end
            finally:
                report(name, code, perf_counter() - started)

        return grpc.stream_stream_rpc_method_handler(call, reader(kind), _serialize)

    def _admit(self, context: Context) -> Caller:
        """Who calls. Raise Unavailable, Unauthenticated."""
        self._streams.refuse_if_closing()
        return self._authenticator.authenticate(dict(context.invocation_metadata()))


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


def _described(name: str, error: Exception, context: Context) -> tuple[str, Awaitable[NoReturn]]:
    """The code's name, and what ends the call with it."""
    code, message, trailing = failure(error)
    if code is grpc.StatusCode.INTERNAL:
        log.error("rpc.failed", rpc=name, exc_info=error)
    elif code in _LOUD:
        log.info("rpc.refused", rpc=name, code=code.name, message=message, peer=context.peer())
    else:
        log.debug("rpc.refused", rpc=name, code=code.name, message=message)
    return str(code.name), context.abort(code, message, trailing)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
