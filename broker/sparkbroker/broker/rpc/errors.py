"""Errors on the wire: one table from ``domain.errors`` to gRPC codes, and google.rpc.Status with its details (AIP-193)."""

from math import ceil
from typing import Final, NamedTuple

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from sparkbroker.broker.domain import errors
from sparkbroker.broker.ports.store import StoreUnusable

DOMAIN: Final = "sparkbroker"
DETAILS_KEY: Final = "grpc-status-details-bin"
MAX_MESSAGE: Final = 1024
"""Characters. A client refuses trailers of more than 8 KiB, and this is sent twice, once percent-encoded."""
MAX_METADATA: Final = 256
"""Characters of one value of ErrorInfo.metadata."""


class MalformedRequest(errors.BrokerError):
    """The bytes of the request are not the message that the method takes."""

    reason = "MALFORMED_REQUEST"


class DeadlineExceeded(errors.BrokerError):
    """The broker's own bound on a unary call has passed. What was asked may have been done."""

    reason = "DEADLINE_EXCEEDED"


class _Row(NamedTuple):
    code: grpc.StatusCode
    retry_after: float | None = None
    """Seconds, where waiting helps and the error itself doesn't say how long."""


TABLE: Final[dict[type[errors.BrokerError], _Row]] = {
    errors.BrokerError: _Row(grpc.StatusCode.INTERNAL),
    errors.InvalidField: _Row(grpc.StatusCode.INVALID_ARGUMENT),
    MalformedRequest: _Row(grpc.StatusCode.INVALID_ARGUMENT),
    errors.RequestIdReused: _Row(grpc.StatusCode.INVALID_ARGUMENT),
    errors.NeverFits: _Row(grpc.StatusCode.FAILED_PRECONDITION),
    errors.NotFound: _Row(grpc.StatusCode.NOT_FOUND),
    errors.KeyInUse: _Row(grpc.StatusCode.ALREADY_EXISTS),
    errors.StaleGeneration: _Row(grpc.StatusCode.FAILED_PRECONDITION),
    errors.LeaseEnded: _Row(grpc.StatusCode.FAILED_PRECONDITION),
    errors.LeaseNotReady: _Row(grpc.StatusCode.FAILED_PRECONDITION, 1.0),
    errors.IllegalTransition: _Row(grpc.StatusCode.INTERNAL),
    errors.Unauthenticated: _Row(grpc.StatusCode.UNAUTHENTICATED),
    errors.Forbidden: _Row(grpc.StatusCode.PERMISSION_DENIED),
    errors.TooMany: _Row(grpc.StatusCode.RESOURCE_EXHAUSTED, 1.0),
    errors.Compacted: _Row(grpc.StatusCode.OUT_OF_RANGE),
    errors.Unavailable: _Row(grpc.StatusCode.UNAVAILABLE, 1.0),
    # A retryable one is UNAVAILABLE: see _row.
    errors.ProvisionerFailed: _Row(grpc.StatusCode.FAILED_PRECONDITION),
    StoreUnusable: _Row(grpc.StatusCode.UNAVAILABLE, 1.0),
    DeadlineExceeded: _Row(grpc.StatusCode.DEADLINE_EXCEEDED),
}

INTERNAL_MESSAGE: Final = "the broker has failed to handle this call; its log says why"


class Failure(NamedTuple):
    """What a call is aborted with: ``context.abort(code, message, trailing)``."""

    code: grpc.StatusCode
    message: str
    trailing: tuple[tuple[str, bytes], ...]


def failure(error: Exception) -> Failure:
    """Any exception on the wire. What isn't a BrokerError, or is a bug, tells nothing of itself: it may hold secrets."""
    if not isinstance(error, errors.BrokerError):
        error = errors.BrokerError(INTERNAL_MESSAGE)
    code, retry_after = _row(error)
    message = wire_message(error)
    status = Status(code=code.value[0], message=message)
    for detail in _details(error, retry_after):
        status.details.add().Pack(detail)
    return Failure(code, message, ((DETAILS_KEY, status.SerializeToString()),))


def wire_code(error: errors.BrokerError) -> int:
    """The google.rpc.Code of an error that is part of an answer."""
    number: int = _row(error).code.value[0]
    return number


def wire_message(error: errors.BrokerError) -> str:
    """The sentence of an error, as it may be told."""
    if _row(error).code is grpc.StatusCode.INTERNAL:
        return INTERNAL_MESSAGE
    return _shortened(error.message, MAX_MESSAGE)


def _row(error: errors.BrokerError) -> _Row:
    row = next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)
    if isinstance(error, errors.ProvisionerFailed) and error.retryable:
        row = _Row(grpc.StatusCode.UNAVAILABLE, 1.0)
    return row if error.retry_after is None else row._replace(retry_after=error.retry_after)


def _details(error: errors.BrokerError, retry_after: float | None) -> list[Message]:
    told = {} if _row(error).code is grpc.StatusCode.INTERNAL else error.metadata
    metadata = {name: _shortened(value, MAX_METADATA) for name, value in told.items()}
    details: list[Message] = [ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)]
    if isinstance(error, errors.InvalidField):
        violation = BadRequest.FieldViolation(
            field=_shortened(error.field, MAX_METADATA),
            description=_shortened(f"{error.problem}; {error.expected}", MAX_MESSAGE),
        )
        details.append(BadRequest(field_violations=[violation]))
    if retry_after is not None:
        milliseconds = ceil(retry_after * 1000)
        delay = Duration(seconds=milliseconds // 1000, nanos=milliseconds % 1000 * 1_000_000)
        details.append(RetryInfo(retry_delay=delay))
    return details


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
