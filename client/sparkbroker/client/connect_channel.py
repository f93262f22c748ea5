"""pyspark's way to a lease's Connect endpoint. Needs pyspark: import it where a session is opened."""

from typing import cast

import grpc
from pyspark.sql.connect.client import DefaultChannelBuilder

from sparkbroker.client._loopback import is_loopback
from sparkbroker.client._values import ConnectConnection
from sparkbroker.client.child_environment import endpoint_host


class LeaseChannelBuilder(DefaultChannelBuilder):  # type: ignore[misc]
    """Connects to a lease's endpoint with its headers. The credential is in no URL, and the environment's
    SPARK_CONNECT_AUTHENTICATE_TOKEN (which would force TLS) doesn't matter."""

    def __init__(self, connection: ConnectConnection) -> None:
        super().__init__(connection.endpoint)
        self._headers = tuple((name.lower(), value) for name, value in connection.headers.items())
        self._tls = connection.use_tls
        self._ca = connection.ca_certificate.encode() or None
        self.set(self.PARAM_USER_ID, connection.user_id)
        self.set(self.PARAM_SESSION_ID, connection.session_id)
        if is_loopback(endpoint_host(connection.endpoint)):
            self.setChannelOption("grpc.enable_http_proxy", 0)

    @property
    def token(self) -> None:
        return None

    @property
    def secure(self) -> bool:
        return self._tls

    def metadata(self) -> list[tuple[str, str]]:
        return list(self._headers)

    def toChannel(self) -> grpc.Channel:  # noqa: N802  pyspark's name
        if self._tls:
            credentials = grpc.ssl_channel_credentials(root_certificates=self._ca)
            return cast("grpc.Channel", self._secure_channel(self.endpoint, credentials))
        return cast("grpc.Channel", self._insecure_channel(self.endpoint))
