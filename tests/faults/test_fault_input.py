"""Bad input over the real wire: each gets its code, its reason and the name of what was wrong; the broker serves on."""

import uuid
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from sparkbroker.v1 import broker_pb2 as pb

INVALID = grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
NOT_FOUND = grpc.StatusCode.NOT_FOUND
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
METHODS = [
    "AcquireLease", "GetLease", "ListLeases", "WatchLease", "WatchLeases", "AttachLease", "RenewLease", "ReleaseLease",
    "GetConnection", "StreamLogs", "ListQueues", "ListProfiles",
]  # fmt: skip


@pytest.fixture(scope="module")
def served(module_broker) -> Any:
    return module_broker


@pytest.fixture(autouse=True)
def serves_on(served):
    """After each of these the broker takes a lease and gives it back, and is the same process."""
    pid = served.pid
    yield
    assert served.process.poll() is None
    lease = served.acquire(mode=pb.LEASE_MODE_LOCAL)
    assert served.release(lease.name).state == pb.LEASE_STATE_RELEASED
    assert served.pid == pid
    assert "Traceback" not in served.said()


def driver(**size: Any) -> dict[str, Any]:
    return {"driver": pb.ContainerSize(**size)}


def executors(**asked: Any) -> dict[str, Any]:
    return {"executors": pb.ExecutorSpec(**asked)}


BAD_SPECS: dict[str, tuple[dict[str, Any], grpc.StatusCode, str, str]] = {
    "unknown profile": ({"profile": "nope"}, NOT_FOUND, "NOT_FOUND", "spec.profile"),
    "long profile": ({"profile": "x" * 1000}, NOT_FOUND, "NOT_FOUND", "spec.profile"),
    "unknown queue": ({"queue": "nope"}, NOT_FOUND, "NOT_FOUND", "spec.queue"),
    "unknown mode": ({"mode": 77}, INVALID, "INVALID_FIELD", "spec.mode"),
    "unknown sharing": ({"sharing": 77}, INVALID, "INVALID_FIELD", "spec.sharing"),
    "local and shared": (
        {"mode": pb.LEASE_MODE_LOCAL, "sharing": pb.LEASE_SHARING_SHARED}, INVALID, "INVALID_FIELD", "spec.sharing",
    ),
    "negative cores": (driver(cores=-1), INVALID, "INVALID_FIELD", "spec.driver.cores"),
    "cores beyond the machine": (driver(cores=1000), PRECONDITION, "NEVER_FITS", "cores"),
    "most cores": (driver(cores=2**31 - 1), INVALID, "INVALID_FIELD", "spec.driver.cores"),
    "memory -1": (driver(memory="-1"), INVALID, "INVALID_FIELD", "spec.driver.memory"),
    "memory 1e99": (driver(memory="1e99"), INVALID, "INVALID_FIELD", "spec.driver.memory"),
    "memory 2gg": (driver(memory="2gg"), INVALID, "INVALID_FIELD", "spec.driver.memory"),
    "memory 2^63": (driver(memory=str(2**63)), INVALID, "INVALID_FIELD", "spec.driver.memory"),
    "memory 2^63 k": (driver(memory=f"{2**63}k"), INVALID, "INVALID_FIELD", "spec.driver.memory"),
    "memory NaN": (driver(memory="NaN"), INVALID, "INVALID_FIELD", "spec.driver.memory"),
    "memory inf": (driver(memory="inf"), INVALID, "INVALID_FIELD", "spec.driver.memory"),
    "memory of blanks": (driver(memory=" "), INVALID, "INVALID_FIELD", "spec.driver.memory"),
    "memory 0": (driver(memory="0"), INVALID, "INVALID_FIELD", "spec.driver.memory"),
    "memory with a fraction": (driver(memory="1.5g"), INVALID, "INVALID_FIELD", "spec.driver.memory"),
    "memory in other digits": (driver(memory="٢g"), INVALID, "INVALID_FIELD", "spec.driver.memory"),
    "memory of many digits": (driver(memory="9" * 5000), INVALID, "INVALID_FIELD", "spec.driver.memory"),
    "memory that the machine lacks": (driver(memory="900g"), PRECONDITION, "NEVER_FITS", "memory"),
    "overhead 2gg": (driver(memory_overhead="2gg"), INVALID, "INVALID_FIELD", "spec.driver.memory_overhead"),
    "executor memory": (
        executors(size=pb.ContainerSize(memory="x"), max_count=1), INVALID, "INVALID_FIELD", "spec.executors.size.memory",
    ),
    "executors -1": (executors(max_count=-1), INVALID, "INVALID_FIELD", "spec.executors.max_count"),
    "executors max < min": (executors(min_count=3, max_count=2), INVALID, "INVALID_FIELD", "spec.executors.max_count"),
    "executors 2^31-1": (executors(max_count=2**31 - 1), INVALID, "INVALID_FIELD", "spec.executors.max_count"),
    "conf that is the broker's": ({"conf": {"spark.master": "yarn"}}, INVALID, "INVALID_FIELD", "spec.conf"),
    "conf that isn't allowed": ({"conf": {"spark.plugins": "x.Y"}}, INVALID, "INVALID_FIELD", "spec.conf"),
    "conf that isn't Spark's": ({"conf": {"foo": "bar"}}, INVALID, "INVALID_FIELD", "spec.conf"),
    "conf with ${": ({"conf": {"spark.app.name": "${env:HOME}"}}, INVALID, "INVALID_FIELD", "spec.conf"),
    "conf of 100 kB": ({"conf": {"spark.app.name": "x" * 100_000}}, INVALID, "INVALID_FIELD", "spec.conf"),
    "conf of 10 MB": ({"conf": {"spark.app.name": "x" * 10_000_000}}, EXHAUSTED, "", "larger than max"),
    "10,000 labels": ({"labels": {f"k{n}": "v" for n in range(10_000)}}, INVALID, "INVALID_FIELD", "spec.labels"),
    "a label's bad key": ({"labels": {"a b": "v"}}, INVALID, "INVALID_FIELD", "spec.labels"),
    "an empty label key": ({"labels": {"": "v"}}, INVALID, "INVALID_FIELD", "spec.labels"),
    "a label's long value": ({"labels": {"a": "v" * 1000}}, INVALID, "INVALID_FIELD", "spec.labels.a"),
    "a label with a line break": ({"labels": {"a": "v\nw"}}, INVALID, "INVALID_FIELD", "spec.labels.a"),
    "priority": ({"priority": 2**31 - 1}, INVALID, "INVALID_FIELD", "spec.priority"),
    "a package": ({"packages": ["nonsense"]}, INVALID, "INVALID_FIELD", "spec.packages"),
    "a jar": ({"jars": ["relative.jar"]}, INVALID, "INVALID_FIELD", "spec.jars"),
    "1,000 packages": ({"packages": [f"a:b:{n}" for n in range(1000)]}, INVALID, "INVALID_FIELD", "spec.packages"),
    "ttl 0": ({"ttl": Duration()}, INVALID, "INVALID_FIELD", "spec.ttl"),
    "ttl -1": ({"ttl": Duration(seconds=-1)}, INVALID, "INVALID_FIELD", "spec.ttl"),
    "ttl 2^63-1": ({"ttl": Duration(seconds=2**63 - 1)}, INVALID, "INVALID_FIELD", "spec.ttl"),
    "ttl of bad nanos": ({"ttl": Duration(seconds=5, nanos=2**31 - 1)}, INVALID, "INVALID_FIELD", "spec.ttl"),
    "wait_ttl": ({"wait_ttl": Duration(seconds=10**9)}, INVALID, "INVALID_FIELD", "spec.wait_ttl"),
    "unattended_ttl": ({"unattended_ttl": Duration(nanos=1)}, INVALID, "INVALID_FIELD", "spec.unattended_ttl"),
    "acquire_timeout": ({"acquire_timeout": Duration()}, INVALID, "INVALID_FIELD", "spec.acquire_timeout"),
    "max_duration": ({"max_duration": Duration(seconds=10**10)}, INVALID, "INVALID_FIELD", "spec.max_duration"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_SPECS)
def test_a_spec(served, tools, case):
    spec, code, reason, named = BAD_SPECS[case]
    refusal = tools.refused(lambda: served.acquire(**spec))
    assert (refusal.code, refusal.reason) == (code, reason), refusal
    assert named in refusal.message
    assert len(refusal.message) <= 1024
    assert not served.used()


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.AcquireLeaseRequest(request_id="not-a-uuid"), "request_id"),
        (pb.AcquireLeaseRequest(request_id="x" * 100_000), "request_id"),
        (pb.AcquireLeaseRequest(request_id=str(uuid.UUID(int=0))), "request_id"),
        (pb.AcquireLeaseRequest(lease_key="k" * 300), "lease_key"),
        (pb.AcquireLeaseRequest(lease_key="a\0b"), "lease_key"),
        (pb.AcquireLeaseRequest(on_existing=9), "on_existing"),  # type: ignore[arg-type]
    ],
)
def test_the_rest_of_an_acquire(served, tools, request_, field):
    refusal = tools.refused(lambda: served.stub.AcquireLease(request_, timeout=10))
    assert (refusal.code, refusal.reason) == (INVALID, "INVALID_FIELD"), refusal
    assert refusal.message.startswith(field)
    assert refusal.metadata["field"] == field


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"filter": "state=RUNNING"}, "RUNNING"),
        ({"filter": "colour=red"}, "colour"),
        ({"filter": "live=maybe"}, "live"),
        ({"filter": "state=READY OR live=true"}, "filter"),
        ({"filter": "state="}, "filter"),
        ({"filter": "x" * 5000}, "filter"),
        ({"filter": " AND ".join(["live=true"] * 50)}, "filter"),
        ({"order_by": "priority"}, "order_by"),
        ({"page_size": -1}, "page_size"),
        ({"page_size": 2**31 - 1}, "page_size"),
        ({"page_token": "forged"}, "page_token"),
        ({"page_token": "é" * 50}, "page_token"),
        ({"page_token": "A" * 100_000}, "page_token"),
    ],
)
def test_a_list(served, tools, fields, named):
    refusal = tools.refused(lambda: served.stub.ListLeases(pb.ListLeasesRequest(**fields), timeout=10))
    assert (refusal.code, refusal.reason) == (INVALID, "INVALID_FIELD"), refusal
    assert named in refusal.message
    assert refusal.metadata["field"] == next(iter(fields))


def test_a_page_token_continues_only_its_own_query(served, tools):
    names = [served.acquire(mode=pb.LEASE_MODE_LOCAL).name for _ in range(3)]
    first = served.stub.ListLeases(pb.ListLeasesRequest(page_size=1), timeout=10)
    token = first.next_page_token
    changed = token[:-2] + ("A" if token[-2] != "A" else "B") + token[-1]
    for request in (
        pb.ListLeasesRequest(page_size=1, page_token=changed),
        pb.ListLeasesRequest(page_size=1, page_token=token, filter="live=true"),
        pb.ListLeasesRequest(page_size=1, page_token=token, order_by="create_time"),
    ):
        refusal = tools.refused(lambda request=request: served.stub.ListLeases(request, timeout=10))
        assert (refusal.code, refusal.reason, refusal.metadata["field"]) == (INVALID, "INVALID_FIELD", "page_token")
    for method in (served.stub.ListQueues, served.stub.ListProfiles):
        kind = pb.ListQueuesRequest if method is not served.stub.ListProfiles else pb.ListProfilesRequest
        refusal = tools.refused(lambda method=method, kind=kind: method(kind(page_token=token), timeout=10))
        assert (refusal.code, refusal.metadata["field"]) == (INVALID, "page_token")
    assert served.stub.ListLeases(pb.ListLeasesRequest(page_size=1, page_token=token), timeout=10).leases
    for name in names:
        served.release(name)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "data", [b"\xff" * 20, b"\x0a\xff", b"\x08", bytes(range(256))], ids=["ff", "cut", "tag", "all"]
)
def test_malformed_protobuf(served, tools, method, data):
    if method in {"WatchLease", "WatchLeases", "StreamLogs"}:
        call = served.channel().unary_stream(f"/sparkbroker.v1.BrokerService/{method}")
        refusal = tools.refused(lambda: list(call(data, timeout=10)))
    else:
        refusal = tools.refused(lambda: served.raw(method, data))
    assert refusal.code is INVALID, refusal
    assert refusal.reason == "MALFORMED_REQUEST"
    assert method in refusal.message


def test_malformed_protobuf_in_a_keepalive(served, tools):
    call = served.channel().stream_stream("/sparkbroker.v1.BrokerService/KeepAlive")
    refusal = tools.refused(lambda: list(call(iter([b"\xff" * 20]), timeout=10)))
    assert (refusal.code, refusal.reason) == (INVALID, "MALFORMED_REQUEST")


def test_an_unknown_field(served, tools):
    """Field 99 of the spec's driver, a varint."""
    size = b"\x98\x06\x01"
    spec = b"\x2a" + bytes([len(size)]) + size
    refusal = tools.refused(lambda: served.raw("AcquireLease", b"\x22" + bytes([len(spec)]) + spec))
    assert (refusal.code, refusal.reason) == (INVALID, "INVALID_FIELD"), refusal
    assert refusal.metadata["field"] == "spec.driver.#99"


def test_an_unknown_method(served, tools):
    refusal = tools.refused(lambda: served.raw("StealLease", b""))
    assert refusal.code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.promise(8)
def test_a_request_id_for_another_spec(served, tools):
    request_id = str(uuid.uuid4())
    lease = served.acquire(request_id=request_id, mode=pb.LEASE_MODE_LOCAL)
    for other in ({"mode": pb.LEASE_MODE_CONNECT}, {"mode": pb.LEASE_MODE_LOCAL, "key": "k"}):
        refusal = tools.refused(lambda other=other: served.acquire(request_id=request_id, **other))
        assert (refusal.code, refusal.reason) == (INVALID, "REQUEST_ID_REUSED"), refusal
        assert refusal.metadata["field"] == "request_id"
    refusal = tools.refused(lambda: served.attach(lease.name, request_id=request_id))
    assert (refusal.code, refusal.reason) == (INVALID, "REQUEST_ID_REUSED"), refusal
    assert served.acquire(request_id=request_id.upper(), mode=pb.LEASE_MODE_LOCAL).name == lease.name
    served.release(lease.name)


@pytest.mark.promise(8)
def test_a_request_id_replayed_late(served, tools):
    """After its lease was released, and replaced by another of the same key: the first answer, and nothing new."""
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    old = served.acquire("late", first, mode=pb.LEASE_MODE_LOCAL)
    attach_id = str(uuid.uuid4())
    generation = served.attach(old.name, attach_id)
    assert served.attach(old.name, attach_id) == generation
    newer = served.attach(old.name)
    refusal = tools.refused(lambda: served.attach(old.name, attach_id))
    assert (refusal.code, refusal.reason) == (PRECONDITION, "STALE_GENERATION"), refusal
    assert served.renew(old.name, newer).state == pb.LEASE_STATE_READY, "the late duplicate stole the lease back"
    new = served.acquire("late", second, pb.ON_EXISTING_REPLACE, mode=pb.LEASE_MODE_LOCAL)
    again = served.acquire("late", first, mode=pb.LEASE_MODE_LOCAL)
    assert (again.name, again.state) == (old.name, pb.LEASE_STATE_RELEASED)
    assert served.get(new.name).state == pb.LEASE_STATE_READY
    served.release(new.name)


def calls(name: str, generation: int) -> dict[str, tuple[str, Any]]:
    return {
        "GetLease": ("GetLease", pb.GetLeaseRequest(name=name)),
        "WatchLease": ("WatchLease", pb.WatchLeaseRequest(name=name)),
        "AttachLease": ("AttachLease", pb.AttachLeaseRequest(name=name, request_id=str(uuid.uuid4()))),
        "RenewLease": ("RenewLease", pb.RenewLeaseRequest(name=name, generation=generation)),
        "ReleaseLease": ("ReleaseLease", pb.ReleaseLeaseRequest(name=name, generation=generation)),
        "GetConnection": ("GetConnection", pb.GetConnectionRequest(name=name, generation=generation)),
        "StreamLogs": ("StreamLogs", pb.StreamLogsRequest(name=name)),
        "KeepAlive": (
            "KeepAlive",
            pb.KeepAliveRequest(renewals=[pb.Renewal(name=name, generation=generation)]),
        ),
    }


def outcome(served, tools, method, request) -> Any:
    """How a call ends: (code, reason, message), code OK if it is answered. KeepAlive tells in its answer."""
    stub = getattr(served.stub, method)
    try:
        if method in {"WatchLease", "StreamLogs"}:
            list(stub(request, timeout=10))
        elif method == "KeepAlive":
            result = next(stub(iter([request]), timeout=10)).results[0]
            codes = {code.value[0]: code for code in grpc.StatusCode}
            return SimpleNamespace(code=codes[result.code], reason=result.error_reason, message=result.message)
        else:
            stub(request, timeout=10)
    except grpc.RpcError as error:
        failed = error
        return tools.refused(lambda: (_ for _ in ()).throw(failed))
    return SimpleNamespace(code=grpc.StatusCode.OK, reason="", message="")


@pytest.mark.parametrize("method", calls("", 0))
@pytest.mark.parametrize(
    "name", ["leases/0000000000aaaaaaaaaaaaaaaa", "nonsense", "", "leases/../etc", "leases/" + "x" * 999]
)
def test_a_lease_that_never_existed(served, tools, method, name):
    ended = outcome(served, tools, *calls(name, 1)[method])
    if name.startswith("leases/0"):
        assert (ended.code, ended.reason) == (NOT_FOUND, "NOT_FOUND"), ended
        assert name in ended.message
    else:
        assert (ended.code, ended.reason) == (INVALID, "INVALID_FIELD"), ended
        assert ended.message.startswith("name")


@pytest.mark.parametrize("how", ["released", "expired"])
@pytest.mark.parametrize("method", calls("", 0))
@pytest.mark.promise(2)
def test_a_lease_that_has_ended(served, tools, ended_leases, method, how):
    lease, generation = ended_leases[how]
    ended = outcome(served, tools, *calls(lease.name, generation)[method])
    if method in {"GetLease", "WatchLease", "ReleaseLease", "StreamLogs"}:
        assert ended.code is grpc.StatusCode.OK, ended
    else:
        assert (ended.code, ended.reason) == (PRECONDITION, "LEASE_ENDED"), ended
        assert lease.name in ended.message
        assert how.upper() in ended.message.upper()
    assert served.get(lease.name).state == lease.state


@pytest.fixture(scope="module")
def ended_leases(served) -> Any:
    released = served.acquire(mode=pb.LEASE_MODE_LOCAL)
    old = served.attach(released.name)
    served.release(released.name)
    expired = served.acquire(mode=pb.LEASE_MODE_LOCAL, ttl=Duration(seconds=1))
    gone = served.attach(expired.name)
    after = served.until_ended(expired.name)
    assert (after.state, after.reason) == (pb.LEASE_STATE_EXPIRED, pb.LEASE_REASON_HOLDER_LOST)
    return {"released": (served.get(released.name), old), "expired": (after, gone)}


@pytest.mark.parametrize("method", ["RenewLease", "ReleaseLease", "GetConnection", "KeepAlive"])
@pytest.mark.promise(2)
def test_an_old_generation(served, tools, method):
    lease = served.acquire(mode=pb.LEASE_MODE_LOCAL)
    old, new = served.attach(lease.name), served.attach(lease.name)
    ended = outcome(served, tools, *calls(lease.name, old)[method])
    assert (ended.code, ended.reason) == (PRECONDITION, "STALE_GENERATION"), ended
    assert f"generation {old}" in ended.message
    ended = outcome(served, tools, *calls(lease.name, new + 5)[method])
    assert (ended.code, ended.reason) == (INVALID, "INVALID_FIELD"), ended
    ended = outcome(served, tools, *calls(lease.name, -1)[method])
    assert (ended.code, ended.reason) == (INVALID, "INVALID_FIELD"), ended
    assert "generation" in ended.message
    assert served.renew(lease.name, new).state == pb.LEASE_STATE_READY
    served.release(lease.name)


def test_a_connection_before_it_is_ready_or_without_an_attachment(served, tools):
    slow = served.acquire(conf={"spark.small.delay": "600"})
    generation = served.attach(slow.name)
    ended = outcome(served, tools, *calls(slow.name, generation)["GetConnection"])
    assert (ended.code, ended.reason) == (PRECONDITION, "LEASE_NOT_READY"), ended
    ended = outcome(served, tools, *calls(slow.name, 0)["GetConnection"])
    assert (ended.code, ended.reason) == (INVALID, "INVALID_FIELD"), ended
    assert "generation" in ended.message
    served.release(slow.name)
    served.until_ended(slow.name)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (lambda name: pb.StreamLogsRequest(name=name, offset=-1), "offset"),
        (lambda name: pb.StreamLogsRequest(name=name, tail_lines=-1), "tail_lines"),
        (lambda name: pb.StreamLogsRequest(name=name, tail_lines=10**6), "tail_lines"),
        (lambda name: pb.StreamLogsRequest(name=name, tail_lines=1, offset=1), "tail_lines"),
        (lambda name: pb.StreamLogsRequest(name=name, attempt=9), "attempt"),
        (lambda name: pb.WatchLeaseRequest(name=name, after_revision=-1), "after_revision"),
        (lambda name: pb.WatchLeaseRequest(name=name, after_revision=2**62), "after_revision"),
        (lambda _: pb.WatchLeasesRequest(filter="state=READY"), "filter"),
        (lambda _: pb.WatchLeasesRequest(filter="colour=red"), "filter"),
        (lambda _: pb.WatchLeasesRequest(after_revision=2**62), "after_revision"),
    ],
)
def test_a_stream(served, tools, request_, field):
    lease = served.acquire(mode=pb.LEASE_MODE_LOCAL)
    request = request_(lease.name)
    stream = getattr(served.stub, type(request).__name__.removesuffix("Request"))
    refusal = tools.refused(lambda: list(stream(request, timeout=5)))
    assert (refusal.code, refusal.reason) == (INVALID, "INVALID_FIELD"), refusal
    assert refusal.metadata["field"] == field
    served.release(lease.name)


def test_a_keepalive_tells_each_renewal_apart(served):
    lease = served.acquire(mode=pb.LEASE_MODE_LOCAL)
    generation = served.attach(lease.name)
    names = ["", "leases/never", lease.name, "leases/" + "x" * 500]
    request = pb.KeepAliveRequest(renewals=[pb.Renewal(name=name, generation=generation) for name in names])
    answer = next(served.stub.KeepAlive(iter([request]), timeout=10))
    assert [result.error_reason for result in answer.results] == ["INVALID_FIELD", "NOT_FOUND", "", "INVALID_FIELD"]
    served.release(lease.name)


def test_too_many_renewals_at_once(served, tools):
    request = pb.KeepAliveRequest(renewals=[pb.Renewal(name="leases/never", generation=1)] * 1001)
    refusal = tools.refused(lambda: list(served.stub.KeepAlive(iter([request]), timeout=10)))
    assert (refusal.code, refusal.reason, refusal.metadata["field"]) == (INVALID, "INVALID_FIELD", "renewals")
