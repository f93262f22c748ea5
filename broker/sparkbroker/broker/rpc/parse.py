"""Protocol messages to domain values. Pure.

What only the wire can get wrong is checked here: names, enum numbers, durations, signs. Raise InvalidField, naming the
field by its path in the message. What the domain knows better (sizes, bounds, allow-lists) is left to it.
"""

import math
import re
from collections.abc import Collection
from typing import Any, Final, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct, Value

from sparkbroker.broker.app.views import OnExisting
from sparkbroker.broker.domain.asking.request import ExecutorRequest, SizeRequest, SpecRequest
from sparkbroker.broker.domain.errors import InvalidField
from sparkbroker.broker.domain.json_values import MAX_WHOLE
from sparkbroker.broker.domain.lease.filter import LeaseFilter, parse_filter
from sparkbroker.broker.domain.lease.lease import HolderPod
from sparkbroker.broker.domain.text import shown
from sparkbroker.broker.domain.units import Generation, LeaseId, Revision
from sparkbroker.broker.rpc.convert import LEASE_PREFIX, MODES, SHARINGS
from sparkbroker.v1 import broker_pb2 as pb

MAX_DURATION_SECONDS: Final = 315_576_000_000
"""Of google.protobuf.Duration: 10,000 years."""
MAX_TAIL_LINES: Final = 10_000
MAX_OFFSETS: Final = 1000
MAX_PARSED: Final = 256
MAX_PARSED_BYTES: Final = 16 << 10
"""Specs that are remembered, and the largest of them."""

_NAME: Final = re.compile(r"leases/([0-9A-Za-z](?:[0-9A-Za-z_-]{0,62}[0-9A-Za-z])?)")
_EVENTLESS: Final = frozenset({"state", "live", "mode"})

T = TypeVar("T")

_ON_EXISTING: Final = {
    pb.ON_EXISTING_UNSPECIFIED: OnExisting.FAIL,
    **{pb.OnExisting.Value(f"ON_EXISTING_{choice.name}"): choice for choice in OnExisting},
}
_MODES: Final = {pb.LEASE_MODE_UNSPECIFIED: None, **{number: mode for mode, number in MODES.items()}}
_SHARINGS: Final = {pb.LEASE_SHARING_UNSPECIFIED: None, **{number: how for how, number in SHARINGS.items()}}
_ON_EXISTING_NAMES: Final = pb.OnExisting.keys()
_MODE_NAMES: Final = pb.LeaseMode.keys()
_SHARING_NAMES: Final = pb.LeaseSharing.keys()


def lease_id(name: str) -> LeaseId:
    """The id in ``leases/{id}``."""
    match = _NAME.fullmatch(name)
    if match is None:
        problem = f"{shown(name)} is not a lease's name" if name else "is empty"
        raise InvalidField("name", problem, f'write it as "{LEASE_PREFIX}" and the id, as AcquireLease returned it')
    return LeaseId(match[1])


def generation(number: int) -> Generation:
    """0 stands for no attachment."""
    return Generation(_not_negative("generation", number))


def after_revision(number: int) -> Revision:
    """0 stands for the beginning: see the request's own comment."""
    return Revision(_not_negative("after_revision", number))


def on_existing(number: int) -> OnExisting:
    """Unset is FAIL."""
    return _known("on_existing", number, _ON_EXISTING, _ON_EXISTING_NAMES)


def log_range(request: pb.StreamLogsRequest) -> tuple[int, int, int]:
    """(offset, tail_lines, attempt)."""
    offset = _not_negative("offset", request.offset)
    tail_lines = _not_negative("tail_lines", request.tail_lines)
    if tail_lines > MAX_TAIL_LINES:
        raise InvalidField("tail_lines", f"{tail_lines} is out of range", f"it may be at most {MAX_TAIL_LINES}")
    if offset and tail_lines and not request.executors:
        raise InvalidField("tail_lines", "is set, and so is offset", "a log begins at one of them: leave the other 0")
    return offset, tail_lines, _not_negative("attempt", request.attempt)


def executor_offsets(request: pb.StreamLogsRequest) -> dict[str, int] | None:
    """Where executors' logs begin, by source; None: they aren't asked for."""
    offsets = dict(request.executor_offsets)
    if offsets and not request.executors:
        raise InvalidField("executor_offsets", "is set, and executors is not", "set executors, or leave it empty")
    if len(offsets) > MAX_OFFSETS:
        raise InvalidField("executor_offsets", f"has {len(offsets)} entries", f"it may have at most {MAX_OFFSETS}")
    for source, offset in offsets.items():
        _not_negative(f"executor_offsets[{source!r}]", offset)
    return offsets if request.executors else None


def watch_filter(text: str) -> LeaseFilter:
    """A filter of events; terms that select none are refused rather than passed over."""
    selection = parse_filter(text)
    for term in selection.terms:
        if term.field in _EVENTLESS:
            raise InvalidField(
                "filter", f"{term.field} does not select events", "watch without it, and look at the events"
            )
    return selection


class _Parsed:
    """The same few specs are asked for again and again: equal bytes give the very same value, parsed once.

    Bounded in number and in size. A map's order may differ between equal specs; that only costs a place.
    """

    def __init__(self) -> None:
        self._by_bytes: dict[bytes, SpecRequest] = {}

    def get(self, spec: pb.LeaseSpec) -> SpecRequest:
        content = spec.SerializeToString()
        request = self._by_bytes.get(content)
        if request is None:
            request = _spec_request(spec)
            if len(content) <= MAX_PARSED_BYTES:
                if len(self._by_bytes) >= MAX_PARSED:
                    self._by_bytes.clear()
                self._by_bytes[content] = request
        return request


_parsed: Final = _Parsed()


def spec_request(spec: pb.LeaseSpec) -> SpecRequest:
    """What was asked for; what was left unset stays unset."""
    return _parsed.get(spec)


def _spec_request(spec: pb.LeaseSpec) -> SpecRequest:
    return SpecRequest(
        profile=spec.profile,
        queue=spec.queue,
        mode=_known("spec.mode", spec.mode, _MODES, _MODE_NAMES),
        sharing=_known("spec.sharing", spec.sharing, _SHARINGS, _SHARING_NAMES),
        driver=_size(spec.driver, "spec.driver") if spec.HasField("driver") else None,
        executors=_executors(spec.executors) if spec.HasField("executors") else None,
        conf=dict(spec.conf),
        unset_conf=tuple(spec.unset_conf),
        pod=_plain_struct(spec.pod, "spec.pod") if spec.HasField("pod") else {},
        holder_pod=_holder_pod(spec.holder_pod) if spec.HasField("holder_pod") else None,
        packages=tuple(spec.packages),
        jars=tuple(spec.jars),
        priority=spec.priority if spec.HasField("priority") else None,
        labels=dict(spec.labels),
        wait_ttl=_seconds(spec.wait_ttl, "spec.wait_ttl") if spec.HasField("wait_ttl") else None,
        unattended_ttl=(
            _seconds(spec.unattended_ttl, "spec.unattended_ttl") if spec.HasField("unattended_ttl") else None
        ),
        ttl=_seconds(spec.ttl, "spec.ttl") if spec.HasField("ttl") else None,
        acquire_timeout=(
            _seconds(spec.acquire_timeout, "spec.acquire_timeout") if spec.HasField("acquire_timeout") else None
        ),
        max_duration=_seconds(spec.max_duration, "spec.max_duration") if spec.HasField("max_duration") else None,
        keep_when_holder_lost=spec.keep_when_holder_lost,
    )


def _holder_pod(pod: pb.HolderPod) -> HolderPod:
    return HolderPod(namespace=pod.namespace, name=pod.name, uid=pod.uid)


def _plain_struct(struct: Struct, field: str) -> dict[str, Any]:
    return {name: _plain(value, f"{field}[{shown(name)}]") for name, value in struct.fields.items()}


def _plain(value: Value, field: str) -> Any:
    """A JSON value as Python's. Its depth is bounded by protobuf's own limit on nested messages; the rest is for
    ``domain.json_values``."""
    match value.WhichOneof("kind"):
        case "struct_value":
            return _plain_struct(value.struct_value, field)
        case "list_value":
            return [_plain(item, f"{field}[{index}]") for index, item in enumerate(value.list_value.values)]
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "number_value":
            number = value.number_value
            if not math.isfinite(number):
                raise InvalidField(field, f"{number} is not a JSON number", "give a finite number")
            # A float beyond MAX_WHOLE is whole, and made an int it would be one that few can write.
            return int(number) if number.is_integer() and abs(number) <= MAX_WHOLE else number
        case _:
            return None


def _size(size: pb.ContainerSize, field: str) -> SizeRequest:
    cores = size.cores
    if cores < 0:
        raise InvalidField(f"{field}.cores", f"{cores} is negative", "it must be at least 1, or unset")
    return SizeRequest(cores=cores, memory=size.memory, memory_overhead=size.memory_overhead)


def _executors(executors: pb.ExecutorSpec) -> ExecutorRequest:
    return ExecutorRequest(
        size=_size(executors.size, "spec.executors.size"),
        min_count=executors.min_count,
        max_count=executors.max_count,
    )


def _seconds(value: Duration, field: str) -> float:
    """A well-formed Duration that isn't negative, in seconds."""
    seconds, nanos = value.seconds, value.nanos
    if seconds < 0 or nanos < 0:
        raise InvalidField(field, "is negative", 'it must be a duration such as "30s"')
    if seconds > MAX_DURATION_SECONDS or nanos > 999_999_999:
        raise InvalidField(
            field, "is not a valid Duration", "nanos must be below 10^9, and seconds at most 315576000000"
        )
    return seconds + nanos / 1e9


def _known(field: str, number: int, values: dict[int, T], names: Collection[str]) -> T:
    try:
        return values[number]
    except KeyError:
        raise InvalidField(field, f"{number} is unknown to this broker", f"it knows {', '.join(names)}") from None


def _not_negative(field: str, number: int) -> int:
    if number < 0:
        raise InvalidField(field, f"{number} is negative", "it must be 0 or more")
    return number
