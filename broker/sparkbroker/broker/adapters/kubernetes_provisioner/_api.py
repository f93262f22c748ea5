"""One API server, spoken to in JSON through kubernetes-asyncio's client: it brings credentials, TLS and connections.

Promised: every call has a bound in time, takes its turn at the client-side rate limit, and fails only with ApiFailed. No call
waits for a stream: streams have connections of their own, as many as are opened, and those that people read turns of their own.
Who opens streams bounds them.
kubernetes-asyncio is imported when a connection is made, not before: it is an extra, and takes seconds.
"""

import asyncio
import importlib.util
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from sparkbroker.broker.adapters.kubernetes_provisioner._errors import ApiFailed, Call, failure, unanswered
from sparkbroker.broker.adapters.kubernetes_provisioner._throttle import Throttle
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.ports.clock import Clock

CALL_TIMEOUT: Final = 15.0
RATE: Final = 50.0
BURST: Final = 100
CONNECTIONS: Final = 100
"""For calls; each is given back within CALL_TIMEOUT."""
_UNBOUNDED: Final = 0
_ERROR_BYTES: Final = 64 * 1024
_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
EXTRA_MISSING: Final = (
    "the provisioner kubernetes needs kubernetes-asyncio, which is not installed; "
    "install the extra: pip install 'sparkbroker[kubernetes]'"
)

JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"

Query = Sequence[tuple[str, str]]


def missing_extra() -> str:
    """What to install; empty: it is there. Imports nothing."""
    return "" if importlib.util.find_spec("kubernetes_asyncio") is not None else EXTRA_MISSING


async def _load(name: str) -> ModuleType:
    try:
        return await asyncio.to_thread(importlib.import_module, name)
    except ImportError as error:
        raise ProvisionerFailed(EXTRA_MISSING, retryable=False, misconfigured=True) from error


class Api:
    """See the module. Made by ``connect``. ``client`` is for calls, ``streams`` for streams; a ``throttle`` is made for each of
    those whose turns are separate."""

    def __init__(
        self, client: Any, streams: Any, errors: tuple[type[BaseException], ...], throttle: Callable[[], Throttle]
    ) -> None:
        self._client = client
        self._streams = streams
        self._errors = errors
        # Also a line that is longer than any object.
        self._errors_of_a_stream: tuple[type[BaseException], ...] = (*errors, ValueError)
        self._throttle = throttle()
        self._readers_throttle = throttle()
        self.calls = Counter[tuple[str, str]]()
        """How many were made, by verb and resource."""

    def __repr__(self) -> str:
        return f"<Api {self._client.configuration.host} [{self.calls.total()} calls]>"

    @classmethod
    async def connect(
        cls,
        clock: Clock,
        *,
        kubeconfig: str | None = None,
        context: str | None = None,
        rate: float = RATE,
        burst: int = BURST,
    ) -> "Api":
        """By the given kubeconfig, else ``KUBECONFIG``, else the pod's own account, else ``~/.kube/config``. Raise
        ProvisionerFailed."""
        client = await _load("kubernetes_asyncio.client")
        config = await _load("kubernetes_asyncio.config")
        aiohttp = await _load("aiohttp")
        configuration = client.Configuration()
        path = kubeconfig or os.environ.get("KUBECONFIG") or None
        try:
            if path is None and await asyncio.to_thread(_ACCOUNT.exists):
                config.load_incluster_config(client_configuration=configuration)
            else:
                await config.load_kube_config(
                    config_file=path, context=context, client_configuration=configuration, persist_config=False
                )
        except (config.ConfigException, OSError, ValueError) as error:
            raise ProvisionerFailed(
                f"the credentials for Kubernetes can't be read: {error}; set KUBECONFIG, or run the broker in a pod",
                retryable=False,
                misconfigured=True,
            ) from error

        def made(connections: int) -> Any:
            configuration.connection_pool_maxsize = connections  # read here; the credentials are shared
            return client.ApiClient(configuration)

        errors = (aiohttp.ClientError, config.ConfigException, OSError, TimeoutError)
        return cls(made(CONNECTIONS), made(_UNBOUNDED), errors, lambda: Throttle(clock, rate=rate, burst=burst))

    async def call(
        self,
        call: Call,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: Any = None,
        kind: str = JSON,
        timeout: float = CALL_TIMEOUT,
    ) -> bytes:
        """The answer's body. Raise ApiFailed for any other than success."""
        await self._throttle.turn()
        self.calls[call.verb, call.resource] += 1
        try:
            async with asyncio.timeout(timeout):
                response = await self._send(self._client, method, path, query, timeout, body, kind)
                try:
                    content: bytes = await response.read()
                finally:
                    response.release()
        except self._errors as error:
            raise unanswered(call, str(error) or type(error).__name__) from error
        if not HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
            raise failure(call, response.status, content)
        return content

    @asynccontextmanager
    async def stream(
        self, call: Call, path: str, *, query: Query = (), silence: float, for_people: bool = False
    ) -> AsyncIterator[Any]:
        """An answer that goes on: a reader, which raises ApiFailed after ``silence`` seconds without a byte. ``for_people``: no call
        of the broker's own waits until it has had its turn."""
        await (self._readers_throttle if for_people else self._throttle).turn()
        self.calls[call.verb, call.resource] += 1
        response = None
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                response = await self._send(self._streams, "GET", path, query, (CALL_TIMEOUT, silence))
                if response.status != HTTPStatus.OK:
                    raise failure(call, response.status, await response.content.read(_ERROR_BYTES))
            yield response.content
        except ApiFailed:
            raise
        except self._errors_of_a_stream as error:
            raise unanswered(call, str(error) or type(error).__name__) from error
        finally:
            if response is not None:
                response.close()

    async def ca_certificate(self) -> str:
        """What the API server's certificate is checked with, as PEM; empty: the system's roots. Raise ProvisionerFailed."""
        path = self._client.configuration.ssl_ca_cert
        try:
            return await asyncio.to_thread(Path(path).read_text) if path else ""
        except OSError as error:
            raise ProvisionerFailed(f"the API server's CA can't be read: {error}", retryable=True) from error

    async def _send(
        self,
        client: Any,
        method: str,
        path: str,
        query: Query,
        timeout: float | tuple[float, float],
        body: Any = None,
        kind: str = JSON,
    ) -> Any:
        return await client.call_api(
            path,
            method,
            query_params=list(query),
            header_params={"Accept": "application/json", "Content-Type": kind},
            body=body,
            auth_settings=["BearerToken"],
            _preload_content=False,
            _request_timeout=timeout,
        )

    async def close(self) -> None:
        """Close the connections."""
        try:
            await self._client.close()
        finally:
            await self._streams.close()
