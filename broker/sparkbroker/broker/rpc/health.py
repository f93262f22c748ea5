"""grpc.health.v1: whether this broker serves. No token is needed: load balancers and kubelets have none.

Not the library's servicer: its watches have no bound in number or age, and hold up a server that stops.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Final

from grpc_health.v1 import health_pb2

from sparkbroker.broker.domain.errors import NotFound
from sparkbroker.broker.ports.authenticator import Caller

SERVICE: Final = "grpc.health.v1.Health"


class Health:
    """NOT_SERVING until ``set_serving(True)``: the broker leads and knows what runs. Of the whole server ("") and of
    each of ``services``."""

    def __init__(self, services: tuple[str, ...]) -> None:
        self._services = frozenset(services) | {""}
        self._serving = False
        self._changed = asyncio.Event()

    def set_serving(self, serving: bool) -> None:
        if serving != self._serving:
            self._serving = serving
            self._changed.set()
            self._changed = asyncio.Event()

    async def check(self, _caller: Caller, request: Any) -> Any:
        """Raise NotFound for a service that isn't here."""
        if request.service not in self._services:
            raise NotFound(f"no service {request.service[:64]!r} here; leave it empty to ask for the whole broker")
        return self._response(request.service)

    async def watch(self, _caller: Caller, request: Any) -> AsyncGenerator[Any, None]:
        """The status now, and whenever it changes."""
        while True:
            changed = self._changed
            yield self._response(request.service)
            await changed.wait()

    def _response(self, service: str) -> Any:
        statuses = health_pb2.HealthCheckResponse
        if service not in self._services:
            return statuses(status=statuses.SERVICE_UNKNOWN)
        return statuses(status=statuses.SERVING if self._serving else statuses.NOT_SERVING)
