"""The server as such: listeners, who may call, bounds, health, reflection, and how it stops."""

import asyncio
import contextlib
import hashlib
import socket
from typing import Any
from uuid import uuid4

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from sparkbroker.broker.adapters.local_user import LocalUser
from sparkbroker.broker.adapters.static_tokens import StaticTokens
from sparkbroker.broker.rpc.certificates import Tls
from sparkbroker.broker.rpc.limits import Limits
from sparkbroker.broker.rpc.listeners import ListenFailed, TcpListener, UnixListener
from sparkbroker.client import AsyncBroker, BadAddress, BrokerFault, resolve_address
from sparkbroker.client._tls import distrusted
from sparkbroker.v1 import broker_pb2 as pb
from sparkbroker.v1 import broker_pb2_grpc

EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs lack it


def bearer(token):
    return (("authorization", f"Bearer {token}"),)


async def acquire(stub, metadata=()):
    return (await stub.AcquireLease(pb.AcquireLeaseRequest(request_id=str(uuid4())), metadata=metadata)).lease


async def refused(call, error_of):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_of(caught.value)


# -- who may call


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", "Basic YTpi"),),
        (("authorization", ""),),
        bearer(""),
        bearer("wrong"),
        (("authorization", "Bearer"),),
        (("authorization-bin", b"Bearer x"),),
    ],
)
async def test_tcp_needs_a_known_token(serve, tcp, error_of, metadata):
    served = await serve(listeners=[tcp])
    stub = await served.stub()
    error = await refused(stub.GetLease(pb.GetLeaseRequest(name="leases/l1"), metadata=metadata), error_of)
    assert (error.code, error.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
    assert "wrong" not in error.message
    for call in (
        stub.WatchLease(pb.WatchLeaseRequest(name="leases/l1"), metadata=metadata),
        stub.KeepAlive(metadata=metadata),
    ):
        assert (await refused(call.read(), error_of)).code == "UNAUTHENTICATED"
    assert served.metrics.calls[0] == ("GetLease", "UNAUTHENTICATED")


async def test_who_is_not_known_learns_nothing_of_their_request(serve, tcp, error_of):
    channel = await (await serve(listeners=[tcp])).channel()
    error = await refused(channel.unary_unary("/sparkbroker.v1.BrokerService/GetLease")(b"\xff"), error_of)
    assert error.code == "UNAUTHENTICATED"


async def test_a_token_is_its_principal_with_its_roles(serve, tcp, token_file, error_of):
    served = await serve(listeners=[tcp])
    stub, tokens = await served.stub(), token_file[1]
    lease = await acquire(stub, bearer(tokens["ops"]))
    assert lease.principal == "ops"
    name = pb.GetLeaseRequest(name=lease.name)
    error = await refused(stub.GetLease(name, metadata=bearer(tokens["ann"])), error_of)
    assert error.code == "NOT_FOUND"
    mine = await acquire(stub, (("authorization", f"bearer {tokens['ann']}"),))
    assert (await stub.GetLease(pb.GetLeaseRequest(name=mine.name), metadata=bearer(tokens["ops"]))).lease == mine


async def test_a_page_token_is_its_callers_own(serve, tcp, token_file, error_of):
    served = await serve(listeners=[tcp])
    stub, tokens = await served.stub(), token_file[1]
    for _ in range(2):
        await acquire(stub, bearer(tokens["ann"]))
    page = await stub.ListLeases(pb.ListLeasesRequest(page_size=1), metadata=bearer(tokens["ann"]))
    request = pb.ListLeasesRequest(page_token=page.next_page_token)
    error = await refused(stub.ListLeases(request, metadata=bearer(tokens["ops"])), error_of)
    assert error.fields == ["page_token"]


async def test_a_token_that_is_taken_away_ends_its_keepalives(serve, tcp, token_file, error_of):
    path, tokens = token_file
    served = await serve(listeners=[tcp])
    call = (await served.stub()).KeepAlive(metadata=bearer(tokens["ann"]))
    await call.write(pb.KeepAliveRequest())
    await call.read()
    path.write_text("")
    assert isinstance(tcp.authenticator, StaticTokens)
    assert tcp.authenticator.reload() == 0
    await call.write(pb.KeepAliveRequest())
    assert (await refused(call.read(), error_of)).code == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    ("left", "end"), [("", "UNAUTHENTICATED"), ('roles = ["user", "operator"]', "OK")], ids=["taken", "other roles"]
)
async def test_a_token_that_is_changed_ends_its_watches_before_they_tell_more(
    serve, tcp, token_file, error_of, make_event, left, end
):
    path, tokens = token_file
    served = await serve(listeners=[tcp])
    watch = (await served.stub()).WatchLeases(pb.WatchLeasesRequest(), metadata=bearer(tokens["ann"]))
    await watch.read()
    served.leases.updates.put_nowait(make_event(2))
    assert (await watch.read()).event.revision == 2
    digest = hashlib.sha256(tokens["ann"].encode()).hexdigest()
    path.write_text(left and f'[[token]]\nprincipal = "ann"\nsha256 = "{digest}"\n{left}\n')
    tcp.authenticator.reload()
    served.leases.updates.put_nowait(make_event(3))
    if end == "OK":
        assert await watch.read() is EOF
    else:
        assert (await refused(watch.read(), error_of)).code == end


async def test_each_listener_has_its_own_way_to_authenticate(serve, tcp, state_folder, error_of):
    unix = UnixListener(state_folder / "b.sock", LocalUser("ann"))
    served = await serve(listeners=[unix, tcp])
    assert (await acquire(await served.stub(0))).principal == "ann"
    assert (await refused(acquire(await served.stub(1)), error_of)).code == "UNAUTHENTICATED"


# -- listeners


async def test_the_sockets_folder_is_made_private(serve, state_folder):
    served = await serve(listeners=[UnixListener(state_folder / "new" / "b.sock", LocalUser())])
    assert (state_folder / "new").stat().st_mode & 0o777 == 0o700
    assert (await acquire(await served.stub())).principal


async def test_a_folder_that_others_can_enter_is_refused(serve, state_folder):
    state_folder.chmod(0o750)
    with pytest.raises(ListenFailed, match=r"open to others \(mode 0750\); chmod 700"):
        await serve()


async def test_a_socket_that_nobody_listens_on_is_replaced(serve, state_folder):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(state_folder / "broker.sock"))
    assert (await acquire(await (await serve()).stub())).principal == "ann"


async def test_a_socket_in_use_is_left_alone(serve, state_folder):
    first = await serve()
    with pytest.raises(ListenFailed, match="is a broker running already"):
        await serve()
    assert (await acquire(await first.stub())).principal == "ann"


async def test_a_file_in_the_place_of_the_socket_is_left_alone(serve, state_folder):
    (state_folder / "broker.sock").write_text("precious")
    with pytest.raises(ListenFailed, match="is not a socket"):
        await serve()
    assert (state_folder / "broker.sock").read_text() == "precious"


async def test_a_path_that_is_too_long_is_said(serve, state_folder):
    with pytest.raises(ListenFailed, match="longer than 107 bytes"):
        await serve(listeners=[UnixListener(state_folder / ("x" * 108), LocalUser())])


async def test_a_port_that_is_taken_is_said(serve, tcp):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ListenFailed, match=f"127.0.0.1:{port}: Address already in use"):
            await serve(listeners=[TcpListener("127.0.0.1", port, tcp.authenticator)])


async def test_two_servers_do_not_share_a_port(serve, tcp):
    served = await serve(listeners=[tcp])
    port = int(served.server.addresses[0].rpartition(":")[2])
    with pytest.raises(ListenFailed):
        await serve(listeners=[TcpListener("127.0.0.1", port, tcp.authenticator)])


async def test_it_listens_everywhere_or_nowhere(serve, tcp, state_folder):
    unix = UnixListener(state_folder / "b.sock", LocalUser())
    with pytest.raises(ListenFailed):
        await serve(listeners=[unix, TcpListener("0.0.0.0", 0, tcp.authenticator)])
    assert (await acquire(await (await serve(listeners=[unix])).stub())).principal


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "broker.example"])
async def test_off_loopback_needs_tls(serve, tcp, host):
    with pytest.raises(ListenFailed, match="has no TLS"):
        await serve(listeners=[TcpListener(host, 0, tcp.authenticator)])


class Stranger(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # not at run time
    """Somebody else's server: it keeps the tokens that arrive."""

    def __init__(self):
        self.tokens = []

    def service(self, details):
        self.tokens += [value for name, value in details.invocation_metadata or () if name == "authorization"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_token_for_localhost_does_not_reach_who_listens_at_its_other_address(serve, tcp, token_file, host):
    stranger, server = Stranger(), grpc.aio.server()
    server.add_generic_rpc_handlers((stranger,))
    try:
        port = server.add_insecure_port("[::1]:0")
    except RuntimeError:
        pytest.skip("this machine has no ::1")
    await server.start()
    try:
        served = await serve(listeners=[TcpListener(host, port, tcp.authenticator)])
        assert served.server.addresses == (f"127.0.0.1:{port}",)
        async with AsyncBroker(f"grpc://localhost:{port}", token=token_file[1]["ann"]) as broker:
            assert await broker.queues()
        assert stranger.tokens == []
        async with AsyncBroker(f"grpc://[::1]:{port}", token=token_file[1]["ann"]) as broker:
            with pytest.raises(BrokerFault):
                await broker.queues()
        assert stranger.tokens, "the one who is told of by number does get it: it does listen"
    finally:
        await server.stop(None)


@pytest.fixture
def authority():
    return trustme.CA()


@pytest.fixture
def tls(authority, tmp_path):
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    return Tls(tmp_path / "cert.pem", tmp_path / "key.pem")


async def test_tls(serve, tcp, token_file, tls, authority):
    served = await serve(listeners=[TcpListener("0.0.0.0", 0, tcp.authenticator, tls)])
    address = served.server.addresses[0].replace("0.0.0.0", "127.0.0.1")
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    async with grpc.aio.secure_channel(address, credentials) as channel:
        stub = broker_pb2_grpc.BrokerServiceStub(channel)
        assert (await acquire(stub, bearer(token_file[1]["ann"]))).principal == "ann"
    async with grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await acquire(broker_pb2_grpc.BrokerServiceStub(channel), bearer(token_file[1]["ann"]))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_the_client_tells_at_once_whom_it_does_not_trust(serve, tcp, token_file, tls, authority, tmp_path):
    served = await serve(listeners=[TcpListener("0.0.0.0", 0, tcp.authenticator, tls)])
    port = served.server.addresses[0].rpartition(":")[2]
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    (tmp_path / "none.pem").write_text("no certificate")

    async def queues(host, ca):
        url, path = f"grpcs://{host}:{port}", None if ca is None else tmp_path / ca
        async with AsyncBroker(url, token=token_file[1]["ann"], ca_file=path, patience=600) as broker:
            return await broker.queues()

    assert await queues("localhost", "ca.pem")
    for host, ca, said in [
        ("localhost", None, "its certificate isn't trusted (unable to get local issuer certificate)"),
        ("localhost", "other.pem", "its certificate isn't trusted ("),
        ("127.0.0.2", "ca.pem", "IP address mismatch, certificate is not valid for '127.0.0.2'"),
        ("localhost", "none.pem", "holds no certificate in PEM"),
    ]:
        with pytest.raises(BadAddress) as caught:
            await queues(host, ca)
        assert said in str(caught.value)
        assert str(caught.value).startswith(f"the url argument: grpcs://{host}:{port}: ")


async def test_the_client_distrusts_nobody_whom_grpc_trusts(serve, tcp, tls, authority, tmp_path, monkeypatch):
    served = await serve(listeners=[TcpListener("0.0.0.0", 0, tcp.authenticator, tls)])
    address = resolve_address(f"grpcs://localhost:{served.server.addresses[0].rpartition(':')[2]}")
    authority.cert_pem.write_to_path(tmp_path / "roots.pem")
    assert "isn't trusted" in await distrusted(address)
    monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(tmp_path / "roots.pem"))
    assert await distrusted(address) == ""
    monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(tmp_path / "none.pem"))
    assert await distrusted(address) == ""


async def test_tls_files_that_cannot_be_used_are_named(serve, tcp, tls, authority, tmp_path):
    other = tmp_path / "other.pem"
    authority.issue_cert("localhost").private_key_pem.write_to_path(other)
    for files, problem in (
        (Tls(tls.certificate, other), "KEY_VALUES_MISMATCH"),
        (Tls(tls.certificate, tmp_path / "none.pem"), "can't be read: No such file"),
        (Tls(tls.key, tls.key), "can't be used"),
    ):
        with pytest.raises(ListenFailed, match=problem) as caught:
            await serve(listeners=[TcpListener("127.0.0.1", 0, tcp.authenticator, files)])
        assert str(tmp_path) in caught.value.message


# -- bounds


async def test_a_principal_has_so_many_streams_and_no_more(serve, error_of):
    served = await serve(limits=Limits(streams_per_principal=2))
    stub = await served.stub()
    lease = await acquire(stub)
    request = pb.WatchLeaseRequest(name=lease.name)
    watches = [stub.WatchLease(request) for _ in range(2)]
    for watch in watches:
        await watch.read()
    error = await refused(stub.WatchLease(request).read(), error_of)
    assert (error.code, error.reason, error.retry_after) == ("RESOURCE_EXHAUSTED", "TOO_MANY", 5.0)
    assert error.metadata == {"limit": "2"}
    served.leases.gone.clear()
    watches[0].cancel()
    await served.leases.gone.wait()
    again = stub.WatchLease(request)
    await again.read()
    assert served.server.streams == 2
    assert served.metrics.open == {"WatchLease": 2}


async def test_a_stream_ends_well_at_its_age(serve, make_event):
    served = await serve(limits=Limits(stream_seconds=0.5))
    stub = await served.stub()
    lease = await acquire(stub)
    watch = stub.WatchLease(pb.WatchLeaseRequest(name=lease.name))
    keepalive = stub.KeepAlive()
    assert (await watch.read()).HasField("snapshot")
    for call in (watch, keepalive):
        assert await call.read() is EOF
        assert await call.code() is grpc.StatusCode.OK
    assert served.leases.left == ["watch"]
    assert served.server.streams == 0
    served.leases.updates.put_nowait(make_event(2))
    resumed = stub.WatchLease(pb.WatchLeaseRequest(name=lease.name, after_revision=1))
    assert (await resumed.read()).event.revision == 2


async def test_a_reader_that_stalls_does_not_outlive_the_age(serve, make_event):
    """Flow control stops the write; the age ends the stream inside all the same."""
    served = await serve(limits=Limits(stream_seconds=0.3))
    stub = await served.stub()
    lease = await acquire(stub)
    for revision in range(20_000):
        served.leases.updates.put_nowait(make_event(revision, "x" * 200))
    watch = stub.WatchLease(pb.WatchLeaseRequest(name=lease.name))
    await watch.read()
    await served.leases.gone.wait()
    assert served.leases.updates.qsize() > 0, "the write was to be blocked by then"
    assert served.server.streams == 0
    watch.cancel()


async def test_concurrent_calls_are_bounded(serve):
    served = await serve(limits=Limits(concurrent_rpcs=1))
    stub = await served.stub()
    served.leases.hold = asyncio.Event()
    first = stub.GetLease(pb.GetLeaseRequest(name="leases/l1"))
    await served.leases.entered.wait()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetLease(pb.GetLeaseRequest(name="leases/l1"))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    first.cancel()


async def test_who_fills_one_address_shuts_nobody_out_of_another(serve, tcp, token_file, state_folder):
    unix = UnixListener(state_folder / "broker.sock", LocalUser("ann"))
    served = await serve(listeners=[tcp, unix], limits=Limits(concurrent_rpcs=1))
    crowd, operator = await served.stub(0), await served.stub(1)
    metadata = bearer(token_file[1]["ann"])
    watch = crowd.WatchLease(pb.WatchLeaseRequest(name=(await acquire(operator)).name), metadata=metadata)
    await watch.read()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await crowd.GetLease(pb.GetLeaseRequest(name="leases/l1"), metadata=metadata)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await operator.ListQueues(pb.ListQueuesRequest())
    watch.cancel()


# -- health and reflection, by stock clients without a token


async def test_health_says_whether_it_serves(serve, tcp, error_of):
    served = await serve(listeners=[tcp])
    stub = health_pb2_grpc.HealthStub(await served.channel())
    status = health_pb2.HealthCheckResponse
    for service in ("", "sparkbroker.v1.BrokerService"):
        served.server.set_serving(False)
        request = health_pb2.HealthCheckRequest(service=service)
        assert (await stub.Check(request)).status == status.NOT_SERVING
        watch = stub.Watch(request)
        assert (await watch.read()).status == status.NOT_SERVING
        served.server.set_serving(True)
        assert (await watch.read()).status == status.SERVING
        assert (await stub.Check(request)).status == status.SERVING
        watch.cancel()
    unknown = health_pb2.HealthCheckRequest(service="none")
    assert (await refused(stub.Check(unknown), error_of)).code == "NOT_FOUND"
    assert (await stub.Watch(unknown).read()).status == status.SERVICE_UNKNOWN


async def test_a_stock_client_discovers_and_drives_it(serve, state_folder):
    """With nothing but the address: list, describe, build the messages, call."""
    served = await serve()

    def discover(address):
        from google.protobuf.descriptor_pool import DescriptorPool
        from google.protobuf.message_factory import GetMessageClass

        with grpc.insecure_channel(address) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            services = set(database.get_services())
            pool = DescriptorPool(database)
            method = pool.FindServiceByName("sparkbroker.v1.BrokerService").FindMethodByName("AcquireLease")
            request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
            call = channel.unary_unary(
                "/sparkbroker.v1.BrokerService/AcquireLease",
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )
            described = [pool.FindServiceByName(name).full_name for name in services]
            return services, described, call(request(request_id=str(uuid4()), lease_key="k"), timeout=10)

    services, described, answer = await asyncio.to_thread(discover, served.server.addresses[0])
    assert {"sparkbroker.v1.BrokerService", "grpc.health.v1.Health"} <= services
    assert set(described) == services
    assert answer.lease.key == "k"


async def test_reflection_also_answers_under_its_newer_name(serve, tcp):
    channel = await (await serve(listeners=[tcp])).channel()
    call = channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    names = [service.name for service in (await call.read()).list_services_response.service]
    assert "sparkbroker.v1.BrokerService" in names
    await call.done_writing()
    assert await call.code() is grpc.StatusCode.OK


# -- the end


async def _end_of(call):
    with contextlib.suppress(grpc.aio.AioRpcError):
        async for _ in call:
            pass
    return await call.code()


@pytest.mark.promise(15)
async def test_stopping_finishes_calls_ends_streams_and_refuses_more(serve, error_of):
    served = await serve()
    stub = await served.stub()
    lease = await acquire(stub)
    watch, keepalive = stub.WatchLease(pb.WatchLeaseRequest(name=lease.name)), stub.KeepAlive()
    health = health_pb2_grpc.HealthStub(await served.channel()).Watch(health_pb2.HealthCheckRequest())
    await watch.read()
    await keepalive.write(pb.KeepAliveRequest())
    await keepalive.read()
    assert (await anext(aiter(health))).status == health_pb2.HealthCheckResponse.NOT_SERVING
    served.leases.hold = asyncio.Event()
    begun = stub.GetLease(pb.GetLeaseRequest(name=lease.name))
    await served.leases.entered.wait()
    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(served.server.stop(30))
        for call in (watch, keepalive):
            error = await refused(call.read(), error_of)
            assert (error.code, error.retry_after) == ("UNAVAILABLE", 1.0)
            assert "sessions go on" in error.message
        assert await _end_of(health) is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetLease(pb.GetLeaseRequest(name=lease.name))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert not stopping.done()
        served.leases.hold.set()
        assert (await begun).lease == lease
    assert served.leases.left == ["watch"]
    assert served.server.streams == 0


async def test_stopping_has_an_end_and_can_be_repeated(serve):
    served = await serve()
    stub = await served.stub()
    served.leases.hold = asyncio.Event()
    call = stub.GetLease(pb.GetLeaseRequest(name="leases/l1"))
    await served.leases.entered.wait()
    await served.server.stop(0.05)
    assert served.leases.left == ["cancelled"]
    with pytest.raises(grpc.aio.AioRpcError):
        await call
    await served.server.stop(0.05)


async def test_the_socket_can_be_listened_on_again(serve, state_folder):
    first = await serve()
    await first.server.stop(0)
    assert (await acquire(await (await serve()).stub())).principal == "ann"
    assert [path.name for path in state_folder.iterdir()] == ["broker.sock"]
