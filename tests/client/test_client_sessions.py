"""Sessions on real Spark: opened, used, closed, and given up when their server is dead."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparkbroker import client
from sparkbroker.client import Broker
from sparkbroker.v1 import broker_pb2 as pb

pytestmark = [pytest.mark.spark, pytest.mark.timeout(150)]


@pytest.fixture
def run(script: Callable[..., Any], broker: Any) -> Callable[..., str]:
    """A program in an interpreter of its own, since pyspark is global state; what it printed."""

    def do(text: str, *arguments: str, **how: Any) -> str:
        done = script(text, broker.url, *arguments, **({"timeout": 100} | how))
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    return do


CONNECT = """
import sys, os
from sparkbroker.client import Broker, SessionEnded
def end(spark):
    from pyspark.sql.connect.proto import ReleaseSessionRequest
    client = spark.client
    request = ReleaseSessionRequest(session_id=client._session_id)
    request.user_context.user_id = client._user_id
    client._stub.ReleaseSession(request, metadata=client._builder.metadata())
with Broker(sys.argv[1]) as b:
    for _ in range(2):
        with b.session(cores=1, app_name="t") as spark:
            from pyspark.sql import functions as F
            assert spark.range(1000).select(F.sum(F.col("id"))).collect()[0][0] == 499500
            print(spark.version)
    with b.lease() as lease:
        with lease.session() as spark:
            assert spark.range(5).count() == 5
            try:
                lease.open_session()
            except Exception as error:
                print(type(error).__name__)
        with lease.session() as again:
            assert again.range(7).count() == 7
            from pyspark.sql import SparkSession
            assert SparkSession.builder.master("local[9]").appName("unchanged").getOrCreate() is again
            assert again.conf.get("spark.app.name") == "unchanged"
        # As by the server's own timeout: the client isn't told.
        lost = lease.open_session()
        assert lost.range(2).count() == 2
        end(lost)
        try:
            lost.range(3).count()
        except SessionEnded as error:
            print(type(error).__name__, "INVALID_HANDLE" in str(error))
        unused = lease.open_session()
        assert unused.range(4).count() == 4
        end(unused)
        assert lease.open_session().range(5).count() == 5
assert "SPARK_CONNECT_MODE_ENABLED" not in os.environ
"""


def test_connect_sessions_are_opened_and_closed(broker: Any, spark_server: Any, run: Callable[..., str]) -> None:
    broker.connection = spark_server.connection
    out = run(CONNECT, env={"SPARK_CONNECT_AUTHENTICATE_TOKEN": "another", "http_proxy": "http://127.0.0.1:9"})
    assert out.split() == ["4.3.0", "4.3.0", "SessionConflict", "SessionEnded", "True"]
    assert not broker.live()
    assert len(broker.called("AttachLease")) == 7, "a second session needs an attachment, and a session id, of its own"


def test_python_functions_work(broker: Any, spark_server: Any, run: Callable[..., str]) -> None:
    broker.connection = spark_server.connection
    out = run(
        "import sys\nfrom sparkbroker.client import Broker\n"
        "with Broker(sys.argv[1]).session() as spark:\n"
        "    from pyspark.sql.functions import udf\n"
        "    print(spark.range(3).select(udf(lambda x: x * 2, 'int')('id')).collect()[2][0])\n"
    )
    assert out == "4\n"


CUT_OFF = """
import sys
from pyspark.sql import SparkSession
from sparkbroker.client import Broker
with Broker(sys.argv[1]) as b:
    with b.lease() as lease:
        client = lease.open_session().client
        client._channel.close()
        client._closed = True
    with b.session() as spark:
        print(SparkSession.active() is spark, SparkSession.active().range(3).count())
"""


def test_a_session_that_was_cut_off_is_not_the_active_one_any_more(
    broker: Any, spark_server: Any, run: Callable[..., str]
) -> None:
    broker.connection = spark_server.connection
    assert run(CUT_OFF) == "True 3\n"


async def test_asynchronously(broker: Any, spark_server: Any) -> None:
    import asyncio

    broker.connection = spark_server.connection
    async with client.AsyncBroker(broker.url) as b, b.session() as spark:
        assert await asyncio.to_thread(lambda: spark.range(10).count()) == 10
    assert not broker.live()


def test_another_python_is_said(broker: Any, spark_server: Any) -> None:
    def connection(name: str) -> pb.GetConnectionResponse:
        answer = spark_server.connection()
        answer.python_version = "2.7"
        return answer  # type: ignore[no-any-return]

    broker.connection = connection
    with Broker(broker.url) as b, b.lease() as lease, pytest.warns(client.PythonMismatch, match=r"2\.7"):
        lease.open_session()
    assert not broker.live()


def test_an_endpoint_that_is_not_there_is_an_error_and_the_lease_is_released(
    broker: Any, spark_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sparkbroker.client import _connect_session

    monkeypatch.setattr(_connect_session, "PROBE_TIMEOUT", 1.0)
    with Broker(broker.url) as b, pytest.raises(client.SessionFailed, match="could not be reached"), b.session():
        raise AssertionError
    assert not broker.live()


LOSING = """
import sys, threading
from sparkbroker.client import Broker, LeaseLost
b = Broker(sys.argv[1])
try:
    with b.session() as spark:
        from pyspark.sql import functions as F
        spark.range(2).count()
        print("up", flush=True)
        # Long enough: nothing but the loss ends it.
        spark.range(10**13).select(F.sum(F.hash(F.col("id")))).collect()
except LeaseLost as lost:
    print("lost", lost.reason, "from", type(lost.__cause__).__name__)
"""


LOSING_WITHOUT_WITH = """
import sys
from sparkbroker.client import Broker, LeaseLost
b = Broker(sys.argv[1])
lease = b.acquire()
lease.wait_ready()
spark = lease.open_session()
from pyspark.sql import functions as F
spark.range(2).count()
print("up", flush=True)
uses = [
    lambda: spark.range(10**13).select(F.sum(F.hash(F.col("id")))).collect(),
    lambda: spark.range(3).count(),
    lambda: spark.sql("select 1").schema,
    lambda: spark.conf.get("spark.app.name"),
]
for use in uses:
    try:
        use()
    except LeaseLost as lost:
        print("lost", lost.reason, "from", type(lost.__cause__).__name__, *lost.log_tail)
lease.release()
"""


@pytest.mark.promise(9)
@pytest.mark.parametrize("program", [LOSING, LOSING_WITHOUT_WITH], ids=["with", "without"])
def test_the_query_of_a_lost_lease_ends_as_lost(
    broker: Any, make_spark_server: Callable[[], Any], popen: Any, program: str
) -> None:
    # A server of its own: Spark goes on with a query whose interrupt came before its first job, though it says it ended.
    broker.ttl = 0.9
    broker.connection = make_spark_server().connection
    process = popen(
        [sys.executable, "-c", program, broker.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    broker.move(broker.live()[0], pb.LEASE_STATE_PREEMPTED, 0, "for a larger one")
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    lines = out.splitlines()
    assert len(lines) == (1 if program == LOSING else 4), errors
    assert all(line.startswith("lost UNSPECIFIED from ") for line in lines), out


DEAD = """
import sys, os, time
from sparkbroker.client import Broker
how = sys.argv[2]
b = Broker(sys.argv[1])
def use(spark):
    assert spark.range(10).count() == 10
    print("up", flush=True)
    sys.stdin.readline()
if how == "with":
    with b.session() as spark:
        use(spark)
elif how == "open":
    lease = b.acquire()
    lease.wait_ready()
    use(lease.open_session())
elif how == "query":
    with b.session() as spark:
        use(spark)
        try:
            spark.range(10).count()
        except Exception as error:
            print(type(error).__name__)
"""


@pytest.mark.parametrize("how", ["with", "open"])
def test_a_dead_server_holds_up_neither_the_end_nor_the_exit(
    broker: Any, make_spark_server: Callable[[], Any], popen: Any, how: str
) -> None:
    server = make_spark_server()
    broker.connection = server.connection
    process = popen(
        [sys.executable, "-c", DEAD, broker.url, how],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    server.kill()
    # pyspark by itself takes more than ten minutes: the bound is far from both.
    _, errors = process.communicate("\n", timeout=40)
    assert process.returncode == 0, errors
    assert not broker.live()


@pytest.mark.parametrize("program", [LOSING, LOSING_WITHOUT_WITH], ids=["with", "without"])
def test_a_query_on_a_dead_server_ends_as_lost(
    broker: Any, make_spark_server: Callable[[], Any], popen: Any, program: str
) -> None:
    server = make_spark_server()
    broker.connection = server.connection
    broker.ttl = 0.9
    process = popen(
        [sys.executable, "-c", program, broker.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    server.kill()
    end = pb.DriverExit(signal="SIGKILL", log_tail=["last words"])
    broker.move(broker.live()[0], pb.LEASE_STATE_FAILED, 18, "the driver was killed", exit=end)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    lines = out.splitlines()
    assert len(lines) == (1 if program == LOSING else 4), errors
    assert all(line.startswith("lost DRIVER_LOST from ") for line in lines), out
    assert program == LOSING or all(line.endswith("last words") for line in lines), out


def local(broker: Any, folder: Path) -> None:
    conf = {
        "spark.driver.memory": "512m", "spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1", "spark.local.dir": str(folder),
        "spark.sql.warehouse.dir": str(folder / "warehouse"), "spark.connect.grpc.binding.address": "127.0.0.1",
    }  # fmt: skip
    broker.connection = lambda name: pb.GetConnectionResponse(
        local=pb.LocalConnection(master="local[1]", conf=conf | {"spark.app.id": name})
    )


LOCAL = """
import sys, os
from pyspark import SparkContext
from sparkbroker.client import Broker, SessionConflict, SessionEnded
api = sys.argv[2]
with Broker(sys.argv[1]) as b:
    with b.lease(mode="LOCAL", cores=1) as lease, lease.session(api=api) as spark:
        assert spark.range(100).count() == 100
        if api == "connect":
            from pyspark.sql.connect.session import SparkSession
            from pyspark.sql.connect.client import DefaultChannelBuilder
            assert spark.newSession().range(3).count() == 3
            assert "no_grpc_proxy" not in os.environ, "it was the session's own affair"
            os.environ["no_grpc_proxy"] = "127.0.0.1"
            token = os.environ.pop("SPARK_CONNECT_AUTHENTICATE_TOKEN")
            stranger = SparkSession.builder.remote("sc://127.0.0.1").create()
            try:
                stranger.range(1).collect()
            except Exception as error:
                print("refused" if "auth" in str(error).lower() else error)
            stranger.client.close()
            os.environ["SPARK_CONNECT_AUTHENTICATE_TOKEN"] = token
        from pyspark.sql import SparkSession
        from concurrent.futures import ThreadPoolExecutor
        def found():
            return SparkSession.builder.master("local[8]").getOrCreate(), SparkSession.getActiveSession()
        assert found() == (spark, spark) == ThreadPoolExecutor(1).submit(found).result()
        if api == "classic":
            heap = spark.sparkContext._jvm.java.lang.Runtime.getRuntime().maxMemory() >> 20
            assert 400 < heap <= 512, heap
            assert spark.sparkContext.master == "local[1]"
        with b.lease(mode="LOCAL") as second:
            try:
                second.open_session()
            except SessionConflict as error:
                print("conflict")
        if api == "classic":  # a second JVM of the process, after the first has ended
            spark.stop()
            for ask in (SparkSession.builder.getOrCreate, lambda: SparkContext("local[8]", "own")):
                try:
                    ask()
                except SessionEnded:
                    print("ended")
            try:
                with lease.session() as again:
                    assert again.range(9).count() == 9
                    again.sql("SELECT nonsense")
            except Exception as error:  # whose text is the JVM's
                assert type(error).__name__ == "AnalysisException" and "`nonsense`" in str(error), type(error)
    assert "SPARK_CONNECT_AUTHENTICATE_TOKEN" not in os.environ
    import subprocess
    children = subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "comm="], capture_output=True, text=True).stdout
    assert "java" not in children, children
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("api", ["classic", "connect"])
def test_local_sessions_have_the_leases_size_and_their_jvm_ends_with_them(
    broker: Any, run: Callable[..., str], spark_server: Any, state_folder: Path, api: str
) -> None:
    local(broker, state_folder)
    env = {"SPARK_REMOTE": "sc://elsewhere:1", "PYTHONWARNINGS": "ignore", "PYSPARK_PYTHON": sys.executable}
    env |= {"http_proxy": "http://127.0.0.1:9", "SPARK_LOCAL_REMOTE": "1", "PYSPARK_GATEWAY_PORT": "9"}
    expected = ["conflict", "ended", "ended"] if api == "classic" else ["refused", "conflict"]
    assert run(LOCAL, api, env=env, timeout=250).split() == expected
    assert not broker.live()


BARE = """
import sys
import sparkbroker.client as c
with c.Broker(sys.argv[1]) as b, b.lease() as lease:
    try:
        lease.open_session()
    except c.SparkbrokerError as error:
        print(type(error).__name__, error)
"""


def test_without_pyspark_it_says_how_to_get_it(broker: Any, run: Callable[..., str], state_folder: Path) -> None:
    (state_folder / "hide").mkdir()
    (state_folder / "hide" / "pyspark.py").write_text("raise ImportError('no pyspark here')")
    out = run(BARE, env={"PYTHONPATH": str(state_folder / "hide")})
    assert out.startswith("SparkMissing")
    assert "pip install 'sparkbroker[pyspark]'" in out


def test_two_pysparks_over_each_other_are_told(broker: Any, run: Callable[..., str], state_folder: Path) -> None:
    for name, version in (("pyspark", "4.3.0"), ("pyspark_client", "4.2.0")):
        info = state_folder / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n")
    out = run(BARE, env={"PYTHONPATH": str(state_folder)})
    assert out.startswith("SparkConflict pyspark 4.3.0 and pyspark-client 4.2.0")


@pytest.mark.timeout(600)
def test_pyspark_client_42(
    broker: Any, spark_server: Any, run: Callable[..., str], pyspark_client: str, state_folder: Path
) -> None:
    broker.connection = spark_server.connection
    root = Path(__file__).parents[2]
    path = os.pathsep.join(str(root / folder) for folder in ("client", "protos"))
    out = run(CONNECT, python=pyspark_client, env={"PYTHONPATH": path}, timeout=250)
    assert out.split() == ["4.3.0", "4.3.0", "SessionConflict", "SessionEnded", "True"]
    local(broker, state_folder)
    out = run(
        "import sys\nfrom sparkbroker.client import Broker, SparkMissing\n"
        "with Broker(sys.argv[1]) as b, b.lease(mode='LOCAL') as lease:\n"
        "    try:\n        lease.open_session()\n    except SparkMissing as error:\n        print(error)\n",
        python=pyspark_client,
        env={"PYTHONPATH": path},
    )
    assert "a LOCAL session needs the full pyspark" in out


@pytest.mark.timeout(600)
def test_pyspark_client_42_of_a_lost_lease(
    broker: Any, make_spark_server: Callable[[], Any], popen: Any, pyspark_client: str, state_folder: Path
) -> None:
    broker.ttl = 0.9
    broker.connection = make_spark_server().connection
    root = Path(__file__).parents[2]
    path = os.pathsep.join(str(root / folder) for folder in ("client", "protos"))
    program = state_folder / "losing.py"  # not -c: this pyspark takes that for a test of its own
    program.write_text(LOSING_WITHOUT_WITH)
    process = popen(
        [pyspark_client, str(program), broker.url],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert process.stdout.readline() == "up\n", process.stderr.read()
    broker.move(broker.live()[0], pb.LEASE_STATE_PREEMPTED, 0, "for a larger one")
    out, errors = process.communicate(timeout=60)
    assert out.count("lost UNSPECIFIED from ") == 4, errors
