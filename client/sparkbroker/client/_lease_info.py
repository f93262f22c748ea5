"""What the broker tells of a lease, as values: enums are words without their prefix, moments are datetimes, durations timedeltas.

A class here has the fields of the protocol's message of the same meaning, by the same names, and ``_read`` fills in what both
have; so a field that a newer broker sends is left out. ``tests/client/test_client_lease_info.py`` ties the two lists.
"""

import functools
from collections.abc import Mapping, MutableMapping, MutableSequence
from dataclasses import dataclass, field, is_dataclass
from datetime import UTC, datetime, timedelta
from types import NoneType
from typing import Any, Self, get_args, get_type_hints

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from sparkbroker.client._words import word
from sparkbroker.v1 import broker_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSize:
    """The size of a driver or of one executor, in Spark's notation. ``memory_overhead`` empty: by Spark's formula."""

    cores: int = 0
    memory: str = ""
    memory_overhead: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorSpec:
    """The executors that are asked for; no more than ``max_count`` are charged, and 0 are none."""

    size: ContainerSize = field(default_factory=ContainerSize)
    min_count: int = 0
    max_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderPod:
    """The holder's own pod, the driver of a lease of mode CLIENT."""

    namespace: str = ""
    name: str = ""
    uid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSpec:
    """What was asked for, with the profile's defaults filled in. ``mode`` is such as CONNECT, ``sharing`` such as EXCLUSIVE."""

    profile: str = ""
    queue: str = ""
    mode: str = ""
    sharing: str = ""
    driver: ContainerSize = field(default_factory=ContainerSize)
    executors: ExecutorSpec = field(default_factory=ExecutorSpec)
    conf: Mapping[str, str] = field(default_factory=dict)
    unset_conf: tuple[str, ...] = ()
    pod: Mapping[str, Any] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    jars: tuple[str, ...] = ()
    priority: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    wait_ttl: timedelta | None = None
    unattended_ttl: timedelta | None = None
    ttl: timedelta | None = None
    acquire_timeout: timedelta | None = None
    max_duration: timedelta | None = None
    keep_when_holder_lost: bool = False
    holder_pod: HolderPod | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """One live user of a lease."""

    id: str = ""
    generation: int = 0
    attach_time: datetime | None = None
    holder: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """When each phase began, in UTC; None: not yet, or there is no such phase. The protocol says by whose clock."""

    queued_time: datetime | None = None
    admitted_time: datetime | None = None
    pod_scheduled_time: datetime | None = None
    sandbox_ready_time: datetime | None = None
    process_started_time: datetime | None = None
    port_open_time: datetime | None = None
    ready_time: datetime | None = None
    releasing_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What a lease that isn't READY waits for. ``position`` counts from 1; 0: it waits no more, and is being started."""

    position: int = 0
    queue_length: int = 0
    blocking_reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Executors:
    """The executors of a READY lease as last seen, and in ``message`` why some don't run."""

    wanted: int = 0
    running: int = 0
    pending: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverExit:
    """How a driver ended by itself. ``exit_code`` None: it didn't exit; ``signal`` is such as SIGKILL."""

    exit_code: int | None = None
    signal: str = ""
    out_of_memory: bool = False
    log_tail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseInfo:
    """A lease as the broker told of it, at one moment; each field is documented at Lease in broker.proto.

    ``state`` is such as READY and ``reason`` such as QUEUE_QUOTA; ``outcome``, while RELEASING, the state that follows.
    """

    name: str
    key: str = ""
    principal: str = ""
    spec: LeaseSpec = field(default_factory=LeaseSpec)
    state: str = ""
    reason: str = ""
    message: str = ""
    outcome: str = ""
    attempt: int = 0
    driver: str = ""
    charge: Mapping[str, int] = field(default_factory=dict)
    attachments: tuple[Attachment, ...] = ()
    generation: int = 0
    timings: Timings = field(default_factory=Timings)
    revision: int = 0
    progress: Waiting | None = None
    exit: DriverExit | None = None
    notice: str = ""
    etag: str = ""
    executors: Executors | None = None

    @classmethod
    def of(cls, message: pb.Lease) -> Self:
        """What this message of the protocol says."""
        info: Self = _read(cls, message)
        return info


def _read(kind: Any, message: Message) -> Any:
    """A value of this class, from a message with fields of the same names."""
    known = message.DESCRIPTOR.fields_by_name
    return kind(
        **{
            name: _field(message, known[name], item, optional)
            for name, (item, optional) in _hints(kind).items()
            if name in known
        }
    )


@functools.cache
def _hints(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Field -> (the class of it or of its items, where that is one of these; whether it may be None)."""
    found = {}
    for name, hint in get_type_hints(kind).items():
        parts = (hint, *get_args(hint))
        found[name] = (next((part for part in parts if is_dataclass(part)), None), NoneType in parts)
    return found


def _field(message: Message, described: Any, kind: Any, optional: bool) -> Any:
    value = getattr(message, described.name)
    if optional and not message.HasField(described.name):
        return None
    match value:
        case Timestamp():
            return value.ToDatetime(tzinfo=UTC)
        case Duration():
            return value.ToTimedelta()
        case Struct():
            from google.protobuf.json_format import MessageToDict  # noqa: PLC0415  few leases have pod settings

            return MessageToDict(value)
        case Message():
            return _read(kind, value)
        case MutableMapping():
            return dict(value)
        case MutableSequence():
            return tuple(value if kind is None else (_read(kind, item) for item in value))
        case _:
            return value if described.enum_type is None else word(described.enum_type, value)
