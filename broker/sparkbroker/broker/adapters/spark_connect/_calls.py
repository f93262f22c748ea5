"""The calls themselves, each on a channel of its own: they are rare, and servers come and go."""

import asyncio
import uuid
from typing import Final

import grpc
import grpc.aio
import msgspec

from sparkbroker.broker.adapters.spark_connect import _wire

_SERVICE: Final = "/spark.connect.SparkConnectService/"
_OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
)

_NO_SUCH_SESSION: Final = ("SESSION_NOT_FOUND", "SESSION_CLOSED", "SESSION_CHANGED")
_NOT_YET_CANCELLED: Final = "SPARK_CONNECT_ILLEGAL_STATE"
_FIRST_PAUSE: Final = 0.05
_LAST_PAUSE: Final = 2.0


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server is and how to be let in. ``headers`` are secret; ``ca`` is PEM, None: the system's roots."""

    target: str
    headers: dict[str, str]
    user_id: str
    use_tls: bool = False
    ca: bytes | None = None

    def __repr__(self) -> str:
        return f"<Server {self.target}>"


class ConnectCallFailed(Exception):
    """A call did not succeed. ``code`` is the status's name, such as UNAUTHENTICATED; headers are in no message."""

    def __init__(self, code: str, details: str) -> None:
        super().__init__(f"{code}: {details}")
        self.code = code
        self.details = details


async def probe(server: Server, timeout: float) -> None:
    """Return if the server lets us in and answers."""
    await release(server, str(uuid.uuid4()), timeout)


async def release(server: Server, session_id: str, timeout: float) -> None:
    """End the session and everything that runs in it."""
    await _call(server, "ReleaseSession", _wire.release_session(session_id, server.user_id), timeout)


async def interrupt_all(server: Server, session_id: str, timeout: float) -> None:
    """Cancel everything that runs in the session."""
    await _call(server, "Interrupt", _wire.interrupt_all(session_id, server.user_id), timeout)


async def end_session(server: Server, session_id: str, timeout: float) -> None:
    """Interrupt, then release. A session that doesn't exist is ended."""
    try:
        await interrupt_all(server, session_id, timeout)
    except ConnectCallFailed as error:
        if not any(text in error.details for text in _NO_SUCH_SESSION):
            raise
    await _release_cancelled(server, session_id, timeout)


async def _release_cancelled(server: Server, session_id: str, timeout: float) -> None:
    """Spark 4.3 refuses to release a session whose query was cancelled but has not noticed yet: ask again."""
    pause = _FIRST_PAUSE
    while True:
        try:
            await release(server, session_id, timeout)
        except ConnectCallFailed as error:
            if _NOT_YET_CANCELLED not in error.details or pause > _LAST_PAUSE:
                raise
        else:
            return
        await asyncio.sleep(pause)
        pause *= 2


async def _call(server: Server, method: str, request: bytes, timeout: float) -> None:
    async with _channel(server) as channel:
        call = channel.unary_unary(_SERVICE + method, None, None)
        metadata = tuple((name.lower(), value) for name, value in server.headers.items())
        try:
            await call(request, timeout=timeout, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise ConnectCallFailed(error.code().name, error.details() or "") from error


def _channel(server: Server) -> grpc.aio.Channel:
    if server.use_tls:
        credentials = grpc.ssl_channel_credentials(root_certificates=server.ca)
        return grpc.aio.secure_channel(server.target, credentials, options=_OPTIONS)
    return grpc.aio.insecure_channel(server.target, options=_OPTIONS)
