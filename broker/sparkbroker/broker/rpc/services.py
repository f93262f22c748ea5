"""The services of the server: which method answers which call, in one table each."""

from collections.abc import Iterable
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from sparkbroker.broker.ports.authenticator import Caller
from sparkbroker.broker.rpc import convert, health, showing
from sparkbroker.broker.rpc.admin import AdminServicer
from sparkbroker.broker.rpc.crowding import NOBODY
from sparkbroker.broker.rpc.handlers import Handlers
from sparkbroker.broker.rpc.servicer import BrokerServicer
from sparkbroker.v1 import admin_pb2
from sparkbroker.v1 import broker_pb2 as pb

ADMIN: Final = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name
BROKER: Final = pb.DESCRIPTOR.services_by_name["BrokerService"].full_name
SERVED: Final = (ADMIN, BROKER, health.SERVICE, "grpc.reflection.v1alpha.ServerReflection")
REFLECTION: Final = ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")
"""v1 has the same messages under another name. It is served, and not listed: there is no descriptor of it to show."""


class Anyone:
    """Authenticates nobody in particular: for what holds no secret."""

    caller: Final = Caller(NOBODY, frozenset())
    changes: Final = 0

    def authenticate(self, _metadata: object) -> Caller:
        return self.caller


def broker(handlers: Handlers, servicer: BrokerServicer) -> "grpc.GenericRpcHandler[Any, Any]":
    """sparkbroker.v1.BrokerService."""
    unary = {
        "AcquireLease": (pb.AcquireLeaseRequest, servicer.acquire_lease),
        "GetLease": (pb.GetLeaseRequest, servicer.get_lease),
        "AttachLease": (pb.AttachLeaseRequest, servicer.attach_lease),
        "RenewLease": (pb.RenewLeaseRequest, servicer.renew_lease),
        "ReleaseLease": (pb.ReleaseLeaseRequest, servicer.release_lease),
        "GetConnection": (pb.GetConnectionRequest, servicer.get_connection),
    }
    pages = {
        "ListLeases": (pb.ListLeasesRequest, servicer.list_leases),
        "ListQueues": (pb.ListQueuesRequest, servicer.list_queues),
        "ListProfiles": (pb.ListProfilesRequest, servicer.list_profiles),
    }
    watches = {
        "WatchLease": (pb.WatchLeaseRequest, servicer.watch_lease, showing.watch_update),
        "WatchLeases": (pb.WatchLeasesRequest, servicer.watch_leases, showing.watch_all_update),
        "StreamLogs": (pb.StreamLogsRequest, servicer.stream_logs, convert.log_chunk),
    }
    methods: dict[str, Any] = {name: handlers.unary(name, *row) for name, row in unary.items()}  # type: ignore[arg-type]
    methods |= {name: handlers.page(name, *row) for name, row in pages.items()}  # type: ignore[arg-type]
    methods |= {name: handlers.watch(name, *row) for name, row in watches.items()}  # type: ignore[arg-type]
    methods["KeepAlive"] = handlers.dialogue("KeepAlive", pb.KeepAliveRequest, servicer.keep_alive)
    return grpc.method_handlers_generic_handler(BROKER, methods)


def admin(handlers: Handlers, servicer: AdminServicer) -> "grpc.GenericRpcHandler[Any, Any]":
    """sparkbroker.v1.AdminService."""
    method = handlers.unary("ForceRelease", admin_pb2.ForceReleaseRequest, servicer.force_release)
    return grpc.method_handlers_generic_handler(ADMIN, {"ForceRelease": method})


def health_service(handlers: Handlers, state: health.Health) -> "grpc.GenericRpcHandler[Any, Any]":
    """grpc.health.v1.Health. Without a token: see ``health``."""
    kind = health_pb2.HealthCheckRequest
    methods = {
        "Check": handlers.unary("Health/Check", kind, state.check),
        "Watch": handlers.watch("Health/Watch", kind, state.watch, lambda response: response),
    }
    return grpc.method_handlers_generic_handler(health.SERVICE, methods)


def reflection_services(handlers: Handlers) -> "Iterable[grpc.GenericRpcHandler[Any, Any]]":
    """Reflection, without a token: it shows the published protocol and nothing of this broker."""
    library: Any = reflection.aio.ReflectionServicer(SERVED)  # type: ignore[attr-defined]  # the stubs lack it

    async def answer(_caller: Caller, request: Any) -> Any:
        async def one() -> Any:
            yield request

        # The library's servicer answers each request of a stream by one response; ours bounds the stream.
        async for response in library.ServerReflectionInfo(one(), None):
            return response
        raise AssertionError("the reflection servicer answers every request")

    for name in REFLECTION:
        handler = handlers.dialogue("ServerReflectionInfo", reflection_pb2.ServerReflectionRequest, answer)
        yield grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})
