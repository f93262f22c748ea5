"""A real gRPC server in this process, over use cases that are small and in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import grpc
import msgspec
import pytest

from sparkbroker.broker.adapters.local_user import LocalUser
from sparkbroker.broker.adapters.static_tokens import StaticTokens, new_token
from sparkbroker.broker.app.leases import Leases
from sparkbroker.broker.app.views import (
    Acquired,
    Attached,
    Connection,
    Forced,
    LeasePage,
    LeaseView,
    ProfileView,
    QueueView,
    Renewed,
    WatchUpdate,
)
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.errors import BrokerError, Forbidden, NotFound, StaleGeneration
from sparkbroker.broker.domain.lease.event import EventType, LeaseEvent
from sparkbroker.broker.domain.lease.lease import (
    Attachment,
    ContainerSize,
    Lease,
    LeaseReason,
    LeaseSpec,
    LeaseState,
)
from sparkbroker.broker.domain.lease.timings import Timings
from sparkbroker.broker.domain.units import Epoch, Generation, LeaseId, Revision, Seconds, ServingTime, WallTime
from sparkbroker.broker.ports.authenticator import Caller, Role
from sparkbroker.broker.ports.metrics import NoMetrics
from sparkbroker.broker.ports.provisioner import ConnectEndpoint, LogChunk
from sparkbroker.broker.rpc.limits import Limits
from sparkbroker.broker.rpc.listeners import Listener, TcpListener, UnixListener
from sparkbroker.broker.rpc.server import BrokerServer
from sparkbroker.v1 import broker_pb2_grpc

KEY = b"k" * 32


class Metrics(NoMetrics):
    """Remembers the calls that have ended."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.open: dict[str, int] = {}
        self.limits: list[str] = []

    def rpc(self, method: str, code: str, seconds: float) -> None:
        assert seconds >= 0
        self.calls.append((method, code))

    def limited(self, limit: str) -> None:
        self.limits.append(limit)

    def streams(self, method: str, change: int) -> None:
        self.open[method] = self.open.get(method, 0) + change


class MemoryLeases:
    """The use cases, as far as this layer can tell: leases that are READY at once.

    ``hold`` makes ``get`` wait; ``fail`` is raised by it. ``entered`` is set when a call waits, ``gone`` when one has ended.
    """

    def __init__(self) -> None:
        self.leases: dict[str, Lease] = {}
        self.requests: list[tuple[Any, ...]] = []
        self.hold: asyncio.Event | None = None
        self.fail: Exception | None = None
        self.entered = asyncio.Event()
        self.left: list[str] = []
        self.gone = asyncio.Event()
        self.updates: asyncio.Queue[WatchUpdate | Exception | None] = asyncio.Queue()
        self.queue_names = ["etl"]

    async def acquire(self, caller: Caller, **asked: Any) -> Acquired:
        self.requests.append(("acquire", caller, asked))
        request = asked["request"]
        number = len(self.leases) + 1
        lease = Lease(
            id=LeaseId(f"l{number}"),
            principal=caller.principal,
            key=asked["key"],
            spec=LeaseSpec(
                profile=request.profile or "small",
                queue="etl",
                driver=ContainerSize(cores=1, memory=1 << 30),
                conf=request.conf,
                labels=request.labels,
            ),
            profile_fingerprint="f",
            pool="local",
            charge=Resources.of(cores=1, memory=1 << 30),
            state=LeaseState.READY,
            reason=LeaseReason.SERVING,
            timings=Timings(queued=WallTime(1_700_000_000.0 + number)),
            enqueued=ServingTime(0.0),
            wait_deadline=ServingTime(1.0),
            renewed_epoch=Epoch(1),
            revision=Revision(number),
        )
        self.leases[lease.id] = lease
        return Acquired(LeaseView(lease), existing=False)

    def _lease(self, caller: Caller, lease_id: LeaseId) -> Lease:
        lease = self.leases.get(lease_id)
        if lease is None or not (caller.operator or lease.principal == caller.principal):
            raise NotFound(f"there is no lease leases/{lease_id}", resource=f"leases/{lease_id}")
        return lease

    async def get(self, caller: Caller, lease_id: LeaseId) -> LeaseView:
        if self.fail is not None:
            raise self.fail
        if self.hold is not None:
            self.entered.set()
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.left.append("cancelled")
                self.gone.set()
                raise
        return LeaseView(self._lease(caller, lease_id))

    async def watch(self, caller: Caller, lease_id: LeaseId, after: Revision) -> AsyncIterator[WatchUpdate]:
        lease = self._lease(caller, lease_id)
        try:
            if not after:
                yield WatchUpdate(snapshot=LeaseView(lease), revision=lease.revision)
            while (update := await self.updates.get()) is not None:
                if isinstance(update, Exception):
                    raise update
                yield update
        finally:
            self.left.append("watch")
            self.gone.set()

    async def watch_all(self, caller: Caller, selection: Any, after: Revision) -> AsyncIterator[WatchUpdate]:
        yield WatchUpdate(revision=after or Revision(1))
        while (update := await self.updates.get()) is not None:
            assert isinstance(update, WatchUpdate)
            yield update

    async def attach(self, caller: Caller, lease_id: LeaseId, *, request_id: str, holder: str) -> Attached:
        lease = self._lease(caller, lease_id)
        attachment = Attachment(
            id="a1",
            generation=Generation(lease.generation + 1),
            session_id="secret-session",
            holder=holder,
            attached_at=WallTime(1_700_000_000.5),
            deadline=ServingTime(1.0),
            renewed_epoch=Epoch(1),
        )
        lease = msgspec.structs.replace(lease, generation=attachment.generation, attachments=(attachment,))
        self.leases[lease.id] = lease
        return Attached(LeaseView(lease), attachment, Seconds(30.0))

    async def renew(self, caller: Caller, lease_id: LeaseId, generation: Generation) -> Renewed:
        lease = self._lease(caller, lease_id)
        if generation and lease.attachment(generation) is None:
            raise StaleGeneration(f"generation {generation} is over")
        return Renewed(lease.state, Seconds(30.0), "")

    async def renew_all(self, caller: Caller, renewals: Any) -> list[Renewed | BrokerError]:
        outcomes: list[Renewed | BrokerError] = []
        for lease_id, generation in renewals:
            try:
                outcomes.append(await self.renew(caller, lease_id, generation))
            except BrokerError as error:
                outcomes.append(error)
        return outcomes

    async def release(self, caller: Caller, lease_id: LeaseId, generation: Generation, message: str) -> LeaseView:
        lease = self._lease(caller, lease_id)
        lease = msgspec.structs.replace(lease, state=LeaseState.RELEASED, message=message)
        self.leases[lease.id] = lease
        return LeaseView(lease)

    async def connection(self, caller: Caller, lease_id: LeaseId, generation: Generation) -> Connection:
        self._lease(caller, lease_id)
        endpoint = ConnectEndpoint(
            endpoint="sc://127.0.0.1:1/", headers={"authorization": "Bearer secret"}, user_id="ann"
        )
        return Connection(connect=endpoint, session_id="s", python_version="3.11")

    async def force_release(self, caller: Caller, lease_id: LeaseId, message: str) -> Forced:
        lease = self._lease(caller, lease_id)
        if not caller.operator:
            raise Forbidden("only an operator")
        return Forced(LeaseView(lease), f"freed: {message}")

    async def logs(self, caller: Caller, lease_id: LeaseId, **where: Any) -> AsyncIterator[LogChunk]:
        self._lease(caller, lease_id)
        yield LogChunk(b"hello\n", 6)

    def queues(self, caller: Caller) -> list[QueueView]:
        return [
            QueueView(
                name=name,
                nominal=Resources.of(cores=8),
                used=Resources(),
                queued=0,
                admitted=0,
                priority_step=Seconds(60.0),
                priorities=(-5, 5),
                blocking_message="",
            )
            for name in self.queue_names
        ]

    def profiles(self, caller: Caller) -> list[ProfileView]:
        spec = LeaseSpec(profile="small", queue="etl", driver=ContainerSize(cores=1, memory=1 << 30))
        return [ProfileView(Profile(name="small", defaults=spec), "")]

    async def list(self, caller: Caller, selection: Any, *, descending: bool, after: Any, limit: int) -> LeasePage:
        def order(lease: Lease) -> tuple[float, str]:
            return (lease.timings.queued, lease.id)

        found = [each for each in self.leases.values() if selection.matches(each)]
        found = [each for each in found if caller.operator or each.principal == caller.principal]
        found.sort(key=order, reverse=descending)
        if after is not None:
            found = [each for each in found if (order(each) < after) == descending and order(each) != after]
        more = order(found[limit - 1]) if len(found) > limit else None
        return LeasePage([LeaseView(each) for each in found[:limit]], more, Revision(len(self.leases)))


def event(revision: int, lease_id: str = "l1") -> WatchUpdate:
    """An update with an event."""
    return WatchUpdate(
        event=LeaseEvent(
            revision=Revision(revision),
            lease_id=LeaseId(lease_id),
            type=EventType.STATE,
            state=LeaseState.READY,
            reason=LeaseReason.SERVING,
            message="",
            time=WallTime(1.0),
            attempt=1,
            principal="ann",
            queue="etl",
            profile="small",
        ),
        revision=Revision(revision),
    )


class Served:
    """A server, and how to reach it."""

    def __init__(self, server: BrokerServer, leases: MemoryLeases, metrics: Metrics, stack: AsyncExitStack) -> None:
        self.server = server
        self.leases = leases
        self.metrics = metrics
        self._stack = stack

    async def channel(self, listener: int = 0, credentials: grpc.ChannelCredentials | None = None) -> Any:
        address = self.server.addresses[listener]
        channel = (
            grpc.aio.insecure_channel(address) if credentials is None else grpc.aio.secure_channel(address, credentials)
        )
        return await self._stack.enter_async_context(channel)

    async def stub(self, listener: int = 0) -> Any:
        return broker_pb2_grpc.BrokerServiceStub(await self.channel(listener))


@pytest.fixture
def token_file(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A token file with ann (user) and ops (operator), and their tokens."""
    tokens, entries = {}, []
    for name, roles in (("ann", [Role.USER]), ("ops", [Role.USER, Role.OPERATOR])):
        tokens[name], entry = new_token(name, roles)
        entries.append(entry)
    path = tmp_path / "tokens.toml"
    path.touch(mode=0o600)
    path.write_text("\n".join(entries))
    return path, tokens


@pytest.fixture
async def serve(state_folder: Path) -> AsyncIterator[Callable[..., Any]]:
    """``await serve(listeners=…, limits=…)``: by default one unix socket, its caller the user ``ann``."""
    async with AsyncExitStack() as stack:

        async def start(*, listeners: list[Listener] | None = None, limits: Limits | None = None) -> Served:
            leases, metrics = MemoryLeases(), Metrics()
            server = BrokerServer(
                cast("Leases", leases),
                listeners or [UnixListener(state_folder / "broker.sock", LocalUser("ann"))],
                metrics=metrics,
                broker_key=KEY,
                limits=limits,
            )
            await server.start()
            stack.push_async_callback(server.stop, 0.5)
            return Served(server, leases, metrics, stack)

        yield start


@pytest.fixture
def tcp(token_file: tuple[Path, dict[str, str]]) -> TcpListener:
    return TcpListener("127.0.0.1", 0, StaticTokens(token_file[0]))


@pytest.fixture
def error_of() -> Callable[[grpc.aio.AioRpcError], Any]:
    """What a stock client reads of an error, through grpcio-status."""
    from google.rpc import error_details_pb2
    from grpc_status import rpc_status

    class Error(msgspec.Struct):
        code: str
        message: str
        reason: str = ""
        metadata: dict[str, str] = {}
        fields: list[str] = []
        retry_after: float | None = None

    def read(error: grpc.aio.AioRpcError) -> Error:
        status = rpc_status.from_call(cast("Any", error))
        result = Error(error.code().name, error.details() or "")
        for detail in status.details if status else ():
            for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
                if not detail.Is(kind.DESCRIPTOR):
                    continue
                message = kind()
                detail.Unpack(message)
                if kind is error_details_pb2.ErrorInfo:
                    assert message.domain == "sparkbroker"
                    result.reason, result.metadata = message.reason, dict(message.metadata)
                elif kind is error_details_pb2.BadRequest:
                    result.fields = [violation.field for violation in message.field_violations]
                else:
                    result.retry_after = message.retry_delay.ToTimedelta().total_seconds()
        return result

    return read


@pytest.fixture
def make_event() -> Callable[..., WatchUpdate]:
    return event
