import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LeaseState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEASE_STATE_UNSPECIFIED: _ClassVar[LeaseState]
    LEASE_STATE_QUEUED: _ClassVar[LeaseState]
    LEASE_STATE_PROVISIONING: _ClassVar[LeaseState]
    LEASE_STATE_READY: _ClassVar[LeaseState]
    LEASE_STATE_RELEASING: _ClassVar[LeaseState]
    LEASE_STATE_RELEASED: _ClassVar[LeaseState]
    LEASE_STATE_EXPIRED: _ClassVar[LeaseState]
    LEASE_STATE_FAILED: _ClassVar[LeaseState]
    LEASE_STATE_PREEMPTED: _ClassVar[LeaseState]

class LeaseReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEASE_REASON_UNSPECIFIED: _ClassVar[LeaseReason]
    LEASE_REASON_QUEUE_QUOTA: _ClassVar[LeaseReason]
    LEASE_REASON_CAPACITY: _ClassVar[LeaseReason]
    LEASE_REASON_BEHIND_OTHERS: _ClassVar[LeaseReason]
    LEASE_REASON_RESERVED_FOR_ANOTHER: _ClassVar[LeaseReason]
    LEASE_REASON_INVENTORY: _ClassVar[LeaseReason]
    LEASE_REASON_STARTING: _ClassVar[LeaseReason]
    LEASE_REASON_RETRYING: _ClassVar[LeaseReason]
    LEASE_REASON_SERVING: _ClassVar[LeaseReason]
    LEASE_REASON_RELEASED_BY_HOLDER: _ClassVar[LeaseReason]
    LEASE_REASON_RELEASED_BY_OPERATOR: _ClassVar[LeaseReason]
    LEASE_REASON_REPLACED: _ClassVar[LeaseReason]
    LEASE_REASON_HOLDER_LOST: _ClassVar[LeaseReason]
    LEASE_REASON_NOBODY_WAITED: _ClassVar[LeaseReason]
    LEASE_REASON_UNATTENDED: _ClassVar[LeaseReason]
    LEASE_REASON_ACQUIRE_TIMEOUT: _ClassVar[LeaseReason]
    LEASE_REASON_MAX_DURATION: _ClassVar[LeaseReason]
    LEASE_REASON_START_FAILED: _ClassVar[LeaseReason]
    LEASE_REASON_DRIVER_LOST: _ClassVar[LeaseReason]
    LEASE_REASON_OUT_OF_MEMORY: _ClassVar[LeaseReason]
    LEASE_REASON_MISCONFIGURED: _ClassVar[LeaseReason]

class LeaseMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEASE_MODE_UNSPECIFIED: _ClassVar[LeaseMode]
    LEASE_MODE_CONNECT: _ClassVar[LeaseMode]
    LEASE_MODE_LOCAL: _ClassVar[LeaseMode]
    LEASE_MODE_CLIENT: _ClassVar[LeaseMode]

class LeaseSharing(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEASE_SHARING_UNSPECIFIED: _ClassVar[LeaseSharing]
    LEASE_SHARING_EXCLUSIVE: _ClassVar[LeaseSharing]
    LEASE_SHARING_SHARED: _ClassVar[LeaseSharing]

class OnExisting(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ON_EXISTING_UNSPECIFIED: _ClassVar[OnExisting]
    ON_EXISTING_FAIL: _ClassVar[OnExisting]
    ON_EXISTING_REATTACH: _ClassVar[OnExisting]
    ON_EXISTING_REPLACE: _ClassVar[OnExisting]

class LeaseEventType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEASE_EVENT_TYPE_UNSPECIFIED: _ClassVar[LeaseEventType]
    LEASE_EVENT_TYPE_STATE: _ClassVar[LeaseEventType]
    LEASE_EVENT_TYPE_ATTACHED: _ClassVar[LeaseEventType]
    LEASE_EVENT_TYPE_DETACHED: _ClassVar[LeaseEventType]
    LEASE_EVENT_TYPE_NOTICE: _ClassVar[LeaseEventType]
    LEASE_EVENT_TYPE_FORCED: _ClassVar[LeaseEventType]
LEASE_STATE_UNSPECIFIED: LeaseState
LEASE_STATE_QUEUED: LeaseState
LEASE_STATE_PROVISIONING: LeaseState
LEASE_STATE_READY: LeaseState
LEASE_STATE_RELEASING: LeaseState
LEASE_STATE_RELEASED: LeaseState
LEASE_STATE_EXPIRED: LeaseState
LEASE_STATE_FAILED: LeaseState
LEASE_STATE_PREEMPTED: LeaseState
LEASE_REASON_UNSPECIFIED: LeaseReason
LEASE_REASON_QUEUE_QUOTA: LeaseReason
LEASE_REASON_CAPACITY: LeaseReason
LEASE_REASON_BEHIND_OTHERS: LeaseReason
LEASE_REASON_RESERVED_FOR_ANOTHER: LeaseReason
LEASE_REASON_INVENTORY: LeaseReason
LEASE_REASON_STARTING: LeaseReason
LEASE_REASON_RETRYING: LeaseReason
LEASE_REASON_SERVING: LeaseReason
LEASE_REASON_RELEASED_BY_HOLDER: LeaseReason
LEASE_REASON_RELEASED_BY_OPERATOR: LeaseReason
LEASE_REASON_REPLACED: LeaseReason
LEASE_REASON_HOLDER_LOST: LeaseReason
LEASE_REASON_NOBODY_WAITED: LeaseReason
LEASE_REASON_UNATTENDED: LeaseReason
LEASE_REASON_ACQUIRE_TIMEOUT: LeaseReason
LEASE_REASON_MAX_DURATION: LeaseReason
LEASE_REASON_START_FAILED: LeaseReason
LEASE_REASON_DRIVER_LOST: LeaseReason
LEASE_REASON_OUT_OF_MEMORY: LeaseReason
LEASE_REASON_MISCONFIGURED: LeaseReason
LEASE_MODE_UNSPECIFIED: LeaseMode
LEASE_MODE_CONNECT: LeaseMode
LEASE_MODE_LOCAL: LeaseMode
LEASE_MODE_CLIENT: LeaseMode
LEASE_SHARING_UNSPECIFIED: LeaseSharing
LEASE_SHARING_EXCLUSIVE: LeaseSharing
LEASE_SHARING_SHARED: LeaseSharing
ON_EXISTING_UNSPECIFIED: OnExisting
ON_EXISTING_FAIL: OnExisting
ON_EXISTING_REATTACH: OnExisting
ON_EXISTING_REPLACE: OnExisting
LEASE_EVENT_TYPE_UNSPECIFIED: LeaseEventType
LEASE_EVENT_TYPE_STATE: LeaseEventType
LEASE_EVENT_TYPE_ATTACHED: LeaseEventType
LEASE_EVENT_TYPE_DETACHED: LeaseEventType
LEASE_EVENT_TYPE_NOTICE: LeaseEventType
LEASE_EVENT_TYPE_FORCED: LeaseEventType

class ContainerSize(_message.Message):
    __slots__ = ("cores", "memory", "memory_overhead")
    CORES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    MEMORY_OVERHEAD_FIELD_NUMBER: _ClassVar[int]
    cores: int
    memory: str
    memory_overhead: str
    def __init__(self, cores: _Optional[int] = ..., memory: _Optional[str] = ..., memory_overhead: _Optional[str] = ...) -> None: ...

class ExecutorSpec(_message.Message):
    __slots__ = ("size", "min_count", "max_count")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    MIN_COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_COUNT_FIELD_NUMBER: _ClassVar[int]
    size: ContainerSize
    min_count: int
    max_count: int
    def __init__(self, size: _Optional[_Union[ContainerSize, _Mapping]] = ..., min_count: _Optional[int] = ..., max_count: _Optional[int] = ...) -> None: ...

class LeaseSpec(_message.Message):
    __slots__ = ("profile", "queue", "mode", "sharing", "driver", "executors", "conf", "packages", "jars", "priority", "labels", "wait_ttl", "unattended_ttl", "ttl", "acquire_timeout", "max_duration", "keep_when_holder_lost", "unset_conf", "pod", "holder_pod")
    class ConfEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    SHARING_FIELD_NUMBER: _ClassVar[int]
    DRIVER_FIELD_NUMBER: _ClassVar[int]
    EXECUTORS_FIELD_NUMBER: _ClassVar[int]
    CONF_FIELD_NUMBER: _ClassVar[int]
    PACKAGES_FIELD_NUMBER: _ClassVar[int]
    JARS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    WAIT_TTL_FIELD_NUMBER: _ClassVar[int]
    UNATTENDED_TTL_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    ACQUIRE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    MAX_DURATION_FIELD_NUMBER: _ClassVar[int]
    KEEP_WHEN_HOLDER_LOST_FIELD_NUMBER: _ClassVar[int]
    UNSET_CONF_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    HOLDER_POD_FIELD_NUMBER: _ClassVar[int]
    profile: str
    queue: str
    mode: LeaseMode
    sharing: LeaseSharing
    driver: ContainerSize
    executors: ExecutorSpec
    conf: _containers.ScalarMap[str, str]
    packages: _containers.RepeatedScalarFieldContainer[str]
    jars: _containers.RepeatedScalarFieldContainer[str]
    priority: int
    labels: _containers.ScalarMap[str, str]
    wait_ttl: _duration_pb2.Duration
    unattended_ttl: _duration_pb2.Duration
    ttl: _duration_pb2.Duration
    acquire_timeout: _duration_pb2.Duration
    max_duration: _duration_pb2.Duration
    keep_when_holder_lost: bool
    unset_conf: _containers.RepeatedScalarFieldContainer[str]
    pod: _struct_pb2.Struct
    holder_pod: HolderPod
    def __init__(self, profile: _Optional[str] = ..., queue: _Optional[str] = ..., mode: _Optional[_Union[LeaseMode, str]] = ..., sharing: _Optional[_Union[LeaseSharing, str]] = ..., driver: _Optional[_Union[ContainerSize, _Mapping]] = ..., executors: _Optional[_Union[ExecutorSpec, _Mapping]] = ..., conf: _Optional[_Mapping[str, str]] = ..., packages: _Optional[_Iterable[str]] = ..., jars: _Optional[_Iterable[str]] = ..., priority: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., wait_ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., unattended_ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., acquire_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., keep_when_holder_lost: bool = ..., unset_conf: _Optional[_Iterable[str]] = ..., pod: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., holder_pod: _Optional[_Union[HolderPod, _Mapping]] = ...) -> None: ...

class HolderPod(_message.Message):
    __slots__ = ("namespace", "name", "uid")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    uid: str
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., uid: _Optional[str] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("name", "key", "principal", "spec", "state", "reason", "message", "outcome", "attempt", "driver", "charge", "attachments", "generation", "timings", "revision", "progress", "exit", "notice", "etag", "executors")
    class ChargeEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    DRIVER_FIELD_NUMBER: _ClassVar[int]
    CHARGE_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENTS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    EXIT_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    EXECUTORS_FIELD_NUMBER: _ClassVar[int]
    name: str
    key: str
    principal: str
    spec: LeaseSpec
    state: LeaseState
    reason: LeaseReason
    message: str
    outcome: LeaseState
    attempt: int
    driver: str
    charge: _containers.ScalarMap[str, int]
    attachments: _containers.RepeatedCompositeFieldContainer[Attachment]
    generation: int
    timings: Timings
    revision: int
    progress: Progress
    exit: DriverExit
    notice: str
    etag: str
    executors: Executors
    def __init__(self, name: _Optional[str] = ..., key: _Optional[str] = ..., principal: _Optional[str] = ..., spec: _Optional[_Union[LeaseSpec, _Mapping]] = ..., state: _Optional[_Union[LeaseState, str]] = ..., reason: _Optional[_Union[LeaseReason, str]] = ..., message: _Optional[str] = ..., outcome: _Optional[_Union[LeaseState, str]] = ..., attempt: _Optional[int] = ..., driver: _Optional[str] = ..., charge: _Optional[_Mapping[str, int]] = ..., attachments: _Optional[_Iterable[_Union[Attachment, _Mapping]]] = ..., generation: _Optional[int] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., revision: _Optional[int] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., exit: _Optional[_Union[DriverExit, _Mapping]] = ..., notice: _Optional[str] = ..., etag: _Optional[str] = ..., executors: _Optional[_Union[Executors, _Mapping]] = ...) -> None: ...

class Executors(_message.Message):
    __slots__ = ("wanted", "running", "pending", "message")
    WANTED_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    wanted: int
    running: int
    pending: int
    message: str
    def __init__(self, wanted: _Optional[int] = ..., running: _Optional[int] = ..., pending: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class Attachment(_message.Message):
    __slots__ = ("id", "generation", "attach_time", "holder")
    ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ATTACH_TIME_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    id: str
    generation: int
    attach_time: _timestamp_pb2.Timestamp
    holder: str
    def __init__(self, id: _Optional[str] = ..., generation: _Optional[int] = ..., attach_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., holder: _Optional[str] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("queued_time", "admitted_time", "pod_scheduled_time", "sandbox_ready_time", "process_started_time", "port_open_time", "ready_time", "releasing_time", "end_time")
    QUEUED_TIME_FIELD_NUMBER: _ClassVar[int]
    ADMITTED_TIME_FIELD_NUMBER: _ClassVar[int]
    POD_SCHEDULED_TIME_FIELD_NUMBER: _ClassVar[int]
    SANDBOX_READY_TIME_FIELD_NUMBER: _ClassVar[int]
    PROCESS_STARTED_TIME_FIELD_NUMBER: _ClassVar[int]
    PORT_OPEN_TIME_FIELD_NUMBER: _ClassVar[int]
    READY_TIME_FIELD_NUMBER: _ClassVar[int]
    RELEASING_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    queued_time: _timestamp_pb2.Timestamp
    admitted_time: _timestamp_pb2.Timestamp
    pod_scheduled_time: _timestamp_pb2.Timestamp
    sandbox_ready_time: _timestamp_pb2.Timestamp
    process_started_time: _timestamp_pb2.Timestamp
    port_open_time: _timestamp_pb2.Timestamp
    ready_time: _timestamp_pb2.Timestamp
    releasing_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    def __init__(self, queued_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., admitted_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., pod_scheduled_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., sandbox_ready_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., process_started_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., port_open_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ready_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., releasing_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("position", "queue_length", "blocking_reason", "message")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    QUEUE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    BLOCKING_REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    position: int
    queue_length: int
    blocking_reason: LeaseReason
    message: str
    def __init__(self, position: _Optional[int] = ..., queue_length: _Optional[int] = ..., blocking_reason: _Optional[_Union[LeaseReason, str]] = ..., message: _Optional[str] = ...) -> None: ...

class DriverExit(_message.Message):
    __slots__ = ("exit_code", "signal", "out_of_memory", "log_tail")
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    OUT_OF_MEMORY_FIELD_NUMBER: _ClassVar[int]
    LOG_TAIL_FIELD_NUMBER: _ClassVar[int]
    exit_code: int
    signal: str
    out_of_memory: bool
    log_tail: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, exit_code: _Optional[int] = ..., signal: _Optional[str] = ..., out_of_memory: bool = ..., log_tail: _Optional[_Iterable[str]] = ...) -> None: ...

class AcquireLeaseRequest(_message.Message):
    __slots__ = ("request_id", "lease_key", "on_existing", "spec")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_KEY_FIELD_NUMBER: _ClassVar[int]
    ON_EXISTING_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    lease_key: str
    on_existing: OnExisting
    spec: LeaseSpec
    def __init__(self, request_id: _Optional[str] = ..., lease_key: _Optional[str] = ..., on_existing: _Optional[_Union[OnExisting, str]] = ..., spec: _Optional[_Union[LeaseSpec, _Mapping]] = ...) -> None: ...

class AcquireLeaseResponse(_message.Message):
    __slots__ = ("lease", "existing")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    EXISTING_FIELD_NUMBER: _ClassVar[int]
    lease: Lease
    existing: bool
    def __init__(self, lease: _Optional[_Union[Lease, _Mapping]] = ..., existing: bool = ...) -> None: ...

class GetLeaseRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetLeaseResponse(_message.Message):
    __slots__ = ("lease",)
    LEASE_FIELD_NUMBER: _ClassVar[int]
    lease: Lease
    def __init__(self, lease: _Optional[_Union[Lease, _Mapping]] = ...) -> None: ...

class ListLeasesRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "filter", "order_by")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    filter: str
    order_by: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., filter: _Optional[str] = ..., order_by: _Optional[str] = ...) -> None: ...

class ListLeasesResponse(_message.Message):
    __slots__ = ("leases", "next_page_token", "revision")
    LEASES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedCompositeFieldContainer[Lease]
    next_page_token: str
    revision: int
    def __init__(self, leases: _Optional[_Iterable[_Union[Lease, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class LeaseEvent(_message.Message):
    __slots__ = ("revision", "lease", "type", "state", "reason", "message", "time", "attempt", "generation")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    revision: int
    lease: str
    type: LeaseEventType
    state: LeaseState
    reason: LeaseReason
    message: str
    time: _timestamp_pb2.Timestamp
    attempt: int
    generation: int
    def __init__(self, revision: _Optional[int] = ..., lease: _Optional[str] = ..., type: _Optional[_Union[LeaseEventType, str]] = ..., state: _Optional[_Union[LeaseState, str]] = ..., reason: _Optional[_Union[LeaseReason, str]] = ..., message: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., attempt: _Optional[int] = ..., generation: _Optional[int] = ...) -> None: ...

class WatchLeaseRequest(_message.Message):
    __slots__ = ("name", "after_revision")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AFTER_REVISION_FIELD_NUMBER: _ClassVar[int]
    name: str
    after_revision: int
    def __init__(self, name: _Optional[str] = ..., after_revision: _Optional[int] = ...) -> None: ...

class WatchLeaseResponse(_message.Message):
    __slots__ = ("snapshot", "event", "progress", "revision")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    snapshot: Lease
    event: LeaseEvent
    progress: Progress
    revision: int
    def __init__(self, snapshot: _Optional[_Union[Lease, _Mapping]] = ..., event: _Optional[_Union[LeaseEvent, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class WatchLeasesRequest(_message.Message):
    __slots__ = ("filter", "after_revision")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    AFTER_REVISION_FIELD_NUMBER: _ClassVar[int]
    filter: str
    after_revision: int
    def __init__(self, filter: _Optional[str] = ..., after_revision: _Optional[int] = ...) -> None: ...

class WatchLeasesResponse(_message.Message):
    __slots__ = ("event", "revision")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    event: LeaseEvent
    revision: int
    def __init__(self, event: _Optional[_Union[LeaseEvent, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class AttachLeaseRequest(_message.Message):
    __slots__ = ("name", "request_id", "holder")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    name: str
    request_id: str
    holder: str
    def __init__(self, name: _Optional[str] = ..., request_id: _Optional[str] = ..., holder: _Optional[str] = ...) -> None: ...

class AttachLeaseResponse(_message.Message):
    __slots__ = ("lease", "attachment", "ttl")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENT_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    lease: Lease
    attachment: Attachment
    ttl: _duration_pb2.Duration
    def __init__(self, lease: _Optional[_Union[Lease, _Mapping]] = ..., attachment: _Optional[_Union[Attachment, _Mapping]] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Renewal(_message.Message):
    __slots__ = ("name", "generation")
    NAME_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    name: str
    generation: int
    def __init__(self, name: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class RenewalResult(_message.Message):
    __slots__ = ("name", "generation", "code", "error_reason", "message", "state", "ttl")
    NAME_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    ERROR_REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    name: str
    generation: int
    code: int
    error_reason: str
    message: str
    state: LeaseState
    ttl: _duration_pb2.Duration
    def __init__(self, name: _Optional[str] = ..., generation: _Optional[int] = ..., code: _Optional[int] = ..., error_reason: _Optional[str] = ..., message: _Optional[str] = ..., state: _Optional[_Union[LeaseState, str]] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class KeepAliveRequest(_message.Message):
    __slots__ = ("renewals",)
    RENEWALS_FIELD_NUMBER: _ClassVar[int]
    renewals: _containers.RepeatedCompositeFieldContainer[Renewal]
    def __init__(self, renewals: _Optional[_Iterable[_Union[Renewal, _Mapping]]] = ...) -> None: ...

class KeepAliveResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[RenewalResult]
    def __init__(self, results: _Optional[_Iterable[_Union[RenewalResult, _Mapping]]] = ...) -> None: ...

class RenewLeaseRequest(_message.Message):
    __slots__ = ("name", "generation")
    NAME_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    name: str
    generation: int
    def __init__(self, name: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class RenewLeaseResponse(_message.Message):
    __slots__ = ("state", "ttl", "notice")
    STATE_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    state: LeaseState
    ttl: _duration_pb2.Duration
    notice: str
    def __init__(self, state: _Optional[_Union[LeaseState, str]] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., notice: _Optional[str] = ...) -> None: ...

class ReleaseLeaseRequest(_message.Message):
    __slots__ = ("name", "generation", "message")
    NAME_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    name: str
    generation: int
    message: str
    def __init__(self, name: _Optional[str] = ..., generation: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class ReleaseLeaseResponse(_message.Message):
    __slots__ = ("lease",)
    LEASE_FIELD_NUMBER: _ClassVar[int]
    lease: Lease
    def __init__(self, lease: _Optional[_Union[Lease, _Mapping]] = ...) -> None: ...

class GetConnectionRequest(_message.Message):
    __slots__ = ("name", "generation")
    NAME_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    name: str
    generation: int
    def __init__(self, name: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class GetConnectionResponse(_message.Message):
    __slots__ = ("connect", "local", "client", "expire_time", "python_version", "spark_version")
    CONNECT_FIELD_NUMBER: _ClassVar[int]
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    PYTHON_VERSION_FIELD_NUMBER: _ClassVar[int]
    SPARK_VERSION_FIELD_NUMBER: _ClassVar[int]
    connect: ConnectConnection
    local: LocalConnection
    client: ClientConnection
    expire_time: _timestamp_pb2.Timestamp
    python_version: str
    spark_version: str
    def __init__(self, connect: _Optional[_Union[ConnectConnection, _Mapping]] = ..., local: _Optional[_Union[LocalConnection, _Mapping]] = ..., client: _Optional[_Union[ClientConnection, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., python_version: _Optional[str] = ..., spark_version: _Optional[str] = ...) -> None: ...

class ConnectConnection(_message.Message):
    __slots__ = ("endpoint", "headers", "session_id", "user_id", "use_tls", "ca_certificate", "ui_url")
    class HeadersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    USE_TLS_FIELD_NUMBER: _ClassVar[int]
    CA_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    UI_URL_FIELD_NUMBER: _ClassVar[int]
    endpoint: str
    headers: _containers.ScalarMap[str, str]
    session_id: str
    user_id: str
    use_tls: bool
    ca_certificate: str
    ui_url: str
    def __init__(self, endpoint: _Optional[str] = ..., headers: _Optional[_Mapping[str, str]] = ..., session_id: _Optional[str] = ..., user_id: _Optional[str] = ..., use_tls: bool = ..., ca_certificate: _Optional[str] = ..., ui_url: _Optional[str] = ...) -> None: ...

class LocalConnection(_message.Message):
    __slots__ = ("master", "conf")
    class ConfEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MASTER_FIELD_NUMBER: _ClassVar[int]
    CONF_FIELD_NUMBER: _ClassVar[int]
    master: str
    conf: _containers.ScalarMap[str, str]
    def __init__(self, master: _Optional[str] = ..., conf: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ClientConnection(_message.Message):
    __slots__ = ("conf", "executor_pod_template", "token", "ca_certificate")
    class ConfEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CONF_FIELD_NUMBER: _ClassVar[int]
    EXECUTOR_POD_TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CA_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    conf: _containers.ScalarMap[str, str]
    executor_pod_template: str
    token: str
    ca_certificate: str
    def __init__(self, conf: _Optional[_Mapping[str, str]] = ..., executor_pod_template: _Optional[str] = ..., token: _Optional[str] = ..., ca_certificate: _Optional[str] = ...) -> None: ...

class StreamLogsRequest(_message.Message):
    __slots__ = ("name", "offset", "tail_lines", "follow", "attempt", "executors", "executor_offsets")
    class ExecutorOffsetsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    TAIL_LINES_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    EXECUTORS_FIELD_NUMBER: _ClassVar[int]
    EXECUTOR_OFFSETS_FIELD_NUMBER: _ClassVar[int]
    name: str
    offset: int
    tail_lines: int
    follow: bool
    attempt: int
    executors: bool
    executor_offsets: _containers.ScalarMap[str, int]
    def __init__(self, name: _Optional[str] = ..., offset: _Optional[int] = ..., tail_lines: _Optional[int] = ..., follow: bool = ..., attempt: _Optional[int] = ..., executors: bool = ..., executor_offsets: _Optional[_Mapping[str, int]] = ...) -> None: ...

class StreamLogsResponse(_message.Message):
    __slots__ = ("data", "next_offset", "source")
    DATA_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    next_offset: int
    source: str
    def __init__(self, data: _Optional[bytes] = ..., next_offset: _Optional[int] = ..., source: _Optional[str] = ...) -> None: ...

class Queue(_message.Message):
    __slots__ = ("name", "nominal", "used", "queued", "admitted", "priority_step", "blocking_message", "min_priority", "max_priority")
    class NominalEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class UsedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    NOMINAL_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    ADMITTED_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_STEP_FIELD_NUMBER: _ClassVar[int]
    BLOCKING_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    MIN_PRIORITY_FIELD_NUMBER: _ClassVar[int]
    MAX_PRIORITY_FIELD_NUMBER: _ClassVar[int]
    name: str
    nominal: _containers.ScalarMap[str, int]
    used: _containers.ScalarMap[str, int]
    queued: int
    admitted: int
    priority_step: _duration_pb2.Duration
    blocking_message: str
    min_priority: int
    max_priority: int
    def __init__(self, name: _Optional[str] = ..., nominal: _Optional[_Mapping[str, int]] = ..., used: _Optional[_Mapping[str, int]] = ..., queued: _Optional[int] = ..., admitted: _Optional[int] = ..., priority_step: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., blocking_message: _Optional[str] = ..., min_priority: _Optional[int] = ..., max_priority: _Optional[int] = ...) -> None: ...

class ListQueuesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListQueuesResponse(_message.Message):
    __slots__ = ("queues", "next_page_token")
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    queues: _containers.RepeatedCompositeFieldContainer[Queue]
    next_page_token: str
    def __init__(self, queues: _Optional[_Iterable[_Union[Queue, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class Profile(_message.Message):
    __slots__ = ("name", "description", "provisioner", "modes", "defaults", "allowed_conf", "limits", "master", "unusable_message", "allowed_pod")
    class LimitsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    PROVISIONER_FIELD_NUMBER: _ClassVar[int]
    MODES_FIELD_NUMBER: _ClassVar[int]
    DEFAULTS_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_CONF_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    MASTER_FIELD_NUMBER: _ClassVar[int]
    UNUSABLE_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_POD_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    provisioner: str
    modes: _containers.RepeatedScalarFieldContainer[LeaseMode]
    defaults: LeaseSpec
    allowed_conf: _containers.RepeatedScalarFieldContainer[str]
    limits: _containers.ScalarMap[str, str]
    master: str
    unusable_message: str
    allowed_pod: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., provisioner: _Optional[str] = ..., modes: _Optional[_Iterable[_Union[LeaseMode, str]]] = ..., defaults: _Optional[_Union[LeaseSpec, _Mapping]] = ..., allowed_conf: _Optional[_Iterable[str]] = ..., limits: _Optional[_Mapping[str, str]] = ..., master: _Optional[str] = ..., unusable_message: _Optional[str] = ..., allowed_pod: _Optional[_Iterable[str]] = ...) -> None: ...

class ListProfilesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListProfilesResponse(_message.Message):
    __slots__ = ("profiles", "next_page_token")
    PROFILES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    profiles: _containers.RepeatedCompositeFieldContainer[Profile]
    next_page_token: str
    def __init__(self, profiles: _Optional[_Iterable[_Union[Profile, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...
