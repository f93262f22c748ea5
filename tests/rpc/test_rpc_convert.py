"""Domain to protocol and back, for any value; and the speed-ups that must not show."""

import math
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from sparkbroker.broker.app import records
from sparkbroker.broker.app.catalogue import Catalogue
from sparkbroker.broker.app.views import LeaseView, OnExisting, QueueView, WatchUpdate
from sparkbroker.broker.domain.admission.cycle import Progress
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.asking.request import ExecutorRequest, SizeRequest, SpecRequest
from sparkbroker.broker.domain.capacity.queue import Queue
from sparkbroker.broker.domain.capacity.resources import MIB, Resources, parse_memory
from sparkbroker.broker.domain.errors import InvalidField
from sparkbroker.broker.domain.lease.driver import DriverExit
from sparkbroker.broker.domain.lease.event import EventType, LeaseEvent
from sparkbroker.broker.domain.lease.lease import (
    Attachment,
    ContainerSize,
    ExecutorSpec,
    HolderPod,
    Lease,
    LeaseMode,
    LeaseReason,
    LeaseSharing,
    LeaseSpec,
    LeaseState,
)
from sparkbroker.broker.domain.lease.observation import Executors
from sparkbroker.broker.domain.lease.timings import Timings
from sparkbroker.broker.domain.units import Epoch, LeaseId, Principal, Revision, Seconds, ServingTime, WallTime
from sparkbroker.broker.ports.authenticator import Caller
from sparkbroker.broker.ports.store import RowKind, StoredRow
from sparkbroker.broker.rpc import convert, parse, showing
from sparkbroker.broker.rpc.decode import reader
from sparkbroker.v1 import broker_pb2 as pb

text = st.text(st.characters(codec="utf-8"), max_size=20)
maps = st.dictionaries(text, text, max_size=4)
texts = st.lists(text, max_size=3).map(tuple)
seconds = st.integers(0, 10**12).map(lambda micros: micros / 1e6)
walls = st.integers(0, 2**52).map(lambda micros: micros / 1e6)
counts = st.integers(0, 2**31 - 1)
sizes = st.integers(1, 1 << 20).map(lambda n: n * MIB)


def maybe(strategy):
    return st.none() | strategy


containers = st.builds(ContainerSize, cores=counts, memory=sizes, overhead=maybe(sizes))
scalars = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | text
)
json = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3))
executors = st.builds(ExecutorSpec, size=containers, min_count=counts, max_count=counts)
holders = st.just(HolderPod(namespace="spark", name="notebook", uid="u-1"))
specs = st.builds(
    LeaseSpec,
    profile=text, queue=text, mode=st.sampled_from(LeaseMode), sharing=st.sampled_from(LeaseSharing),
    driver=containers, executors=maybe(executors), conf=maps, packages=texts, jars=texts,
    pod=st.dictionaries(text, json, max_size=3), holder_pod=maybe(holders), priority=st.integers(-1000, 1000), labels=maps, wait_ttl=seconds, unattended_ttl=seconds, ttl=seconds,
    acquire_timeout=maybe(seconds), max_duration=maybe(seconds), keep_when_holder_lost=st.booleans(),
)  # fmt: skip
attachments = st.builds(
    Attachment,
    id=text, generation=counts, session_id=st.just("secret-session"), holder=text, attached_at=walls,
    deadline=seconds, renewed_epoch=counts,
)  # fmt: skip
timings = st.builds(
    Timings,
    queued=walls, admitted=maybe(walls), pod_scheduled=maybe(walls), sandbox_ready=maybe(walls),
    process_started=maybe(walls), port_open=maybe(walls), ready=maybe(walls),
    releasing=maybe(walls), ended=maybe(walls),
)  # fmt: skip
exits = st.builds(
    DriverExit, exit_code=maybe(st.integers(-128, 255)), signal=text, out_of_memory=st.booleans(), log_tail=texts
)
leases = st.builds(
    Lease,
    id=text, principal=text, key=text, spec=specs, profile_fingerprint=text, pool=text,
    charge=st.dictionaries(text, st.integers(0, 2**63 - 1), max_size=3).map(Resources),
    state=st.sampled_from(LeaseState), reason=st.sampled_from(LeaseReason), message=text,
    outcome=maybe(st.sampled_from(LeaseState)), attempt=counts, driver_id=maybe(text), generation=counts,
    attachments=st.lists(attachments, max_size=2).map(tuple), timings=timings, enqueued=seconds,
    wait_deadline=seconds, renewed_epoch=counts, notice=text, exit=maybe(exits), revision=st.integers(0, 2**63 - 1),
)  # fmt: skip
progresses = st.builds(
    Progress, position=counts, queue_length=counts, reason=st.sampled_from(LeaseReason), message=text
)
seen = st.builds(Executors, wanted=counts, running=counts, pending=counts, message=text)
views = st.builds(LeaseView, lease=leases, progress=maybe(progresses), executors=maybe(seen))


def over_the_wire(message):
    return type(message).FromString(message.SerializeToString())


@given(specs)
def test_a_spec_asked_for_again_is_the_same_request(spec):
    """What GetLease shows can be pasted into AcquireLease."""
    asked = parse.spec_request(over_the_wire(convert.lease_spec(spec)))

    def size(container):
        text_of = convert.container_size(container)
        assert parse_memory(text_of.memory, "memory") == container.memory
        return SizeRequest(cores=container.cores, memory=text_of.memory, memory_overhead=text_of.memory_overhead)

    executors_asked = None
    if spec.executors is not None:
        executors_asked = ExecutorRequest(
            size=size(spec.executors.size), min_count=spec.executors.min_count, max_count=spec.executors.max_count
        )
    durations = ("wait_ttl", "unattended_ttl", "ttl", "acquire_timeout", "max_duration")
    for name in durations:
        asked_for, given_ = getattr(asked, name), getattr(spec, name)
        assert (asked_for is None) == (given_ is None)
        assert asked_for is None or math.isclose(asked_for, given_, abs_tol=1e-6)
    unset = dict.fromkeys(durations)
    assert msgspec.structs.replace(asked, **unset) == SpecRequest(
        profile=spec.profile, queue=spec.queue, mode=spec.mode, sharing=spec.sharing, driver=size(spec.driver),
        executors=executors_asked, conf=spec.conf, packages=spec.packages, jars=spec.jars, pod=spec.pod,
        holder_pod=spec.holder_pod,
        priority=spec.priority, labels=spec.labels, keep_when_holder_lost=spec.keep_when_holder_lost,
    )  # fmt: skip


@given(views)
def test_a_lease_is_told_in_full(view):
    value, told = view.lease, over_the_wire(showing.lease(view))
    assert told.name == f"leases/{value.id}"
    assert (told.key, told.principal, told.message, told.notice) == (
        value.key, value.principal, value.message, value.notice,
    )  # fmt: skip
    assert told.spec == convert.lease_spec(value.spec)
    assert pb.LeaseState.Name(told.state) == f"LEASE_STATE_{value.state}"
    assert pb.LeaseReason.Name(told.reason) == f"LEASE_REASON_{value.reason}"
    releasing = value.state is LeaseState.RELEASING and value.outcome is not None
    assert pb.LeaseState.Name(told.outcome) == f"LEASE_STATE_{value.outcome if releasing else 'UNSPECIFIED'}"
    assert told.driver == ("" if value.driver_id is None else f"drivers/{value.driver_id}")
    assert dict(told.charge) == value.charge.quantities
    assert (told.attempt, told.generation, told.revision) == (value.attempt, value.generation, value.revision)
    assert [(a.id, a.generation, a.holder) for a in told.attachments] == [
        (a.id, a.generation, a.holder) for a in value.attachments
    ]
    assert b"secret-session" not in told.SerializeToString()
    for name, wall in msgspec.structs.asdict(value.timings).items():
        field = "end_time" if name == "ended" else f"{name}_time"
        assert told.timings.HasField(field) == (wall is not None)
        if wall is not None:
            assert math.isclose(getattr(told.timings, field).ToNanoseconds() / 1e9, wall, abs_tol=1e-6)
    assert told.HasField("progress") == (view.progress is not None)
    assert told.HasField("executors") == (view.executors is not None)
    if view.executors is not None:
        shown = told.executors
        assert (shown.wanted, shown.running, shown.pending, shown.message) == msgspec.structs.astuple(view.executors)
    assert told.HasField("exit") == (value.exit is not None)
    if value.exit is not None:
        assert told.exit.HasField("exit_code") == (value.exit.exit_code is not None)
        assert tuple(told.exit.log_tail) == value.exit.log_tail


@given(views)
def test_two_messages_of_one_lease_share_nothing(view):
    first = showing.lease(view)
    told = over_the_wire(first)
    first.spec.profile += "x"
    first.charge["cpu"] = -1
    assert showing.lease(view) == told


def test_leases_of_other_specs_do_not_crowd_out_memory():
    for number in range(2 * showing.MAX_TEMPLATES):
        spec = LeaseSpec(profile=str(number), queue="q", driver=ContainerSize(cores=1, memory=MIB))
        showing._templates.new(_lease(spec))
    spec = LeaseSpec(profile="x" * showing.MAX_TEMPLATE_BYTES, queue="q", driver=ContainerSize(cores=1, memory=MIB))
    assert showing._templates.new(_lease(spec)).spec.profile == spec.profile
    assert len(showing._templates._by_content) == showing.MAX_TEMPLATES
    assert all(len(content) <= showing.MAX_TEMPLATE_BYTES for content in showing._templates._by_content)


def _lease(spec):
    make: Any = Lease
    wall: Any = 0.0
    return make(
        id="l", principal="p", spec=spec, profile_fingerprint="", pool="", charge=Resources(),
        timings=Timings(queued=wall), enqueued=0.0, wait_deadline=0.0, renewed_epoch=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "proto", "prefix", "unsaid"),
    [
        (LeaseState, pb.LeaseState, "LEASE_STATE_", {"UNSPECIFIED"}),
        (LeaseReason, pb.LeaseReason, "LEASE_REASON_", set()),
        (LeaseMode, pb.LeaseMode, "LEASE_MODE_", {"UNSPECIFIED"}),
        (LeaseSharing, pb.LeaseSharing, "LEASE_SHARING_", {"UNSPECIFIED"}),
        (OnExisting, pb.OnExisting, "ON_EXISTING_", {"UNSPECIFIED"}),
        (EventType, pb.LeaseEventType, "LEASE_EVENT_TYPE_", {"UNSPECIFIED"}),
    ],
)
def test_enums_have_the_names_of_the_protocol(kind, proto, prefix, unsaid):
    assert {name.removeprefix(prefix) for name in proto.DESCRIPTOR.values_by_name} - unsaid == {
        member.name for member in kind
    }


def test_an_event_keeps_its_order_and_place():
    make: Any = LeaseEvent
    number: Any = 9
    value = make(
        revision=9, lease_id="l1", type=EventType.ATTACHED, state=LeaseState.READY, reason=LeaseReason.SERVING,
        message="m", time=1.5, attempt=2, generation=3, principal="p", queue="q", profile="f",
    )  # fmt: skip
    told = showing.watch_update(WatchUpdate(event=value, revision=number))
    assert told.WhichOneof("update") == "event"
    assert (told.event.revision, told.event.lease, told.event.generation, told.event.attempt) == (9, "leases/l1", 3, 2)
    assert told.event.time.ToMilliseconds() == 1500
    assert pb.LeaseEventType.Name(told.event.type) == "LEASE_EVENT_TYPE_ATTACHED"


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_and_nothing_is_lost(data):
    request = reader(pb.AcquireLeaseRequest)(data)
    if isinstance(request, Exception):
        return
    again = pb.AcquireLeaseRequest.FromString(data)
    assert request == again, "reading dropped something that was sent"


@given(specs)
def test_what_our_own_client_sends_is_read(spec):
    sent = pb.AcquireLeaseRequest(request_id="r", spec=convert.lease_spec(spec))
    assert reader(pb.AcquireLeaseRequest)(sent.SerializeToString()) == sent


# -- what is accepted can be stored, loaded and shown

CAPACITY = Resources.of(cores=64, memory=1 << 40)
any_json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(st.characters(codec="utf-8")) | st.just("x" * 70_000),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


def nested(depth, kind):
    value: Any = 1.0
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return {"annotations": {"x": value}}


def accepting(**profile):
    size = ContainerSize(cores=1, memory=1 << 30)
    defaults = LeaseSpec(profile="p", queue="q", driver=size)
    return Catalogue(
        profiles={"p": Profile(name="p", defaults=defaults, allowed_pod=("*",), **profile)},
        queues={"q": Queue(name="q", nominal=CAPACITY)},
        pools={"local": CAPACITY},
        default_profile="p",
        default_queue="q",
        show=showing.prove,
    )


CATALOGUES = (accepting(), accepting(provisioner="kubernetes"))


@example({"annotations": {"x": 1e300}})
@example({"annotations": {"x": -(2.0**63)}})
@example({"annotations": {"x": 2.0**53 + 2}})
@example({"driver_template": {"spec": {"x": 1e300, "y": math.nan}}})
@example({"x": {"y": math.inf, "\0": "\0"}})
@example(nested(30, dict))
@example(nested(20, dict))
@example(nested(45, list))
@example(nested(23, list))
@given(st.dictionaries(st.sampled_from(["annotations", "driver_template", "volumes", "a"]), any_json, max_size=3))
def test_whatever_pod_is_accepted_can_be_stored_loaded_shown_and_asked_for_again(pod):
    asked = pb.LeaseSpec()
    asked.pod.update(pod)
    for catalogue in CATALOGUES:
        try:
            request = parse.spec_request(over_the_wire(asked))
            resolved = catalogue.resolve(Caller(Principal("ann")), request)
        except InvalidField:
            continue
        value = lease_with(resolved.spec)
        stored = StoredRow(RowKind.LEASE, "l", Revision(1), records.encode(value))
        assert records.decode_lease(stored) == value
        shown = over_the_wire(pb.WatchLeaseResponse(snapshot=showing.lease(LeaseView(value)))).snapshot
        assert shown.spec.pod == asked.pod
        assert parse.spec_request(shown.spec).pod == request.pod


def lease_with(spec, **changes):
    return Lease(
        id=LeaseId("l"), principal=Principal("ann"), spec=spec, profile_fingerprint="f", pool="local",
        charge=Resources.of(cores=1, memory=1), timings=Timings(queued=WallTime(1.0)), enqueued=ServingTime(0.0),
        wait_deadline=ServingTime(1.0), renewed_epoch=Epoch(1), **changes,
    )  # fmt: skip


@pytest.mark.parametrize("changes", [
    {"spec": {"pod": {"x": 10**300}}}, {"spec": {"pod": nested(60, dict)}}, {"spec": {"labels": {"x": "\ud800"}}},
    {"spec": {"priority": 2**40}}, {"lease": {"message": "\ud800"}}, {"lease": {"charge": Resources({"cpu": 2**70})}},
])  # fmt: skip
def test_a_lease_that_can_not_be_shown_costs_its_page_nothing_else_and_is_logged_once(changes):
    spec = LeaseSpec(profile="p", queue="q", driver=ContainerSize(cores=1, memory=1 << 30), **changes.get("spec", {}))
    fine = lease_with(LeaseSpec(profile="p", queue="q", driver=ContainerSize(cores=1, memory=1 << 30)))
    poisoned = msgspec.structs.replace(fine, spec=spec, id=LeaseId(str(changes)[:20]), **changes.get("lease", {}))
    with capture_logs() as told:
        for _ in range(2):
            views = [LeaseView(fine), LeaseView(poisoned), LeaseView(fine)]
            page = over_the_wire(pb.ListLeasesResponse(leases=[showing.lease(view) for view in views]))
    assert page.leases[0] == page.leases[2] == showing.lease(LeaseView(fine))
    shown = page.leases[1]
    assert (shown.name, shown.principal, shown.state) == (f"leases/{poisoned.id}", "ann", pb.LEASE_STATE_QUEUED)
    assert shown.message.startswith("this lease can't be shown whole")
    assert [entry["event"] for entry in told] == ["rpc.unshowable"]


def test_a_queue_in_which_more_runs_than_fits_into_a_number_is_shown():
    view = QueueView(
        name="q", nominal=Resources({"cpu": 4000}), used=Resources({"cpu": 2**63, "memory": 2**70}), queued=0, admitted=2,
        priority_step=Seconds(60.0), priorities=(-5, 5), blocking_message="",
    )  # fmt: skip
    assert dict(over_the_wire(convert.queue(view)).used) == {"cpu": 2**63 - 1, "memory": 2**63 - 1}


def test_an_event_that_can_not_be_shown_is_told_without_its_message():
    event = LeaseEvent(
        revision=Revision(5), lease_id=LeaseId("l"), type=EventType.STATE, state=LeaseState.FAILED,
        reason=LeaseReason.START_FAILED, message="\ud800", time=WallTime(1.0), attempt=1, principal="ann", queue="q",
        profile="p",
    )  # fmt: skip
    shown = over_the_wire(showing.watch_update(WatchUpdate(event=event, revision=Revision(5)))).event
    assert (shown.revision, shown.lease, shown.state) == (5, "leases/l", pb.LEASE_STATE_FAILED)
    assert shown.message.startswith("the message of this event can't be shown")
