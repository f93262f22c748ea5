"""What the client hands out besides the protocol's own messages. Durations are in seconds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from urllib.parse import quote

from sparkbroker.v1 import broker_pb2 as pb

LIVE: Final = frozenset({"QUEUED", "PROVISIONING", "READY"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a lease is on its way to READY. ``position`` counts from 1; 0: it isn't queued, or it isn't known yet."""

    lease: str
    state: str
    reason: str = ""
    message: str = ""
    attempt: int = 0
    position: int = 0
    queue_length: int = 0
    broker_unreachable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectConnection:
    """A Spark Connect endpoint, for one attachment. ``headers`` and ``url`` are secret, and in no ``repr`` (promise 11)."""

    endpoint: str
    session_id: str
    user_id: str
    headers: Mapping[str, str] = field(repr=False)
    use_tls: bool = False
    ca_certificate: str = field(default="", repr=False)
    ui_url: str = ""
    python_version: str = ""
    spark_version: str = ""
    expires: datetime | None = None

    def url(self) -> str:
        """The Connect URL with everything in it, for SPARK_REMOTE. Whoever has it has the session.

        The environment in which it is used must not hold SPARK_CONNECT_AUTHENTICATE_TOKEN: a client would then force
        TLS.
        """
        parameters = dict(self.headers) | {"user_id": self.user_id, "session_id": self.session_id}
        if self.use_tls:
            parameters["use_ssl"] = "true"
        rest = ";".join(f"{key}={quote(value, safe='')}" for key, value in parameters.items() if value)
        return f"{self.endpoint.rstrip('/')}/;{rest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalConnection:
    """What a session in this process is to be built with."""

    master: str
    conf: Mapping[str, str]
    python_version: str = ""
    spark_version: str = ""
    expires: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConnection:
    """What a classic session in this program's own pod is to be built with. ``token`` is secret, and ends at ``expires``."""

    conf: Mapping[str, str]
    executor_pod_template: str = field(repr=False)
    token: str = field(repr=False)
    ca_certificate: str = field(default="", repr=False)
    python_version: str = ""
    spark_version: str = ""
    expires: datetime | None = None


Connection = ConnectConnection | LocalConnection | ClientConnection


def read_connection(response: pb.GetConnectionResponse) -> Connection | None:
    """The connection of an answer; None: of a kind that is newer than this client."""
    expires = response.expire_time.ToDatetime() if response.HasField("expire_time") else None
    match response.WhichOneof("connection"):
        case "connect":
            found = response.connect
            return ConnectConnection(
                endpoint=found.endpoint,
                session_id=found.session_id,
                user_id=found.user_id,
                headers=dict(found.headers),
                use_tls=found.use_tls,
                ca_certificate=found.ca_certificate,
                ui_url=found.ui_url,
                python_version=response.python_version,
                spark_version=response.spark_version,
                expires=expires,
            )
        case "client":
            return ClientConnection(
                conf=dict(response.client.conf),
                executor_pod_template=response.client.executor_pod_template,
                token=response.client.token,
                ca_certificate=response.client.ca_certificate,
                python_version=response.python_version,
                spark_version=response.spark_version,
                expires=expires,
            )
        case "local":
            return LocalConnection(
                master=response.local.master,
                conf=dict(response.local.conf),
                python_version=response.python_version,
                spark_version=response.spark_version,
                expires=expires,
            )
        case _:
            return None
