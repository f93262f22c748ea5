"""Opening Spark sessions on a connection. Blocks, within bounds."""

import sys
import warnings
from typing import Literal

from sparkbroker.client._errors import PythonMismatch, SessionConflict, SparkMissing
from sparkbroker.client._session_base import OpenSession
from sparkbroker.client._values import ClientConnection, ConnectConnection, Connection
from sparkbroker.client.installed_pyspark import INSTALL, check_pyspark


def open_session(connection: Connection, *, api: Literal["classic", "connect"], app_name: str) -> OpenSession:
    """Open a session; errors SparkMissing, SparkConflict, SessionConflict, SessionFailed.

    ``api`` is for a LocalConnection; a CONNECT session always is a Connect session, and a CLIENT session a classic one.
    """
    check_pyspark()
    try:
        if isinstance(connection, ConnectConnection):
            _check_python(connection)
            from sparkbroker.client._connect_session import open_connect  # noqa: PLC0415  it imports pyspark

            return open_connect(connection)
        if isinstance(connection, ClientConnection):
            if api != "classic":
                raise SessionConflict("a CLIENT session is a classic one: leave api out, or use the mode CONNECT")
            _check_python(connection)
            from sparkbroker.client._client_session import open_client  # noqa: PLC0415  as above

            return open_client(connection, app_name)
        from sparkbroker.client._local_session import open_local  # noqa: PLC0415  as above

        return open_local(connection, api, app_name)
    except ImportError as error:
        raise SparkMissing(f"pyspark is installed without what this session needs ({error}); {INSTALL}") from error


def _check_python(connection: ConnectConnection | ClientConnection) -> None:
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    if connection.python_version and connection.python_version != ours:
        warnings.warn(
            f"this program runs Python {ours} and the Spark server Python {connection.python_version}: Python functions "
            "(UDFs) will fail, all else works",
            PythonMismatch,
            stacklevel=3,
        )
