"""gRPC's errors, translated once.

The details (``google.rpc.Status`` with ErrorInfo, RetryInfo and BadRequest) are read with messages that are declared
here, in a descriptor pool of their own: the client needs neither grpcio-status nor googleapis-common-protos, and
doesn't collide with them where they are installed. Field numbers are those of google/rpc/{status,error_details}.proto.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from sparkbroker.client._errors import (
    BrokerFault,
    BrokerUnreachable,
    EventsCompacted,
    InvalidRequest,
    LeaseEnded,
    LeaseKeyInUse,
    LeaseLost,
    LeaseNotFound,
    LeaseNotReady,
    NeverFits,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    ProfileNotFound,
    QueueNotFound,
    RequestIdReused,
    SparkbrokerError,
    TooManyRequests,
)
from sparkbroker.client.visible import visible

_Field = descriptor_pb2.FieldDescriptorProto
_MESSAGES: Final[dict[str, list[tuple[str, int, int, str]]]] = {
    "Any": [("type_url", 1, _Field.TYPE_STRING, ""), ("value", 2, _Field.TYPE_BYTES, "")],
    "Status": [("message", 2, _Field.TYPE_STRING, ""), ("details", 3, _Field.TYPE_MESSAGE, "Any")],
    "Pair": [("key", 1, _Field.TYPE_STRING, ""), ("value", 2, _Field.TYPE_STRING, "")],
    "ErrorInfo": [("reason", 1, _Field.TYPE_STRING, ""), ("metadata", 3, _Field.TYPE_MESSAGE, "Pair")],
    "Duration": [("seconds", 1, _Field.TYPE_INT64, ""), ("nanos", 2, _Field.TYPE_INT32, "")],
    "RetryInfo": [("retry_delay", 1, _Field.TYPE_MESSAGE, "Duration")],
    "FieldViolation": [("field", 1, _Field.TYPE_STRING, ""), ("description", 2, _Field.TYPE_STRING, "")],
    "BadRequest": [("field_violations", 1, _Field.TYPE_MESSAGE, "FieldViolation")],
}
_REPEATED: Final = {"details", "metadata", "field_violations"}
_PACKAGE: Final = "sparkbroker.client.rpc"


def _declare() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="status.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind, type_name in fields:
            label = _Field.LABEL_REPEATED if field_name in _REPEATED else _Field.LABEL_OPTIONAL
            declared = message.field.add(name=field_name, number=number, type=kind, label=label)
            if type_name:
                declared.type_name = f".{_PACKAGE}.{type_name}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES
    }


_CLASSES: Final = _declare()


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What a failed call told beside its code. ``retry_after`` is in seconds."""

    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    retry_after: float | None = None
    bad_field: str = ""


def read_details(trailers: Iterable[Any]) -> Details:
    """Read ``grpc-status-details-bin`` among (key, value) pairs. What is absent, unknown or malformed is left out: the code stands alone."""
    reason, metadata, retry_after, bad_field = "", {}, None, ""
    raw = next((value for key, value in trailers if key == "grpc-status-details-bin"), b"")
    try:
        status = _CLASSES["Status"].FromString(raw if isinstance(raw, bytes) else b"")
        for detail in status.details:
            kind = detail.type_url.rpartition("/")[2]
            if kind == "google.rpc.ErrorInfo":
                info = _CLASSES["ErrorInfo"].FromString(detail.value)
                reason, metadata = info.reason, {pair.key: pair.value for pair in info.metadata}
            elif kind == "google.rpc.RetryInfo":
                delay = _CLASSES["RetryInfo"].FromString(detail.value).retry_delay
                retry_after = max(0.0, delay.seconds + delay.nanos / 1e9)
            elif kind == "google.rpc.BadRequest":
                violations = _CLASSES["BadRequest"].FromString(detail.value).field_violations
                bad_field = violations[0].field if violations else ""
    except DecodeError:
        return Details()
    return Details(reason=reason, metadata=metadata, retry_after=retry_after, bad_field=bad_field)


_BY_REASON: Final[dict[str, type[SparkbrokerError]]] = {
    "INVALID_FIELD": InvalidRequest,
    "REQUEST_ID_REUSED": RequestIdReused,
    "NEVER_FITS": NeverFits,
    "NOT_FOUND": LeaseNotFound,
    "LEASE_KEY_IN_USE": LeaseKeyInUse,
    "STALE_GENERATION": LeaseLost,
    "LEASE_ENDED": LeaseEnded,
    "LEASE_NOT_READY": LeaseNotReady,
    "UNAUTHENTICATED": NotAuthenticated,
    "FORBIDDEN": NotAllowed,
    "TOO_MANY": TooManyRequests,
    "COMPACTED": EventsCompacted,
    "UNAVAILABLE": BrokerUnreachable,
}
_NOT_FOUND_BY_FIELD: Final[dict[str, type[SparkbrokerError]]] = {
    "spec.profile": ProfileNotFound,
    "spec.queue": QueueNotFound,
}
_BY_CODE: Final[dict[grpc.StatusCode, type[SparkbrokerError]]] = {
    grpc.StatusCode.UNAVAILABLE: BrokerUnreachable,
    grpc.StatusCode.DEADLINE_EXCEEDED: BrokerUnreachable,
    grpc.StatusCode.CANCELLED: BrokerUnreachable,
    grpc.StatusCode.UNAUTHENTICATED: NotAuthenticated,
    grpc.StatusCode.PERMISSION_DENIED: NotAllowed,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: LeaseKeyInUse,
    grpc.StatusCode.RESOURCE_EXHAUSTED: TooManyRequests,
    grpc.StatusCode.OUT_OF_RANGE: EventsCompacted,
}


def translate(error: grpc.RpcError, *, where: str, method: str) -> SparkbrokerError:
    """The client's error for a failed call of ``method`` to the broker at ``where`` (without secrets)."""
    return translate_status(error.code(), error.details(), error.trailing_metadata(), where=where, method=method)


def translate_status(
    code: grpc.StatusCode, text: str | None, trailers: Iterable[Any] | None, *, where: str, method: str
) -> SparkbrokerError:
    """Likewise, from what the call ended with."""
    details = read_details(trailers or ())
    kind = _BY_REASON.get(details.reason) or _BY_CODE.get(code, BrokerFault)
    if kind is LeaseNotFound:
        kind = _NOT_FOUND_BY_FIELD.get(details.metadata.get("field", ""), kind)
    if kind is BrokerUnreachable:
        text = f"the broker at {where} doesn't answer {method} ({code.name}: {text or 'no details'})"
    elif kind is TooManyRequests and not details.reason and "larger than max" in (text or ""):
        # gRPC's own refusal, before the broker has seen the request: no waiting makes it smaller.
        kind, text = InvalidRequest, f"{method} doesn't fit into a message: {text}"
    elif kind is BrokerFault:
        text = f"the broker at {where} failed in {method} ({code.name}: {text or 'no details'})"
    data: dict[str, Any] = {
        "reason": details.reason,
        "metadata": details.metadata,
        "retry_after": details.retry_after,
    }
    if issubclass(kind, InvalidRequest):
        data["field"] = details.bad_field
    if issubclass(kind, LeaseEnded):
        data["lease"] = details.metadata.get("lease", "")
        data["state"] = details.metadata.get("state", "")
    return kind(visible(text or code.name), **data)
