"""What one caller, or nobody at all, can take from others: calls, requests, answers and connections that aren't finished."""

import asyncio
import contextlib
import socket
from collections import Counter
from pathlib import Path
from uuid import uuid4

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from sparkbroker.broker.domain.errors import TooMany
from sparkbroker.broker.domain.units import Principal
from sparkbroker.broker.ports.authenticator import Caller
from sparkbroker.broker.ports.metrics import NoMetrics
from sparkbroker.broker.rpc import calls, connections
from sparkbroker.broker.rpc.inflight import InFlight, Place
from sparkbroker.broker.rpc.limits import Limits
from sparkbroker.broker.rpc.refusals import FEW, PERIOD, Refusals
from sparkbroker.client import AsyncBroker
from sparkbroker.v1 import broker_pb2 as pb
from tests.torture.attacks import frames
from tests.torture.attacks.victim import Victim

SERVICE = "/sparkbroker.v1.BrokerService/"
HEALTH = health_pb2.HealthCheckRequest()


@pytest.fixture
def bearer(token_file):
    return {name: (("authorization", f"Bearer {token}"),) for name, token in token_file[1].items()}


@pytest.fixture
async def guarded(serve, tcp, monkeypatch):
    """``await guarded(…)``: a server on TCP that keeps its limits, and looks often."""
    monkeypatch.setattr(connections, "PERIOD", 0.02)
    monkeypatch.setattr(calls, "PERIOD", 0.02)
    async with contextlib.AsyncExitStack() as stack:

        async def start(**limits):
            served = await serve(listeners=[tcp], limits=Limits(**limits))
            running = asyncio.get_running_loop().create_task(served.server.run())

            async def stop():
                running.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await running

            stack.push_async_callback(stop)
            return served

        yield start


def unfinished(channel, method="GetLease", metadata=()):
    """A call that has headers and no request."""
    path = SERVICE + method if "/" not in method else method
    return channel.stream_unary(path)(metadata=metadata)


def port_of(served):
    return int(served.server.addresses[0].rpartition(":")[2])


def victim(served):
    return Victim(Path(), port_of(served), 0, 0, {}, Counter())


async def code_of(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code().name


async def until(what):
    async with asyncio.timeout(20):
        while not what():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)


# -- calls that aren't finished


async def test_without_a_token_nothing_is_read(serve, tcp):
    channel = await (await serve(listeners=[tcp])).channel()
    for method in ("GetLease", "WatchLease", "KeepAlive"):
        assert await code_of(unfinished(channel, method)) == "UNAUTHENTICATED"


async def test_a_request_has_so_long_to_come(guarded, bearer):
    served = await guarded(request_seconds=0.1)
    channel = await served.channel()
    for method in ("GetLease", "WatchLease", "grpc.health.v1.Health/Check"):
        path = method if method.startswith("grpc") else SERVICE[1:] + method
        assert await code_of(unfinished(channel, "/" + path, bearer["ann"])) == "DEADLINE_EXCEEDED"
    assert served.metrics.limits == ["request_seconds"] * 3
    assert (await health_pb2_grpc.HealthStub(channel).Check(HEALTH)).status


async def test_a_call_without_a_request_is_told_so(serve, tcp, bearer, error_of):
    channel = await (await serve(listeners=[tcp])).channel()
    call = unfinished(channel, metadata=bearer["ann"])
    await call.done_writing()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert error_of(caught.value).reason == "MALFORMED_REQUEST"


async def test_a_principal_has_so_many_calls_and_others_have_theirs(guarded, bearer, error_of):
    served = await guarded(calls_per_principal=3)
    channel = await served.channel()
    held = [unfinished(channel, metadata=bearer["ann"]) for _ in range(3)]
    stub = await served.stub()
    await until(lambda: "3 calls" in repr(served.server))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ListQueues(pb.ListQueuesRequest(), metadata=bearer["ann"])
    error = error_of(caught.value)
    assert (error.code, error.reason, error.metadata) == ("RESOURCE_EXHAUSTED", "TOO_MANY", {"limit": "3"})
    assert served.metrics.limits == ["calls_per_principal"]
    await stub.ListQueues(pb.ListQueuesRequest(), metadata=bearer["ops"])
    await health_pb2_grpc.HealthStub(channel).Check(HEALTH)
    for call in held:
        call.cancel()
    await until(lambda: "0 calls" in repr(served.server))
    await stub.ListQueues(pb.ListQueuesRequest(), metadata=bearer["ann"])


async def test_a_principal_reads_so_many_requests_at_once_and_the_others_wait(guarded, bearer):
    served = await guarded(requests_read_per_principal=1)
    channel, stub = await served.channel(), await served.stub()
    first = unfinished(channel, metadata=bearer["ann"])
    await until(lambda: "1 calls" in repr(served.server))
    second = stub.ListQueues(pb.ListQueuesRequest(), metadata=bearer["ann"])
    third = stub.ListQueues(pb.ListQueuesRequest(), metadata=bearer["ann"])
    await until(lambda: "3 calls" in repr(served.server))
    await stub.ListQueues(pb.ListQueuesRequest(), metadata=bearer["ops"])
    assert not second.done()
    third.cancel()
    first.cancel()
    assert (await second).queues


async def test_nobody_shuts_a_health_check_out(guarded):
    served = await guarded(anonymous_calls=3)
    channel = await served.channel()
    stub = health_pb2_grpc.HealthStub(channel)
    watch = stub.Watch(HEALTH)
    await watch.read()
    block = frames.headers("/grpc.health.v1.Health/Check")
    first = b"".join(frames.frame(frames.HEADERS, frames.END_HEADERS, n, block) for n in frames.streams(8))
    crowd = await frames.connect(victim(served), first)
    await until(lambda: len(served.metrics.limits) == 6)
    assert set(served.metrics.limits) == {"anonymous_calls"}
    assert (await stub.Check(HEALTH)).status
    assert not watch.done()
    await until(lambda: served.metrics.calls.count(("Health/Check", "RESOURCE_EXHAUSTED")) == 7)
    crowd.transport.close()


async def test_a_client_with_many_watches_has_room_for_other_calls(serve, state_folder):
    served = await serve(limits=Limits(streams_per_connection=100))
    async with AsyncBroker(f"unix://{state_folder}/broker.sock", patience=10) as broker, asyncio.TaskGroup() as group:
        lease = await acquire(await served.stub(), ())

        async def watch():
            async for _ in broker.watch(lease.name):
                pass

        watches = [group.create_task(watch()) for _ in range(250)]
        await until(lambda: served.metrics.open.get("WatchLease") == 250)
        assert await broker.queues()
        for each in watches:
            each.cancel()


# -- answers that aren't taken


async def acquire(stub, metadata, **spec):
    request = pb.AcquireLeaseRequest(request_id=str(uuid4()), spec=pb.LeaseSpec(**spec))
    return (await stub.AcquireLease(request, metadata=metadata)).lease


@contextlib.asynccontextmanager
async def deaf(served, metadata, count, method="ListLeases", request=b""):
    """A connection with calls that has no room for the answers."""
    block = frames.headers(SERVICE + method, metadata)
    ask = frames.frame(frames.DATA, frames.END_STREAM, 0, frames.message(request))
    first = b"".join(
        frames.frame(frames.HEADERS, frames.END_HEADERS, stream, block) + ask[:5] + stream.to_bytes(4, "big") + ask[9:]
        for stream in frames.streams(count)
    )
    peer = await frames.connect(victim(served), first, window=0)
    try:
        yield peer
    finally:
        peer.transport.close()


async def test_answers_that_are_not_taken_have_a_bound(guarded, bearer):
    served = await guarded(answer_bytes_per_principal=5000, page_bytes=1000)
    stub = await served.stub()
    await acquire(stub, bearer["ann"], conf={"spark.app.name": "x" * 900})
    async with deaf(served, bearer["ann"], 20):
        await until(lambda: len(served.metrics.limits) > 10)
        assert set(served.metrics.limits) == {"answer_bytes_per_principal"}
        answered = served.metrics.calls.count(("ListLeases", "OK"))
        assert 1 < answered <= 5
        await stub.ListQueues(pb.ListQueuesRequest(), metadata=bearer["ops"])
    await until(lambda: "0 calls" in repr(served.server))
    await stub.ListQueues(pb.ListQueuesRequest(), metadata=bearer["ann"])


async def test_answers_to_heartbeats_that_are_not_taken_have_a_bound(guarded, bearer):
    served = await guarded(answer_bytes_per_principal=5000)
    beat = pb.KeepAliveRequest(renewals=[pb.Renewal(name="x", generation=1)] * 10).SerializeToString()
    async with deaf(served, bearer["ann"], 20, "KeepAlive", beat):
        await until(lambda: "answer_bytes_per_principal" in served.metrics.limits)
        stub = await served.stub()
        await stub.ListQueues(pb.ListQueuesRequest(), metadata=bearer["ann"])
    await until(lambda: not served.server.streams)


async def test_a_connection_that_takes_no_answer_is_closed(guarded, bearer):
    served = await guarded(answer_seconds=0.1)
    stub = await served.stub()
    await acquire(stub, bearer["ann"])
    async with deaf(served, bearer["ann"], 1) as peer:
        await asyncio.wait_for(peer.lost, 20)
    assert "answer_seconds" in served.metrics.limits
    await stub.ListQueues(pb.ListQueuesRequest(), metadata=bearer["ann"])


async def test_a_page_ends_at_so_many_bytes_and_the_next_one_has_the_rest(guarded, bearer):
    served = await guarded(page_bytes=5000)
    stub = await served.stub()
    sizes = [10, 2000, 2000, 9000, 10, 4000]
    made = [(await acquire(stub, bearer["ann"], conf={"spark.app.name": "x" * size})).name for size in sizes]
    for order in ("create_time", ""):
        pages: list[list[str]] = []
        token = ""
        while not pages or token:
            request = pb.ListLeasesRequest(page_token=token, order_by=order)
            page = await stub.ListLeases(request, metadata=bearer["ann"])
            assert page.ByteSize() < 6000 or len(page.leases) == 1
            pages.append([lease.name for lease in page.leases])
            token = page.next_page_token
        listed = [name for page in pages for name in page]
        assert listed == (made if order else made[::-1])
        assert len(pages) > 2


# -- connections


@contextlib.asynccontextmanager
async def silent(served, count):
    """Connections that say nothing; each is found closed when its future is done."""
    loop = asyncio.get_running_loop()

    async def one(each):
        with contextlib.suppress(ConnectionError):
            while await loop.sock_recv(each, 4096):
                pass

    async with contextlib.AsyncExitStack() as stack:
        ends = []
        for _ in range(count):
            each = stack.enter_context(socket.socket())
            each.setblocking(False)
            await loop.sock_connect(each, ("127.0.0.1", port_of(served)))
            ends.append(loop.create_task(one(each)))
        try:
            yield ends
        finally:
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)


async def test_silent_connections_are_closed_and_holders_are_not(guarded, bearer):
    served = await guarded(unauthenticated_connections=4, unauthenticated_seconds=30)
    stub = await served.stub()
    lease = await acquire(stub, bearer["ann"])
    watch = stub.WatchLease(pb.WatchLeaseRequest(name=lease.name), metadata=bearer["ann"])
    await watch.read()
    async with silent(served, 20) as ends:
        await until(lambda: sum(end.done() for end in ends) == 16)
        assert set(served.metrics.limits) == {"unauthenticated_connections"}
        assert [end.done() for end in ends] == [True] * 16 + [False] * 4, "the oldest ones were to be closed"
        await stub.GetLease(pb.GetLeaseRequest(name=lease.name), metadata=bearer["ann"])
        await acquire(await served.stub(), bearer["ops"])
    assert not watch.done()


async def test_a_connection_has_so_long_to_show_a_token(guarded, bearer):
    served = await guarded(unauthenticated_seconds=0.3)
    stub = await served.stub()
    await stub.ListQueues(pb.ListQueuesRequest(), metadata=bearer["ann"])
    peer = await frames.connect(victim(served), b"")  # it speaks HTTP/2, and makes no call
    await asyncio.wait_for(peer.lost, 20)
    assert served.metrics.limits == ["unauthenticated_seconds"]
    await until(lambda: "1 known" in repr(served.server))  # that of ``stub`` says nothing more, and is kept


async def test_who_guesses_tokens_is_cut_off(guarded):
    served = await guarded(refusals_per_connection=5, unauthenticated_seconds=600)
    block = frames.headers(SERVICE + "GetLease", [("authorization", "Bearer guess")])
    first = b"".join(frames.frame(frames.HEADERS, frames.END_HEADERS, n, block) for n in frames.streams(20))
    with capture_logs() as log:
        peer = await frames.connect(victim(served), first)
        await asyncio.wait_for(peer.lost, 20)
    assert served.metrics.limits == ["refusals_per_connection"]
    assert [(each["limit"], each["refused"]) for each in log if each["event"] == "connection.closed"] == [
        ("refusals_per_connection", 5)
    ]


async def test_behind_a_proxy_a_wrong_token_ends_nothing_of_others(guarded, bearer):
    served = await guarded(refusals_per_connection=5)
    stub = await served.stub()
    lease = await acquire(stub, bearer["ann"])
    wrong = (("authorization", "Bearer wrong"),)
    for _ in range(20):
        with pytest.raises(grpc.aio.AioRpcError, match="UNAUTHENTICATED"):
            await stub.GetLease(pb.GetLeaseRequest(name=lease.name), metadata=wrong, timeout=5)
    assert (await stub.GetLease(pb.GetLeaseRequest(name=lease.name), metadata=bearer["ann"], timeout=5)).lease == lease
    assert served.metrics.limits == []


async def test_who_takes_too_many_calls_back_is_cut_off(guarded, bearer):
    served = await guarded(cancelled_per_connection=20)
    stub = await served.stub()
    lease = await acquire(stub, bearer["ann"])
    block = frames.headers(SERVICE + "WatchLease", bearer["ann"])
    request = frames.message(pb.WatchLeaseRequest(name=lease.name).SerializeToString())
    first = b"".join(
        frames.frame(frames.HEADERS, frames.END_HEADERS, n, block)
        + frames.frame(frames.DATA, frames.END_STREAM, n, request)
        + frames.frame(frames.RESET, 0, n, bytes([0, 0, 0, 8]))
        for n in frames.streams(100)
    )
    peer = await frames.connect(victim(served), first)
    await asyncio.wait_for(peer.lost, 20)
    assert served.metrics.limits == ["cancelled_per_connection"]
    assert (await stub.GetLease(pb.GetLeaseRequest(name=lease.name), metadata=bearer["ann"])).lease == lease


@pytest.mark.parametrize(
    ("family", "host", "peer"),
    [
        (socket.AF_INET, "10.1.2.3", "ipv4:10.1.2.3"),
        (socket.AF_INET6, "::1", "ipv6:%5B::1%5D"),
        (socket.AF_INET6, "::ffff:10.1.2.3", "ipv4:10.1.2.3"),
    ],
)
def test_an_address_is_written_as_grpc_writes_it(family, host, peer):
    assert connections.address_name(family, host) == peer


# -- tokens that are taken away, and the log


async def test_an_idle_watch_ends_when_its_token_is_taken_away(guarded, tcp, token_file, bearer):
    served = await guarded()
    stub = await served.stub()
    watches = {name: stub.WatchLeases(pb.WatchLeasesRequest(), metadata=metadata) for name, metadata in bearer.items()}
    for watch in watches.values():
        await watch.read()
    path = token_file[0]
    path.write_text(path.read_text().split("\n\n")[1])
    assert tcp.authenticator.reload() == 1
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watches["ann"].read()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert not watches["ops"].done()


def test_the_log_tells_of_a_few_refusals_and_counts_the_rest():
    refusals = Refusals("rpc.refused", "code")
    with capture_logs() as told:
        for number in range(5000):
            peer = f"ipv4:10.0.0.{number % 3}:{number}"
            refusals.note(100.0, "UNAUTHENTICATED", peer, rpc="GetLease", message="no token")
        refusals.tell(100.0 + PERIOD / 2)
        assert len(told) == FEW
        refusals.note(100.0, "RESOURCE_EXHAUSTED", "ipv4:10.0.0.9:1", rpc="GetLease", message="too many calls of ann")
        assert told.pop()["code"] == "RESOURCE_EXHAUSTED"  # a crowd of others doesn't hide it
        refusals.tell(100.0 + PERIOD)
        refusals.tell(100.0 + 3 * PERIOD)
    assert len(told) == FEW + 1
    assert (told[-1]["event"], told[-1]["count"]) == ("rpc.refused_more", 5000 - FEW)
    assert set(told[-1]["peers"]) == {f"ipv4:10.0.0.{number}" for number in range(3)}


async def test_a_refused_answer_is_let_go():
    """A refused call's error lives until its status is sent. A thousand of them may not keep a thousand pages."""
    limits, metrics = Limits(answer_bytes_per_principal=10), NoMetrics()
    inflight = InFlight(limits, metrics, connections.Connections(limits, metrics))
    connection = inflight.connections.of("ipv4:127.0.0.1:1")
    call = inflight.enter(Caller(Principal("ann"), frozenset()), connection, Place())
    with pytest.raises(TooMany) as caught:
        call.answer(pb.AcquireLeaseRequest(request_id="x" * 100))
    trace, held = caught.value.__traceback__, []
    while trace is not None:
        if trace.tb_frame.f_code.co_filename != __file__:
            held += [value for value in trace.tb_frame.f_locals.values() if isinstance(value, Message)]
        trace = trace.tb_next
    assert not held
    call.check_room()
    call.answer(pb.AcquireLeaseRequest(request_id="12345678"))
    with pytest.raises(TooMany):
        call.check_room()
    call.end()
