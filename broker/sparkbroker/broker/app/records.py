"""How values are written into the store: JSON, so that an operator can read a row with ``sqlite3``.

What a caller wrote is proved before anything is done (``prove_spec``, ``measured``), so that bad data fails its own request
and never a group. Decoding trusts nothing: a row that doesn't fit its type, or lies under another's id, is StoreUnusable and says which row it is.
"""

from collections.abc import Callable
from hashlib import blake2b
from math import isfinite
from typing import Any, Final, Literal, TypeVar

import msgspec

from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.json_values import count_values
from sparkbroker.broker.domain.lease.driver import Driver
from sparkbroker.broker.domain.lease.event import LeaseEvent
from sparkbroker.broker.domain.lease.lease import Lease, LeaseSpec
from sparkbroker.broker.domain.text import escaped
from sparkbroker.broker.domain.units import Generation, LeaseId, ServingTime, SpecId, WallTime
from sparkbroker.broker.ports.store import EventRecord, RequestRecord, StoredRow, StoreUnusable


class RequestResult(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The answer that a request id had. ``fingerprint`` is the request's: the same id with another one is refused.

    ``generation`` is the attachment's that an attach made, and the lease's at the time of an acquire.
    """

    kind: Literal["acquire", "attach"]
    fingerprint: str
    lease_id: LeaseId
    generation: Generation
    created: WallTime
    existing: bool = False
    served: ServingTime | None = None
    """When, by the clock that nobody can set. None: an earlier version didn't store it."""


class _StoredLease(Lease, frozen=True, kw_only=True, gc=False):
    spec: LeaseSpec | None = None  # type: ignore[assignment]  # as it is stored; nobody else sees it


Record = Lease | LeaseSpec | Driver | Profile | LeaseEvent | RequestResult
_Value = TypeVar("_Value")
_Source = TypeVar("_Source")

VALUE_BYTES: Final = 100

_ENCODER: Final = msgspec.json.Encoder()
_CANONICAL: Final = msgspec.json.Encoder(order="deterministic")
_LEASE: Final = msgspec.json.Decoder(_StoredLease)
_SPEC: Final = msgspec.json.Decoder(LeaseSpec)
_DRIVER: Final = msgspec.json.Decoder(Driver)
_PROFILE: Final = msgspec.json.Decoder(Profile)
_EVENT: Final = msgspec.json.Decoder(LeaseEvent)
_REQUEST: Final = msgspec.json.Decoder(RequestResult)


def encode(record: Record) -> bytes:
    """JSON of a value. Raise ValueError for a lease's time that isn't finite.

    A lone surrogate is escaped: requests are checked before, and what a provisioner said must not fail a whole group. A time that isn't finite would be written as null, which no broker could read back. A lease is written without its
    spec, but with that one's name.
    """
    if isinstance(record, Lease):
        if not isfinite(_sum_of_times(record)):
            raise ValueError(f"lease {record.id} has a time that is not finite: {record}")
        if record.spec_id:
            record = msgspec.structs.replace(record, spec=None)
    try:
        return _ENCODER.encode(record)
    except UnicodeEncodeError:
        return _ENCODER.encode(_escaped(msgspec.to_builtins(record)))


def _escaped(value: Any) -> Any:
    match value:
        case str():
            return escaped(value)
        case dict():
            return {escaped(name): _escaped(item) for name, item in value.items()}
        case list() | tuple():
            return list(map(_escaped, value))
        case _:
            return value


def prove_spec(spec: LeaseSpec) -> tuple[SpecId, int]:
    """Its name and its size. Raise ValueError unless it can be stored, and loaded as what it is."""
    body = _CANONICAL.encode(spec)
    if _SPEC.decode(body) != spec:
        raise ValueError("it is another one once it is stored and loaded")
    return SpecId(blake2b(body, digest_size=16).hexdigest()), spec_size(spec, len(body))


def spec_size(spec: LeaseSpec, encoded: int) -> int:
    """Bytes, as they are bounded: of JSON, and some more for each value in ``pod``, which takes that much in memory."""
    return encoded + VALUE_BYTES * (count_values(spec.pod) if spec.pod else 0)


def _sum_of_times(lease: Lease) -> float:
    """Not finite if one of those is not that follow from what a caller asked for."""
    spec = lease.spec
    asked = spec.wait_ttl + spec.unattended_ttl + spec.ttl + (spec.acquire_timeout or 0.0) + (spec.max_duration or 0.0)
    due = lease.wait_deadline + (lease.unattended_deadline or 0.0) + (lease.acquire_deadline or 0.0)
    return asked + due + (lease.max_deadline or 0.0) + lease.enqueued


def digest(*parts: object) -> str:
    """Equal for equal requests: how a repetition is told from another request with the same id."""
    return measured(*parts)[0]


def measured(*parts: object) -> tuple[str, int]:
    """``digest``, and the bytes that it is of."""
    body = _CANONICAL.encode(parts)
    return blake2b(body, digest_size=12).hexdigest(), len(body)


def decode_lease(row: StoredRow, spec_of: Callable[[SpecId], LeaseSpec | None] = lambda _: None) -> Lease:
    """The lease of a row, with its spec. Raise StoreUnusable."""
    stored = _decode(_LEASE, row.body, _row, row)
    if stored.id != row.id:
        raise _unusable(_row(row), f"it holds lease {stored.id}")
    spec = stored.spec or spec_of(stored.spec_id)
    if spec is None:
        raise _unusable(_row(row), f"its spec ({stored.spec_id}) is not there")
    fields = msgspec.structs.asdict(stored)
    fields["spec"] = spec
    if stored.hindrance.startswith("; "):  # an earlier version stored it as the end of the message, too
        fields["message"] = stored.message.removesuffix(stored.hindrance)
        fields["hindrance"] = stored.hindrance.removeprefix("; ")
    return Lease(**fields)


def decode_spec(row: StoredRow) -> LeaseSpec:
    """The spec of a row, whose id is its digest at the time. Raise StoreUnusable.

    The digest isn't compared: a later version may add a field with a default.
    """
    return _decode(_SPEC, row.body, _row, row)


def decode_driver(row: StoredRow) -> Driver:
    """The driver of a row. Raise StoreUnusable."""
    driver = _decode(_DRIVER, row.body, _row, row)
    if driver.id != row.id:
        raise _unusable(_row(row), f"it holds driver {driver.id}")
    return driver


def decode_profile(row: StoredRow) -> Profile:
    """The resolved profile of a row, whose id is its fingerprint at the time. Raise StoreUnusable.

    The fingerprint isn't compared: a later version may add a field with a default.
    """
    return _decode(_PROFILE, row.body, _row, row)


def decode_event(record: EventRecord) -> LeaseEvent:
    """The event of a record. Raise StoreUnusable."""
    event = _decode(_EVENT, record.body, _event, record)
    if event.revision != record.revision:
        raise _unusable(_event(record), f"it holds revision {event.revision}")
    return event


def decode_request(record: RequestRecord) -> RequestResult:
    """The stored answer of a request id. Raise StoreUnusable; ValueError for a record that deletes."""
    if record.body is None:
        raise ValueError(f"{_request(record)} has no body: it deletes")
    return _decode(_REQUEST, record.body, _request, record)


def _decode(
    decoder: msgspec.json.Decoder[_Value], body: bytes, name: Callable[[_Source], str], source: _Source
) -> _Value:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _unusable(name(source), str(error)) from error


def _row(row: StoredRow) -> str:
    return f"the row of {row.kind} {row.id} (revision {row.revision})"


def _event(record: EventRecord) -> str:
    return f"the event of revision {record.revision} (lease {record.subject})"


def _request(record: RequestRecord) -> str:
    return f"the stored answer of request {record.request_id} (principal {record.principal})"


def _unusable(what: str, problem: str) -> StoreUnusable:
    return StoreUnusable(
        f"{what} can't be read: {problem}; restore the state folder from a backup, or start with an empty one"
    )
