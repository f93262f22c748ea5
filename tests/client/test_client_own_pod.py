"""Mode CLIENT in the client: which pod it is, what is written where, and that Spark's Kubernetes client takes a renewed
credential."""

import asyncio
import http.server
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from sparkbroker.client import ClientConnection, InvalidRequest, SessionConflict, SessionFailed
from sparkbroker.client._ask import acquire_request
from sparkbroker.client._clock import utc
from sparkbroker.client._lease_sessions import LeaseSessions, renewal_pause
from sparkbroker.client._session import open_session
from sparkbroker.client._tasks import Tasks
from sparkbroker.client._values import read_connection
from sparkbroker.client.own_pod import own_pod
from sparkbroker.v1 import broker_pb2 as pb

POD = {"namespace": "spark", "name": "notebook", "uid": "u-1"}
VARIABLES = {"SPARKBROKER_POD_NAMESPACE": "spark", "SPARKBROKER_POD_NAME": "notebook", "SPARKBROKER_POD_UID": "u-1"}


def connection(token: str = "first", **more: Any) -> ClientConnection:
    return ClientConnection(conf={"spark.app.id": "a"}, executor_pod_template="{}", token=token, **more)


def test_the_own_pod_is_the_downward_api_s_or_what_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_pod(None, VARIABLES) == POD == own_pod(POD, {})
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    assert acquire_request({"mode": "CLIENT"}, "r").spec.holder_pod == pb.HolderPod(**POD)
    # In another mode it is nobody's business.
    assert not acquire_request({"mode": "CONNECT"}, "r").spec.HasField("holder_pod")
    assert acquire_request({"holder_pod": POD}, "r").spec.HasField("holder_pod")


def test_what_is_missing_is_named() -> None:
    with pytest.raises(InvalidRequest, match=r"SPARKBROKER_POD_UID not set.*metadata\.uid") as refusal:
        own_pod(None, VARIABLES | {"SPARKBROKER_POD_UID": ""})
    assert refusal.value.field == "holder_pod"
    assert "SPARKBROKER_POD_NAME" not in str(refusal.value)


@pytest.mark.parametrize(
    "given", [{}, {"name": "x"}, {**POD, "uid": ""}, {**POD, "node": "n"}, {**POD, "uid": 1}, "pod"]
)
def test_a_pod_that_is_half_given(given: Any) -> None:
    with pytest.raises(InvalidRequest, match="holder_pod"):
        own_pod(given, VARIABLES)


def test_the_answer_s_secrets_are_in_no_repr() -> None:
    answer = pb.GetConnectionResponse(client=pb.ClientConnection(token="s3cret", executor_pod_template="{}"))
    answer.expire_time.FromJsonString("2026-01-01T01:00:00Z")
    found = read_connection(answer)
    assert isinstance(found, ClientConnection)
    assert found.token == "s3cret"
    assert found.expires == datetime(2026, 1, 1, 1)  # noqa: DTZ001  as the others are
    assert "s3cret" not in repr(found)


def test_it_is_renewed_in_the_middle_of_its_life_and_not_more_often_than_it_makes_sense() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    ends = (now + timedelta(hours=1)).replace(tzinfo=None)
    assert renewal_pause(ends, now) == 1800
    assert renewal_pause(ends, now + timedelta(minutes=59, seconds=50)) == 30
    assert renewal_pause(ends, now + timedelta(hours=2)) == 30


class Session:
    """Takes each newer connection, until it has had enough of them."""

    uses_session_id = False
    expires: datetime | None = datetime(2026, 1, 1)  # noqa: DTZ001  long over

    def __init__(self) -> None:
        self.open = True
        self.tokens: list[str] = []
        self.enough = threading.Event()

    spark = None
    ended = ""
    in_process = True

    def look(self) -> None:
        pass

    def explain_errors(self, explain: Any) -> None:
        pass

    def renew(self, newer: Any) -> None:
        self.tokens.append(newer.token)
        if len(self.tokens) == 3:
            self.expires = (utc() + timedelta(hours=1)).replace(tzinfo=None)
            self.enough.set()

    def close(self) -> None:
        self.open = False

    def abort(self, reason: str) -> None:
        self.open = False


async def test_a_session_gets_credentials_until_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparkbroker.client._lease_sessions.SOONEST", 0.0)
    tasks, asked = Tasks(), list[str]()

    async def ask() -> ClientConnection:
        asked.append(f"t{len(asked)}")
        if len(asked) == 2:
            raise SessionFailed("for once")  # a broker that is away doesn't end it
        return connection(asked[-1])

    sessions = LeaseSessions(
        tasks, lease=lambda: "leases/a", check=lambda: None, explain=lambda error: None, connection=ask
    )
    session = Session()
    sessions.adopt(session)
    assert await asyncio.to_thread(session.enough.wait, 20)
    assert session.tokens == ["t0", "t2", "t3"]
    assert repr(tasks) == "<Tasks [1 running]>"
    await sessions.close()
    await asyncio.sleep(0)
    assert repr(tasks) == "<Tasks [0 running]>"


def client_session(need: Any) -> Any:
    need(_importable("pyspark"), "pyspark (the extra `pyspark`)")
    return import_module("sparkbroker.client._client_session")


def _importable(name: str) -> bool:
    try:
        import_module(name)
    except ImportError:
        return False
    return True


def test_files_are_private_and_go(need: Any) -> None:
    files = client_session(need).PrivateFiles(connection(ca_certificate="PEM"))
    variables = files.variables()
    token, folder = variables["KUBERNETES_AUTH_SERVICEACCOUNT_TOKEN"], files.template.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    with Path(token).open() as file:
        before = file.read()
        files.renew(connection("second"))
        assert before == "first"
    assert Path(token).read_text() == "second"
    assert Path(variables["KUBERNETES_CERTS_CA_FILE"]).read_text() == "PEM"
    files.remove()
    files.remove()
    assert not folder.exists()


def test_outside_of_a_pod_and_with_another_api(need: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = client_session(need)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(SessionFailed, match="KUBERNETES_SERVICE_HOST"):
        open_session(connection(), api="classic", app_name="x")
    with pytest.raises(SessionConflict, match="classic"):
        open_session(connection(), api="connect", app_name="x")
    where = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    assert module._master(where) == "k8s://https://10.0.0.1:443"
    assert module._master(where | {"KUBERNETES_SERVICE_HOST": "fd00::1"}) == "k8s://https://[fd00::1]:443"


@contextmanager
def api_server(good: str) -> Iterator[tuple[str, list[str]]]:
    """Its URL, and the credentials that came; it takes the first one once, and then only ``good``."""
    came: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            came.append(self.headers.get("Authorization", ""))
            self.send_response(404 if len(came) == 1 or came[-1] == f"Bearer {good}" else 401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", came
        finally:
            server.shutdown()
            thread.join(20)


@pytest.mark.spark
@pytest.mark.timeout(300)
def test_spark_s_kubernetes_client_takes_a_renewed_token(need: Any) -> None:
    """Made as Spark makes it. With ``spark.kubernetes.authenticate.oauthTokenFile`` it would go on with the first one."""
    module = client_session(need)
    from py4j.java_gateway import GatewayParameters, JavaGateway  # type: ignore[import-untyped]
    from pyspark.find_spark_home import _find_spark_home

    from sparkbroker.client._jvm import start_jvm

    files = module.PrivateFiles(connection("first"))
    environ = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    jvm = start_jvm(_find_spark_home(), {"spark.master": "local[1]"}, {**environ, **files.variables()})
    try:
        parameters = GatewayParameters(
            port=int(jvm.environment["PYSPARK_GATEWAY_PORT"]),
            auth_token=jvm.environment["PYSPARK_GATEWAY_SECRET"],
            auto_convert=True,
        )
        gateway = JavaGateway(gateway_parameters=parameters)
        try:
            with api_server("second") as (url, came):
                spark = gateway.jvm.org.apache.spark
                factory = spark.deploy.k8s.SparkKubernetesClientFactory
                kind = getattr(spark.deploy.k8s, "SparkKubernetesClientFactory$ClientType$")
                kind = getattr(kind, "MODULE$").Driver()
                some, none = gateway.jvm.scala.Some("spark"), gateway.jvm.scala.Option.empty()
                client = factory.createKubernetesClient(
                    url, some, "spark.kubernetes.authenticate", kind, spark.SparkConf(False), none
                )
                client.pods().withName("x").get()
                files.renew(connection("second"))
                client.pods().withName("x").get()
                client.close()
        finally:
            gateway.shutdown()
    finally:
        jvm.end()
        files.remove()
    assert came == ["Bearer first", "Bearer first", "Bearer second"]
