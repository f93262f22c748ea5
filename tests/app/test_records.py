"""Values to JSON and back; what doesn't fit is named."""

import msgspec
import pytest

from sparkbroker.broker.app import records
from sparkbroker.broker.app.records import RequestResult
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.lease.driver import Driver, DriverExit
from sparkbroker.broker.domain.lease.event import EventType, LeaseEvent
from sparkbroker.broker.domain.lease.lease import (
    Attachment,
    ContainerSize,
    ExecutorSpec,
    Lease,
    LeaseReason,
    LeaseSpec,
    LeaseState,
)
from sparkbroker.broker.domain.lease.timings import Timings
from sparkbroker.broker.domain.units import (
    DriverId,
    Epoch,
    Generation,
    LeaseId,
    Principal,
    Revision,
    ServingTime,
    WallTime,
)
from sparkbroker.broker.ports.store import EventRecord, RequestRecord, RowKind, StoredRow, StoreUnusable

SPEC = LeaseSpec(
    profile="small",
    queue="etl",
    driver=ContainerSize(cores=2, memory=2**31),
    executors=ExecutorSpec(size=ContainerSize(cores=1, memory=2**30, overhead=0), min_count=0, max_count=3),
    conf={"spark.sql.shuffle.partitions": "8", "é": "🔥"},
    packages=("a:b:1",),
    labels={"dag": "x"},
)
EXIT = DriverExit(signal="SIGKILL", out_of_memory=True, log_tail=("last", "words"))
LEASE = Lease(
    id=LeaseId("l1"),
    principal=Principal("ann"),
    spec=SPEC,
    profile_fingerprint="f" * 16,
    pool="local",
    charge=Resources.of(cores=2.5, memory=2**50),
    state=LeaseState.RELEASING,
    reason=LeaseReason.OUT_OF_MEMORY,
    outcome=LeaseState.FAILED,
    driver_id=DriverId("d1"),
    attachments=(
        Attachment(
            id="a", generation=Generation(2), session_id="s", attached_at=WallTime(1763718000.1234567),
            deadline=ServingTime(0.1 + 0.2), renewed_epoch=Epoch(3),
        ),
    ),
    timings=Timings(queued=WallTime(1763718000.1234567), pod_scheduled=WallTime(1763718001.0)),
    enqueued=ServingTime(1.0),
    wait_deadline=ServingTime(301.0),
    renewed_epoch=Epoch(3),
    exit=EXIT,
    revision=Revision(2**62),
)  # fmt: skip
DRIVER = Driver(
    id=DriverId("d1"),
    lease_id=LeaseId("l1"),
    provisioner="local",
    profile_fingerprint="f" * 16,
    queue="etl",
    pool="local",
    target=Resources.of(cores=2, memory=2**31),
    handle={"pid": 12, "started": 0.5, "boot_id": "b"},
    created=WallTime(1.5),
    start_deadline=ServingTime(121.0),
    exit=EXIT,
)
PROFILE = Profile(name="small", defaults=SPEC)
EVENT = LeaseEvent(
    revision=Revision(7), lease_id=LeaseId("l1"), type=EventType.STATE, state=LeaseState.READY,
    reason=LeaseReason.SERVING, message="", time=WallTime(1.5), attempt=1, principal="ann", queue="etl",
    profile="small", labels={"dag": "x"},
)  # fmt: skip
ANSWER = RequestResult(
    kind="attach", fingerprint="abc", lease_id=LeaseId("l1"), generation=Generation(2), created=WallTime(1.5)
)


def row(kind: RowKind, name: str, body: bytes) -> StoredRow:
    return StoredRow(kind, name, Revision(9), body)


def test_every_kind_comes_back_equal():
    assert records.decode_lease(row(RowKind.LEASE, "l1", records.encode(LEASE))) == LEASE
    assert records.decode_driver(row(RowKind.DRIVER, "d1", records.encode(DRIVER))) == DRIVER
    assert records.decode_profile(row(RowKind.PROFILE, "f", records.encode(PROFILE))) == PROFILE
    assert records.decode_event(EventRecord(Revision(7), "l1", records.encode(EVENT))) == EVENT
    assert records.decode_request(RequestRecord("ann", "r", WallTime(1.5), records.encode(ANSWER))) == ANSWER


def test_a_hindrance_that_an_earlier_version_stored_is_shown_once():
    now = msgspec.structs.replace(LEASE, message="ended", hindrance="no rights")
    assert now.full_message == "ended; no rights"
    then = msgspec.structs.replace(now, message="ended; no rights", hindrance="; no rights")
    assert records.decode_lease(row(RowKind.LEASE, "l1", records.encode(then))) == now


def test_numbers_of_a_handle_keep_their_kind():
    handle = records.decode_driver(row(RowKind.DRIVER, "d1", records.encode(DRIVER))).handle
    assert [type(value) for value in handle.values()] == [int, float, str]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", b"\xff\xfe", records.encode(LEASE).replace(b'"RELEASING"', b'"GONE"'), b"\0" * 100],
)
def test_an_unreadable_row_is_named(body):
    with pytest.raises(StoreUnusable, match=r"the row of lease l1 \(revision 9\) can't be read: .*restore") as caught:
        records.decode_lease(row(RowKind.LEASE, "l1", body))
    assert caught.value.__cause__ is not None


def test_what_lies_under_another_s_id_is_refused():
    with pytest.raises(StoreUnusable, match=r"lease l2 .* it holds lease l1"):
        records.decode_lease(row(RowKind.LEASE, "l2", records.encode(LEASE)))
    with pytest.raises(StoreUnusable, match=r"driver d2 .* it holds driver d1"):
        records.decode_driver(row(RowKind.DRIVER, "d2", records.encode(DRIVER)))
    with pytest.raises(StoreUnusable, match=r"revision 8 .* it holds revision 7"):
        records.decode_event(EventRecord(Revision(8), "l1", records.encode(EVENT)))


def test_unreadable_profiles_events_and_answers_are_named():
    with pytest.raises(StoreUnusable, match="the row of profile f "):
        records.decode_profile(row(RowKind.PROFILE, "f", b"1"))
    with pytest.raises(StoreUnusable, match=r"the event of revision 7 \(lease l1\)"):
        records.decode_event(EventRecord(Revision(7), "l1", b"1"))
    with pytest.raises(StoreUnusable, match=r"the stored answer of request r \(principal ann\)"):
        records.decode_request(RequestRecord("ann", "r", WallTime(1.5), b"1"))
    with pytest.raises(ValueError, match="it deletes"):
        records.decode_request(RequestRecord("ann", "r", WallTime(1.5), None))


def test_what_json_cannot_hold_fails_where_it_is_encoded():
    endless = msgspec.structs.replace(SPEC, max_duration=float("inf"))
    for change in ({"wait_deadline": float("nan")}, {"spec": endless}):
        with pytest.raises(ValueError, match="not finite"):
            records.encode(msgspec.structs.replace(LEASE, **change))
    with pytest.raises(ValueError, match="surrogates"):
        records.prove_spec(msgspec.structs.replace(SPEC, labels={"x": "\ud800"}))


def test_what_is_no_text_is_escaped_and_all_else_is_as_it_was():
    lease = msgspec.structs.replace(LEASE, message="\udcff, \\udcff and é\0🔥", notice="\ud83d")
    expected = msgspec.structs.replace(lease, message=r"\udcff, \udcff and é" "\0🔥", notice=r"\ud83d")
    assert records.decode_lease(row(RowKind.LEASE, "l1", records.encode(lease))) == expected
    assert DriverExit(signal="\udcff", log_tail=("é", "\udcff")) == DriverExit(
        signal=r"\udcff", log_tail=("é", r"\udcff")
    )


def test_numbers_beyond_64_bits_come_back():
    large = msgspec.structs.replace(LEASE, charge=Resources({"cpu": 2**63, "memory": 2**70}))
    assert records.decode_lease(row(RowKind.LEASE, "l1", records.encode(large))) == large
