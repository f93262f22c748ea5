"""The server: one gRPC server per listener (each has its own way to authenticate) over one set of use cases."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import grpc
import structlog

from sparkbroker.broker.app.leases import Leases
from sparkbroker.broker.ports.metrics import Metrics
from sparkbroker.broker.rpc import services
from sparkbroker.broker.rpc.admin import AdminServicer
from sparkbroker.broker.rpc.calls import Calls
from sparkbroker.broker.rpc.handlers import Handlers
from sparkbroker.broker.rpc.health import Health
from sparkbroker.broker.rpc.limits import Limits
from sparkbroker.broker.rpc.listeners import Listener, ListenFailed, TcpListener, bind
from sparkbroker.broker.rpc.pages import PageTokens
from sparkbroker.broker.rpc.servicer import BrokerServicer

STOP_GRACE: Final = 10.0
"""Seconds that unary calls in flight get when the server stops."""

log = structlog.get_logger()


class BrokerServer:
    """Serves ``leases`` on the listeners between ``start`` and ``stop``, within its limits while ``run`` runs.

    ``broker_key`` signs page tokens. Health is NOT_SERVING until ``set_serving(True)``; calls are answered all the same
    (the use cases say Unavailable until they can).
    """

    def __init__(
        self,
        leases: Leases,
        listeners: Sequence[Listener],
        *,
        metrics: Metrics,
        broker_key: bytes,
        limits: Limits | None = None,
    ) -> None:
        self._leases = leases
        self._listeners = tuple(listeners)
        self._metrics = metrics
        self._limits = limits or Limits()
        self._pages = PageTokens(broker_key)
        self._calls = Calls(self._limits, metrics)
        self._health = Health((services.BROKER,))
        self._servers: list[Any] = []
        self.addresses: tuple[str, ...] = ()
        """Where it listens, as gRPC targets (``unix:/path``, ``127.0.0.1:port``), in the order of the listeners."""

    def __repr__(self) -> str:
        return f"<BrokerServer {', '.join(self.addresses) or 'not listening'} {self._calls!r}>"

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._calls.streams)

    def set_serving(self, serving: bool) -> None:
        """What ``grpc.health.v1`` says."""
        self._health.set_serving(serving)

    async def start(self) -> None:
        """Listen everywhere or nowhere. Raise ListenFailed; the server can't be used after that."""
        addresses: list[str] = []
        try:
            for listener in self._listeners:
                server = self._server(listener)
                self._servers.append(server)
                addresses.append(bind(server, listener))
            for server in self._servers:
                await server.start()
        except BaseException:
            await self._let_go()
            raise
        self.addresses = tuple(addresses)
        log.info("server.listening", addresses=addresses)

    async def run(self) -> None:
        """Once it is started: keep calls, streams and connections within the limits, until cancelled."""
        listening = zip(self._listeners, self.addresses, strict=True)
        ports = [int(address.rpartition(":")[2]) for each, address in listening if isinstance(each, TcpListener)]
        await self._calls.run(ports, [each.authenticator for each in self._listeners])

    async def stop(self, grace: float = STOP_GRACE) -> None:
        """Refuse new calls, end the streams with UNAVAILABLE, and give unary calls ``grace`` seconds. Idempotent."""
        self.set_serving(False)
        self._calls.streams.close()
        await self._stop_servers(grace)
        self.addresses = ()

    async def _let_go(self) -> None:
        """After a failed start. gRPC frees what is bound only by stopping, and stops only what has been started."""
        self._calls.streams.close()
        for server in self._servers:
            await server.start()  # Once more does no harm.
        await self._stop_servers(0)

    async def _stop_servers(self, grace: float) -> None:
        servers, self._servers = self._servers, []
        async with asyncio.TaskGroup() as group:
            for number, server in enumerate(servers):
                group.create_task(server.stop(grace), name=f"stop-listener-{number}")

    def _server(self, listener: Listener) -> Any:
        server = grpc.aio.server(options=self._limits.options())
        shared = (self._calls, self._metrics, self._limits)
        named, anyone = Handlers(listener.authenticator, *shared), Handlers(services.Anyone(), *shared)
        server.add_generic_rpc_handlers(
            (
                services.broker(named, BrokerServicer(self._leases, self._pages, self._limits.page_bytes)),
                services.admin(named, AdminServicer(self._leases)),
                services.health_service(anyone, self._health),
                *services.reflection_services(anyone),
            )
        )
        return server


__all__ = ["STOP_GRACE", "BrokerServer", "ListenFailed"]
