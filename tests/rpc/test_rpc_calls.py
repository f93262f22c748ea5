"""Each method over a real socket: what it passes on, what it answers, and what it refuses."""

import asyncio
from typing import Any
from uuid import uuid4

import grpc
import pytest

from sparkbroker.broker.app.views import OnExisting
from sparkbroker.broker.domain import errors
from sparkbroker.broker.rpc.limits import Limits
from sparkbroker.v1 import admin_pb2, admin_pb2_grpc
from sparkbroker.v1 import broker_pb2 as pb

EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs lack it
NO_SUCH: Any = 9
PATH = "/sparkbroker.v1.BrokerService/"


async def acquire(stub, **spec):
    return (await stub.AcquireLease(pb.AcquireLeaseRequest(request_id=str(uuid4()), spec=pb.LeaseSpec(**spec)))).lease


async def refused(call, error_of):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_of(caught.value)


async def test_every_method_of_the_protocol_is_answered(serve):
    served = await serve()
    channel = await served.channel()
    services = pb.DESCRIPTOR.services_by_name["BrokerService"], admin_pb2.DESCRIPTOR.services_by_name["AdminService"]
    for method in (method for service in services for method in service.methods):
        make = getattr(
            channel,
            f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}",
        )
        call = make(f"/{method.containing_service.full_name}/{method.name}")
        begun = call(iter([])) if method.client_streaming else call(b"", timeout=5)
        code = await begun.code() if not method.client_streaming else await _code_of_stream(begun)
        assert code is not grpc.StatusCode.UNIMPLEMENTED, method.name
        assert code is not grpc.StatusCode.UNKNOWN, method.name
        assert code is not grpc.StatusCode.INTERNAL, method.name
        begun.cancel()


async def test_what_operators_do(serve, error_of):
    served = await serve()
    lease = await acquire(await served.stub())
    stub = admin_pb2_grpc.AdminServiceStub(await served.channel())
    answer = await stub.ForceRelease(admin_pb2.ForceReleaseRequest(name=lease.name, message="burnt"))
    assert (answer.lease.name, answer.done) == (lease.name, "freed: burnt")
    error = await refused(stub.ForceRelease(admin_pb2.ForceReleaseRequest(name="nope")), error_of)
    assert error.code == "INVALID_ARGUMENT"


async def _code_of_stream(call):
    async for _ in call:
        pass
    return await call.code()


async def test_a_lease_from_acquire_to_release(serve):
    served = await serve()
    stub = await served.stub()
    request_id = str(uuid4())
    answer = await stub.AcquireLease(
        pb.AcquireLeaseRequest(
            request_id=request_id,
            lease_key="a/b",
            on_existing=pb.ON_EXISTING_REPLACE,
            spec=pb.LeaseSpec(profile="big", conf={"spark.x": "1"}),
        )
    )
    ((_, caller, asked),) = served.leases.requests
    assert (caller.principal, caller.operator) == ("ann", True)
    assert (asked["request_id"], asked["key"], asked["on_existing"]) == (request_id, "a/b", OnExisting.REPLACE)
    assert (asked["request"].profile, asked["request"].conf) == ("big", {"spark.x": "1"})
    lease = answer.lease
    assert (lease.name, lease.key, lease.principal, lease.state) == ("leases/l1", "a/b", "ann", pb.LEASE_STATE_READY)
    assert dict(lease.charge) == {"cpu": 1000, "memory": 1 << 30}
    assert (await stub.GetLease(pb.GetLeaseRequest(name=lease.name))).lease == lease

    attached = await stub.AttachLease(pb.AttachLeaseRequest(name=lease.name, request_id=str(uuid4()), holder="me"))
    assert (attached.attachment.generation, attached.attachment.holder, attached.ttl.seconds) == (1, "me", 30)
    assert attached.attachment.attach_time.ToMilliseconds() == 1_700_000_000_500
    assert "secret-session" not in str(attached)
    renewed = await stub.RenewLease(pb.RenewLeaseRequest(name=lease.name, generation=1))
    assert (renewed.state, renewed.ttl.seconds) == (pb.LEASE_STATE_READY, 30)
    connection = await stub.GetConnection(pb.GetConnectionRequest(name=lease.name, generation=1))
    assert connection.connect.headers["authorization"] == "Bearer secret"
    chunks = [chunk async for chunk in stub.StreamLogs(pb.StreamLogsRequest(name=lease.name))]
    assert [(chunk.data, chunk.next_offset) for chunk in chunks] == [(b"hello\n", 6)]
    released = await stub.ReleaseLease(pb.ReleaseLeaseRequest(name=lease.name, generation=1, message="done"))
    assert (released.lease.state, released.lease.message) == (pb.LEASE_STATE_RELEASED, "done")
    assert ("AcquireLease", "OK") in served.metrics.calls


async def test_a_watch_begins_with_the_lease_and_goes_on_with_events(serve, make_event):
    served = await serve()
    stub = await served.stub()
    lease = await acquire(stub)
    watch = stub.WatchLease(pb.WatchLeaseRequest(name=lease.name))
    first = await watch.read()
    assert (first.snapshot, first.revision) == (lease, 1)
    served.leases.updates.put_nowait(make_event(7))
    second = await watch.read()
    assert (second.event.revision, second.event.lease, second.revision) == (7, "leases/l1", 7)
    assert served.server.streams == 1
    served.leases.updates.put_nowait(None)
    assert await watch.read() is EOF
    assert await watch.code() is grpc.StatusCode.OK
    assert served.leases.left == ["watch"]


async def test_a_resumed_watch_is_heard_before_anything_happens(serve):
    served = await serve()
    stub = await served.stub()
    lease = await acquire(stub)
    watch = stub.WatchLease(pb.WatchLeaseRequest(name=lease.name, after_revision=1))
    await watch.initial_metadata()
    assert served.server.streams == 1
    watch.cancel()


async def test_a_watch_of_all_leases_tells_where_it_begins(serve, make_event):
    served = await serve()
    watch = (await served.stub()).WatchLeases(pb.WatchLeasesRequest(filter="queue=etl", after_revision=3))
    first = await watch.read()
    assert (first.HasField("event"), first.revision) == (False, 3)
    served.leases.updates.put_nowait(make_event(4))
    assert (await watch.read()).event.revision == 4
    watch.cancel()


async def test_an_error_in_a_watch_ends_it_with_its_code(serve, error_of):
    served = await serve()
    stub = await served.stub()
    lease = await acquire(stub)
    watch = stub.WatchLease(pb.WatchLeaseRequest(name=lease.name))
    await watch.read()
    served.leases.updates.put_nowait(errors.Compacted("read again"))
    error = await refused(watch.read(), error_of)
    assert (error.code, error.reason) == ("OUT_OF_RANGE", "COMPACTED")


async def test_keepalive_answers_each_renewal_in_order(serve):
    served = await serve()
    stub = await served.stub()
    lease = await acquire(stub)
    await stub.AttachLease(pb.AttachLeaseRequest(name=lease.name))
    call = stub.KeepAlive()
    asked = [("leases/none", 1), (lease.name, 1), (lease.name, 9), ("nonsense", 0), (lease.name, 0), (lease.name, -1)]
    for _ in range(2):
        await call.write(pb.KeepAliveRequest(renewals=[pb.Renewal(name=n, generation=g) for n, g in asked]))
        results = (await call.read()).results
        assert [(result.name, result.generation) for result in results] == asked
        assert [(result.code, result.error_reason) for result in results] == [
            (grpc.StatusCode.NOT_FOUND.value[0], "NOT_FOUND"),
            (0, ""),
            (grpc.StatusCode.FAILED_PRECONDITION.value[0], "STALE_GENERATION"),
            (grpc.StatusCode.INVALID_ARGUMENT.value[0], "INVALID_FIELD"),
            (0, ""),
            (grpc.StatusCode.INVALID_ARGUMENT.value[0], "INVALID_FIELD"),
        ]
        assert results[1].ttl.seconds == 30
        assert "generation 9 is over" in results[2].message
    await call.done_writing()
    assert await call.read() is EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_too_many_renewals_in_one_message_are_refused(serve, error_of):
    call = (await (await serve()).stub()).KeepAlive()
    await call.write(pb.KeepAliveRequest(renewals=[pb.Renewal(name="leases/l1")] * 1001))
    error = await refused(call.read(), error_of)
    assert (error.code, error.fields) == ("INVALID_ARGUMENT", ["renewals"])


async def test_leases_come_in_pages(serve):
    served = await serve()
    stub = await served.stub()
    names = [(await acquire(stub)).name for _ in range(5)]
    found, token = [], ""
    while True:
        page = await stub.ListLeases(pb.ListLeasesRequest(page_size=2, page_token=token))
        found += [lease.name for lease in page.leases]
        assert page.revision == 5
        token = page.next_page_token
        if not token:
            break
    assert found == names[::-1]
    ascending = await stub.ListLeases(pb.ListLeasesRequest(order_by="create_time"))
    assert [lease.name for lease in ascending.leases] == names


async def test_queues_and_profiles_come_in_pages(serve):
    served = await serve()
    stub = await served.stub()
    served.leases.queue_names = ["c", "a", "b"]
    first = await stub.ListQueues(pb.ListQueuesRequest(page_size=2))
    assert [queue.name for queue in first.queues] == ["queues/a", "queues/b"]
    rest = await stub.ListQueues(pb.ListQueuesRequest(page_size=2, page_token=first.next_page_token))
    assert ([queue.name for queue in rest.queues], rest.next_page_token) == (["queues/c"], "")
    profiles = await stub.ListProfiles(pb.ListProfilesRequest())
    assert profiles.profiles[0].name == "profiles/small"
    assert profiles.profiles[0].defaults.driver.memory == "1g"


BAD = [
    ("GetLease", pb.GetLeaseRequest(), "name"),
    ("GetLease", pb.GetLeaseRequest(name="l1"), "name"),
    ("GetLease", pb.GetLeaseRequest(name="leases/"), "name"),
    ("GetLease", pb.GetLeaseRequest(name="leases/../x"), "name"),
    ("GetLease", pb.GetLeaseRequest(name="leases/" + "x" * 65), "name"),
    ("GetLease", pb.GetLeaseRequest(name="leases/a\n"), "name"),
    ("RenewLease", pb.RenewLeaseRequest(name="leases/l1", generation=-1), "generation"),
    ("ReleaseLease", pb.ReleaseLeaseRequest(name="leases/l1", generation=-(1 << 63)), "generation"),
    ("GetConnection", pb.GetConnectionRequest(name="x", generation=1), "name"),
    ("ListLeases", pb.ListLeasesRequest(page_size=-1), "page_size"),
    ("ListLeases", pb.ListLeasesRequest(page_size=1001), "page_size"),
    ("ListQueues", pb.ListQueuesRequest(page_size=1001), "page_size"),
    ("ListProfiles", pb.ListProfilesRequest(page_token="x"), "page_token"),
    ("ListLeases", pb.ListLeasesRequest(filter="state=NONE"), "filter"),
    ("ListLeases", pb.ListLeasesRequest(order_by="name"), "order_by"),
    ("AcquireLease", pb.AcquireLeaseRequest(on_existing=NO_SUCH), "on_existing"),
    ("AcquireLease", pb.AcquireLeaseRequest(spec=pb.LeaseSpec(mode=NO_SUCH)), "spec.mode"),
    ("AcquireLease", pb.AcquireLeaseRequest(spec=pb.LeaseSpec(sharing=-NO_SUCH)), "spec.sharing"),
    ("AcquireLease", pb.AcquireLeaseRequest(spec=pb.LeaseSpec(ttl={"seconds": -1})), "spec.ttl"),
    ("AcquireLease", pb.AcquireLeaseRequest(spec=pb.LeaseSpec(wait_ttl={"nanos": -1})), "spec.wait_ttl"),
    (
        "AcquireLease",
        pb.AcquireLeaseRequest(spec=pb.LeaseSpec(max_duration={"nanos": 1_000_000_000})),
        "spec.max_duration",
    ),
    (
        "AcquireLease",
        pb.AcquireLeaseRequest(spec=pb.LeaseSpec(acquire_timeout={"seconds": (1 << 63) - 1})),
        "spec.acquire_timeout",
    ),
    ("AcquireLease", pb.AcquireLeaseRequest(spec=pb.LeaseSpec(driver={"cores": -1})), "spec.driver.cores"),
    (
        "AcquireLease",
        pb.AcquireLeaseRequest(spec=pb.LeaseSpec(executors={"size": {"cores": -1}})),
        "spec.executors.size.cores",
    ),
]


@pytest.mark.parametrize(("method", "request_", "field"), BAD, ids=lambda value: str(value)[:40].replace("\n", " "))
async def test_bad_fields_are_named(serve, error_of, method, request_, field):
    stub = await (await serve()).stub()
    error = await refused(getattr(stub, method)(request_), error_of)
    assert (error.code, error.reason, error.fields) == ("INVALID_ARGUMENT", "INVALID_FIELD", [field])
    assert error.metadata == {"field": field}
    assert error.message.startswith(f"{field}: ")


BAD_STREAMS = [
    ("WatchLease", pb.WatchLeaseRequest(name="l1"), "name"),
    ("WatchLease", pb.WatchLeaseRequest(name="leases/l1", after_revision=-1), "after_revision"),
    ("WatchLeases", pb.WatchLeasesRequest(filter="state=READY"), "filter"),
    ("WatchLeases", pb.WatchLeasesRequest(filter="nonsense"), "filter"),
    ("StreamLogs", pb.StreamLogsRequest(name="leases/l1", offset=-1), "offset"),
    ("StreamLogs", pb.StreamLogsRequest(name="leases/l1", tail_lines=10_001), "tail_lines"),
    ("StreamLogs", pb.StreamLogsRequest(name="leases/l1", tail_lines=1, offset=1), "tail_lines"),
    ("StreamLogs", pb.StreamLogsRequest(name="leases/l1", executor_offsets={"e": 1}), "executor_offsets"),
    (
        "StreamLogs",
        pb.StreamLogsRequest(name="leases/l1", executors=True, executor_offsets={"e": -1}),
        "executor_offsets['e']",
    ),
    ("StreamLogs", pb.StreamLogsRequest(name="leases/l1", attempt=-1), "attempt"),
]


@pytest.mark.parametrize(("method", "request_", "field"), BAD_STREAMS, ids=lambda value: str(value)[:40])
async def test_bad_fields_of_streams_are_named(serve, error_of, method, request_, field):
    stub = await (await serve()).stub()
    error = await refused(getattr(stub, method)(request_).read(), error_of)
    assert (error.code, error.fields) == ("INVALID_ARGUMENT", [field])


@pytest.mark.parametrize(
    "data", [b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x02\xff\xfe"], ids=["tag", "length", "utf8"]
)
@pytest.mark.parametrize("method", ["AcquireLease", "GetLease", "ReleaseLease"])
async def test_malformed_bytes_are_an_invalid_argument(serve, error_of, method, data):
    channel = await (await serve()).channel()
    error = await refused(channel.unary_unary(PATH + method)(data), error_of)
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "MALFORMED_REQUEST")
    assert f"sparkbroker.v1.{method}Request" in error.message


async def test_malformed_bytes_end_streams_with_invalid_argument(serve, error_of):
    channel = await (await serve()).channel()
    error = await refused(channel.unary_stream(PATH + "WatchLease")(b"\xff").read(), error_of)
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "MALFORMED_REQUEST")
    call = channel.stream_stream(PATH + "KeepAlive")()
    await call.write(b"\xff")
    error = await refused(call.read(), error_of)
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "MALFORMED_REQUEST")


UNKNOWN = b"\xba\x3e\x01x"  # field 999, a string


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (UNKNOWN, "#999"),
        (b"\x22\x04" + UNKNOWN, "spec.#999"),
        (b"\x22\x06\x2a\x04" + UNKNOWN, "spec.driver.#999"),
        (b"\x22\x06\x62\x04" + UNKNOWN, "spec.wait_ttl.#999"),
        (b"\x22\x08\x32\x06\x0a\x04" + UNKNOWN, "spec.executors.size.#999"),
        (b"\x22\x0c\x3a\x0a\x0a\x01a\x12\x01b" + UNKNOWN, "spec.#7"),  # in an entry of the map conf
    ],
)
async def test_unknown_fields_are_refused_and_named(serve, error_of, data, path):
    served = await serve()
    channel = await served.channel()
    error = await refused(channel.unary_unary(PATH + "AcquireLease")(data), error_of)
    assert (error.code, error.fields) == ("INVALID_ARGUMENT", [path])
    assert served.leases.requests == []


async def test_a_request_that_is_too_large_is_refused(serve):
    stub = await (await serve()).stub()
    spec = pb.LeaseSpec(conf={"spark.x": "y" * (10 << 20)})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.AcquireLease(pb.AcquireLeaseRequest(spec=spec))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "262144" in str(caught.value.details())


async def test_a_forged_page_token_is_refused(serve, error_of):
    served = await serve()
    stub = await served.stub()
    for _ in range(3):
        await acquire(stub)
    token = (await stub.ListLeases(pb.ListLeasesRequest(page_size=1))).next_page_token
    forged = ("A" if token[0] != "A" else "B") + token[1:]
    for request in (
        pb.ListLeasesRequest(page_token=forged),
        pb.ListLeasesRequest(page_token=token, filter="queue=etl"),
        pb.ListLeasesRequest(page_token=token, order_by="create_time"),
        pb.ListLeasesRequest(page_token="é"),
        pb.ListLeasesRequest(page_token="x" * 5000),
    ):
        error = await refused(stub.ListLeases(request), error_of)
        assert (error.code, error.fields) == ("INVALID_ARGUMENT", ["page_token"])
    error = await refused(stub.ListQueues(pb.ListQueuesRequest(page_token=token)), error_of)
    assert error.fields == ["page_token"]
    assert len((await stub.ListLeases(pb.ListLeasesRequest(page_token=token))).leases) == 2


async def test_an_unforeseen_failure_tells_nothing_of_itself(serve, error_of):
    served = await serve()
    served.leases.fail = RuntimeError("password=hunter2")
    error = await refused((await served.stub()).GetLease(pb.GetLeaseRequest(name="leases/l1")), error_of)
    assert (error.code, error.reason) == ("INTERNAL", "INTERNAL")
    assert "hunter2" not in error.message
    async with asyncio.timeout(10):  # it is counted when it has ended, which the client may see first
        while not served.metrics.calls:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
    assert served.metrics.calls == [("GetLease", "INTERNAL")]


async def test_a_cancelled_call_is_cancelled_inside(serve):
    served = await serve()
    stub = await served.stub()
    served.leases.hold = asyncio.Event()
    call = stub.GetLease(pb.GetLeaseRequest(name="leases/l1"))
    await served.leases.entered.wait()
    call.cancel()
    await served.leases.gone.wait()
    assert served.leases.left == ["cancelled"]


async def test_a_call_without_a_deadline_gets_the_servers_bound(serve, error_of):
    served = await serve(limits=Limits(unary_seconds=0.05))
    stub = await served.stub()
    served.leases.hold = asyncio.Event()
    for timeout in (None, 3600):
        error = await refused(stub.GetLease(pb.GetLeaseRequest(name="leases/l1"), timeout=timeout), error_of)
        assert (error.code, error.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
    assert served.leases.left == ["cancelled", "cancelled"]


async def test_waiting_that_helps_is_said(serve, error_of):
    served = await serve()
    stub = await served.stub()
    served.leases.fail = errors.Unavailable("starting", retry_after=2.5)
    error = await refused(stub.GetLease(pb.GetLeaseRequest(name="leases/l1")), error_of)
    assert (error.code, error.retry_after) == ("UNAVAILABLE", 2.5)
