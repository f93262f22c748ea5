"""Domain values to protocol messages. Pure; written by hand, because it is on the path of every call. Leases and their
events are in ``showing``.

Units: the domain's seconds become Duration and Timestamp, to the microsecond; bytes of memory become Spark's notation.
Every member of the domain's enums has a number in the protocol: an import fails otherwise.
"""

from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from sparkbroker.broker.app.views import (
    Connection,
    ProfileView,
    QueueView,
    Renewed,
)
from sparkbroker.broker.domain.admission.cycle import Progress
from sparkbroker.broker.domain.asking.profile import Limits
from sparkbroker.broker.domain.capacity.resources import Resources, format_memory
from sparkbroker.broker.domain.lease.driver import DriverExit
from sparkbroker.broker.domain.lease.event import EventType
from sparkbroker.broker.domain.lease.lease import (
    Attachment,
    ContainerSize,
    ExecutorSpec,
    HolderPod,
    LeaseMode,
    LeaseReason,
    LeaseSharing,
    LeaseSpec,
    LeaseState,
)
from sparkbroker.broker.domain.lease.observation import Executors
from sparkbroker.broker.domain.lease.timings import Timings
from sparkbroker.broker.ports.provisioner import LogChunk
from sparkbroker.v1 import broker_pb2 as pb

LEASE_PREFIX: Final = "leases/"
DRIVER_PREFIX: Final = "drivers/"
MAX_AMOUNT: Final = 2**63 - 1

# Any: the generated stubs and protobuf's own disagree on what Value() returns.
STATES: Final[dict[LeaseState, Any]] = {s: pb.LeaseState.Value(f"LEASE_STATE_{s.name}") for s in LeaseState}
REASONS: Final[dict[LeaseReason, Any]] = {r: pb.LeaseReason.Value(f"LEASE_REASON_{r.name}") for r in LeaseReason}
MODES: Final[dict[LeaseMode, Any]] = {m: pb.LeaseMode.Value(f"LEASE_MODE_{m.name}") for m in LeaseMode}
SHARINGS: Final[dict[LeaseSharing, Any]] = {s: pb.LeaseSharing.Value(f"LEASE_SHARING_{s.name}") for s in LeaseSharing}
EVENT_TYPES: Final[dict[EventType, Any]] = {t: pb.LeaseEventType.Value(f"LEASE_EVENT_TYPE_{t.name}") for t in EventType}


def timestamp(wall: float | None) -> Timestamp | None:
    """Unix seconds, to the microsecond: more than that is noise in a float."""
    if wall is None:
        return None
    micros = round(wall * 1_000_000)
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def duration(seconds: float | None) -> Duration | None:
    """Seconds that aren't negative, to the microsecond."""
    if seconds is None:
        return None
    micros = round(seconds * 1_000_000)
    return Duration(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def container_size(size: ContainerSize) -> pb.ContainerSize:
    """A size; an overhead that is Spark's formula stays empty."""
    return pb.ContainerSize(
        cores=size.cores,
        memory=format_memory(size.memory),
        memory_overhead="" if size.overhead is None else format_memory(size.overhead),
    )


def executor_spec(executors: ExecutorSpec) -> pb.ExecutorSpec:
    """Executors."""
    return pb.ExecutorSpec(
        size=container_size(executors.size), min_count=executors.min_count, max_count=executors.max_count
    )


def lease_spec(spec: LeaseSpec) -> pb.LeaseSpec:
    """A complete spec."""
    return pb.LeaseSpec(
        profile=spec.profile,
        queue=spec.queue,
        mode=MODES[spec.mode],
        sharing=SHARINGS[spec.sharing],
        driver=container_size(spec.driver),
        executors=None if spec.executors is None else executor_spec(spec.executors),
        conf=spec.conf,
        packages=spec.packages,
        jars=spec.jars,
        priority=spec.priority,
        labels=spec.labels,
        wait_ttl=duration(spec.wait_ttl),
        unattended_ttl=duration(spec.unattended_ttl),
        ttl=duration(spec.ttl),
        acquire_timeout=duration(spec.acquire_timeout),
        max_duration=duration(spec.max_duration),
        keep_when_holder_lost=spec.keep_when_holder_lost,
        pod=spec.pod or None,
        holder_pod=None if spec.holder_pod is None else holder_pod(spec.holder_pod),
    )


def holder_pod(pod: HolderPod) -> pb.HolderPod:
    """The pod that is the driver."""
    return pb.HolderPod(namespace=pod.namespace, name=pod.name, uid=pod.uid)


def attachment(value: Attachment) -> pb.Attachment:
    """Without its Spark session id: that is as good as a password within the driver, and only its holder gets it."""
    return pb.Attachment(
        id=value.id, generation=value.generation, attach_time=timestamp(value.attached_at), holder=value.holder
    )


def timings(value: Timings) -> pb.Timings:
    """Phases that have begun."""
    answer = pb.Timings()
    set_timings(answer, value)
    return answer


def set_timings(message: pb.Timings, value: Timings) -> None:
    """As ``timings``, into a message that is there."""
    _set_time(message.queued_time, value.queued)
    if value.admitted is not None:
        _set_time(message.admitted_time, value.admitted)
    if value.pod_scheduled is not None:
        _set_time(message.pod_scheduled_time, value.pod_scheduled)
    if value.sandbox_ready is not None:
        _set_time(message.sandbox_ready_time, value.sandbox_ready)
    if value.process_started is not None:
        _set_time(message.process_started_time, value.process_started)
    if value.port_open is not None:
        _set_time(message.port_open_time, value.port_open)
    if value.ready is not None:
        _set_time(message.ready_time, value.ready)
    if value.releasing is not None:
        _set_time(message.releasing_time, value.releasing)
    if value.ended is not None:
        _set_time(message.end_time, value.ended)


def _set_time(message: Timestamp, wall: float) -> None:
    micros = round(wall * 1_000_000)
    message.seconds = micros // 1_000_000
    message.nanos = micros % 1_000_000 * 1000


def driver_exit(value: DriverExit) -> pb.DriverExit:
    """How a driver ended."""
    return pb.DriverExit(
        exit_code=value.exit_code,
        signal=value.signal,
        out_of_memory=value.out_of_memory,
        log_tail=value.log_tail,
    )


def executors(value: Executors) -> pb.Executors:
    """The executors of a READY lease."""
    return pb.Executors(wanted=value.wanted, running=value.running, pending=value.pending, message=value.message)


def progress(value: Progress) -> pb.Progress:
    """Why a lease waits."""
    return pb.Progress(
        position=value.position,
        queue_length=value.queue_length,
        blocking_reason=REASONS[value.reason],
        message=value.message,
    )


def renewed(value: Renewed) -> pb.RenewLeaseResponse:
    """Answer of RenewLease."""
    return pb.RenewLeaseResponse(state=STATES[value.state], ttl=duration(value.ttl), notice=value.notice)


def connection(value: Connection) -> pb.GetConnectionResponse:
    """The one message with secrets in it (``connect.headers``, ``client.token``)."""
    answer = pb.GetConnectionResponse(python_version=value.python_version, spark_version=value.spark_version)
    if value.connect is not None:
        endpoint = value.connect
        answer.connect.CopyFrom(
            pb.ConnectConnection(
                endpoint=endpoint.endpoint,
                headers=endpoint.headers,
                session_id=value.session_id,
                user_id=endpoint.user_id,
                use_tls=endpoint.use_tls,
                ca_certificate=endpoint.ca_certificate,
                ui_url=endpoint.ui_url,
            )
        )
    elif value.local is not None:
        answer.local.CopyFrom(pb.LocalConnection(master=value.local.master, conf=value.local.conf))
    elif value.client is not None:
        answer.client.CopyFrom(
            pb.ClientConnection(
                conf=value.client.conf,
                executor_pod_template=value.client.executor_pod_template,
                token=value.client.token,
                ca_certificate=value.client.ca_certificate,
            )
        )
        _set_time(answer.expire_time, value.client.expires)
    return answer


def queue(value: QueueView) -> pb.Queue:
    """A queue with what it holds."""
    return pb.Queue(
        name="queues/" + value.name,
        nominal=_amounts(value.nominal),
        used=_amounts(value.used),
        queued=value.queued,
        admitted=value.admitted,
        priority_step=duration(value.priority_step),
        min_priority=value.priorities[0],
        max_priority=value.priorities[1],
        blocking_message=value.blocking_message,
    )


def _amounts(value: Resources) -> dict[str, int]:
    """What was found running counts, however much it asks for: beyond int64 it is shown as int64's largest."""
    return {name: min(amount, MAX_AMOUNT) for name, amount in value.quantities.items()}


def profile(view: ProfileView) -> pb.Profile:
    """What a holder may know of a profile: not its files, endpoints or environment."""
    value = view.profile
    return pb.Profile(
        name="profiles/" + value.name,
        description=value.description,
        provisioner=value.provisioner,
        modes=[MODES[mode] for mode in value.modes],
        defaults=lease_spec(value.defaults),
        allowed_conf=value.allowed_conf,
        limits=_limits(value.limits),
        master=value.master,
        unusable_message=view.unusable,
        allowed_pod=value.allowed_pod,
    )


def _limits(value: Limits) -> dict[str, str]:
    texts = {
        "driver.cores": None if value.driver_cores is None else str(value.driver_cores),
        "driver.memory": None if value.driver_memory is None else format_memory(value.driver_memory),
        "executors.count": None if value.executor_count is None else str(value.executor_count),
        "executors.cores": None if value.executor_cores is None else str(value.executor_cores),
        "executors.memory": None if value.executor_memory is None else format_memory(value.executor_memory),
        "max_duration": None if value.max_duration is None else f"{value.max_duration:g}s",
    }
    return {name: text for name, text in texts.items() if text is not None}


def log_chunk(chunk: LogChunk) -> pb.StreamLogsResponse:
    """A piece of a log."""
    return pb.StreamLogsResponse(data=chunk.data, next_offset=chunk.next_offset, source=chunk.source)
