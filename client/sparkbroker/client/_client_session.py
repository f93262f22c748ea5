"""A classic session in the holder's own pod (mode CLIENT), whose executors are pods. Only imported where there is a full
pyspark.

Spark's Kubernetes client is handed the credential as an in-cluster one: by the variables with which its library finds a
service account's token. It then reads the file anew every minute and after a 401, as it does with the token that a kubelet
renews. A token that Spark itself reads (``spark.kubernetes.authenticate.oauthTokenFile``) is read once, and when it has
expired no executor can be started any more.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sparkbroker.client._errors import SessionFailed
from sparkbroker.client._local_session import LocalSession, open_local
from sparkbroker.client._values import ClientConnection, Connection, LocalConnection

_HOST: Final = "KUBERNETES_SERVICE_HOST"
_PORT: Final = "KUBERNETES_SERVICE_PORT"


def open_client(connection: ClientConnection, app_name: str) -> "ClientSession":
    """Write the private files, start a JVM with the lease's sizes and open a session in it. Errors as of ``open_local``."""
    master = _master(os.environ)
    files = PrivateFiles(connection)
    try:
        conf = {**connection.conf, "spark.kubernetes.executor.podTemplateFile": str(files.template)}
        local = LocalConnection(master=master, conf=conf)
        # The executors' Python: what is ours says nothing of their image.
        python = os.environ.get("PYSPARK_PYTHON", "python3")
        session = open_local(local, "classic", app_name, {"PYSPARK_PYTHON": python, **files.variables()})
    except BaseException:
        files.remove()
        raise
    return ClientSession(session, files, connection.expires)


def _master(environ: Mapping[str, str]) -> str:
    host, port = environ.get(_HOST, ""), environ.get(_PORT, "")
    if not host or not port:
        raise SessionFailed(
            f"a CLIENT session runs in a pod of the cluster, which has {_HOST} and {_PORT}; here they are not set"
        )
    return f"k8s://https://[{host}]:{port}" if ":" in host else f"k8s://https://{host}:{port}"


class PrivateFiles:
    """A folder of mode 0700 with the executors' template, the credential and the API server's certificate."""

    def __init__(self, connection: ClientConnection) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="sparkbroker-client-"))
        self.template = self._folder / "executor.json"
        self._token = self._folder / "token"
        self._certificate = self._folder / "ca.crt"
        try:
            _write(self.template, connection.executor_pod_template)
            self.renew(connection)
        except BaseException:
            self.remove()
            raise

    def __repr__(self) -> str:
        return f"<PrivateFiles {self._folder}>"

    def renew(self, connection: ClientConnection) -> None:
        """Another credential in place of the last one, whole at any moment."""
        if connection.ca_certificate:
            _write(self._certificate, connection.ca_certificate)
        _write(self._token, connection.token)

    def variables(self) -> dict[str, str]:
        """The environment that makes Spark's Kubernetes client use them, and nothing else that it would find."""
        result = {
            "KUBERNETES_AUTH_TRYKUBECONFIG": "false",
            "KUBERNETES_AUTH_TRYSERVICEACCOUNT": "true",
            "KUBERNETES_AUTH_SERVICEACCOUNT_TOKEN": str(self._token),
        }
        if self._certificate.exists():
            result["KUBERNETES_CERTS_CA_FILE"] = str(self._certificate)
        return result

    def remove(self) -> None:
        """Idempotent."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(text, encoding="utf-8")
    new.replace(path)


class ClientSession:
    """See OpenSession."""

    uses_session_id = False
    in_process = True

    def __init__(self, session: LocalSession, files: PrivateFiles, expires: datetime | None) -> None:
        self._session = session
        self._files = files
        self.expires = expires

    def __repr__(self) -> str:
        return f"<ClientSession [{'open' if self.open else 'closed'}]>"

    @property
    def spark(self) -> Any:
        return self._session.spark

    @property
    def open(self) -> bool:
        return self._session.open

    @property
    def ended(self) -> str:
        return self._session.ended

    def look(self) -> None:
        self._session.look()

    def explain_errors(self, explain: Callable[[BaseException], None]) -> None:
        self._session.explain_errors(explain)

    def renew(self, connection: Connection) -> None:
        if isinstance(connection, ClientConnection) and self.open:
            self._files.renew(connection)
            self.expires = connection.expires

    def close(self) -> None:
        self._session.close()
        self._files.remove()

    def abort(self, reason: str) -> None:
        self._session.abort(reason)
        self._files.remove()
