"""Programs that know nothing of leases: what they say themselves about where their Spark is. Real pyspark, no server."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparkbroker.client import ConnectConnection, LocalConnection, child_environment
from sparkbroker.client._program_lead import VARIABLE, ProgramLead, secrets_of

pytestmark = [pytest.mark.timeout(100)]

SECRET = "5ecret/+=of the driver"
CONNECT = ConnectConnection(
    endpoint="sc://127.0.0.1:1", session_id="5b1c5a2a-8f5e-4b0a-9e0e-0d2d3b5f5a11", user_id="u",
    headers={"authorization": f"Bearer {SECRET}"},
)  # fmt: skip
LOCAL = LocalConnection(master="local[1]", conf={"spark.driver.memory": "512m"})


@pytest.fixture
def run(state_folder: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    pytest.importorskip("pyspark.sql.connect.client", exc_type=ImportError)

    def do(text: str, variables: dict[str, str], *flags: str, **more: str) -> "subprocess.CompletedProcess[str]":
        file = state_folder / "job.py"
        file.write_text(text)
        environ = child_environment.without_misleading(os.environ) | variables | more
        environ["PYTHONPATH"] = child_environment.python_path(more)
        return subprocess.run(
            [sys.executable, *flags, str(file)], env=environ, capture_output=True, text=True, timeout=80, check=False
        )

    return do


def connect() -> dict[str, str]:
    return child_environment.connect_variables({}, CONNECT, lease="leases/a")


UNCHANGED = """
import os, sys, traceback
# Without it, what fails here waits at its exit for pyspark to give up on a server that isn't there.
sys.excepthook = lambda *error: (traceback.print_exception(*error), os._exit(1))
from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession
from pyspark.sql.connect.session import SparkSession as ConnectSession

spark = SparkSession.builder.master("local[*]").getOrCreate()
os.environ["SPARK_REMOTE"] = "sc://127.0.0.1:2/;token=of-another"
os.environ["MASTER"] = "yarn"
asked = [
    SparkSession.builder.remote("local"),
    SparkSession.builder.remote("sc://127.0.0.1:2/;token=of-another"),
    SparkSession.builder.config(conf=SparkConf().setMaster("yarn")),
    SparkSession.builder.config(map={"spark.api.mode": "classic", "spark.master": "k8s://x"}),
    ConnectSession.builder.remote("sc://127.0.0.1:2"),
]
for builder in asked:
    assert builder.getOrCreate() is spark
assert spark.client._builder.endpoint == "127.0.0.1:1"
assert ("authorization", "Bearer 5ecret/+=of the driver") in spark.client._builder.metadata()
for make in (lambda: SparkContext("local[3]"), lambda: SparkContext.getOrCreate()):
    try:
        make()
    except RuntimeError as error:
        print(error)
spark.client.close()
try:
    SparkSession.builder.getOrCreate()
except RuntimeError as error:
    print(error)
"""


def test_the_lease_decides_where_a_programs_spark_is(run: Callable[..., Any]) -> None:
    done = run(UNCHANGED, connect())
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert "leases/a is in mode CONNECT, which has no SparkContext" in first
    assert first == second
    assert "has been stopped" in third
    told = [line for line in done.stderr.splitlines() if line.startswith("sparkbroker: ")]
    assert told == [
        "sparkbroker: the program's own spark.master is ignored: its Spark is leases/a",
        "sparkbroker: the program's own spark.remote is ignored: its Spark is leases/a",
    ]
    assert "of-another" not in done.stderr


@pytest.mark.parametrize("error", ["PySparkRuntimeError", "PySparkValueError"])
def test_no_error_of_pysparks_has_the_token(run: Callable[..., Any], error: str) -> None:
    text = f"""
import os
from pyspark.errors import {error}
raise {error}(errorClass="CANNOT_CONFIGURE_SPARK_CONNECT_MASTER",
    messageParameters={{"master_url": "local", "connect_url": os.environ["SPARK_REMOTE"]}})
"""
    done = run(text, connect())
    assert "[CANNOT_CONFIGURE_SPARK_CONNECT_MASTER]" in done.stderr
    assert "sc://127.0.0.1:1/;authorization=***" in done.stderr
    assert "5ecret" not in done.stderr + done.stdout


LOOPBACK = """
import os, socket, sys
from concurrent import futures
import grpc
from pyspark.sql.connect.client.core import DefaultChannelBuilder
server = grpc.server(futures.ThreadPoolExecutor(1))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
stranger = socket.create_server(("::1", port), family=socket.AF_INET6)
stranger.setblocking(False)
url = f"sc://localhost:{port}"
assert DefaultChannelBuilder(url).endpoint == f"localhost:{port}", "no server of this process's"
os.environ["SPARK_LOCAL_REMOTE"] = "1"
os.environ["SPARK_CONNECT_AUTHENTICATE_TOKEN"] = "secret"
grpc.channel_ready_future(DefaultChannelBuilder(url).toChannel()).result(20)
assert DefaultChannelBuilder("sc://elsewhere").endpoint == "elsewhere:15002"
try:
    stranger.accept()
except BlockingIOError:
    print("not asked")
"""


def test_the_server_that_pyspark_has_started_is_not_looked_for_at_anothers_address(run: Callable[..., Any]) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no ::1")
    variables = child_environment.local_variables({}, LOCAL, lease="leases/a", properties_file="none")
    done = run(LOOPBACK, variables)
    assert (done.returncode, done.stdout) == (0, "not asked\n"), done.stderr


CONTEXT = """
from pyspark import SparkConf, SparkContext
seen = []




SparkContext._ensure_initialized = classmethod(lambda cls, instance=None, gateway=None, conf=None: None)
SparkContext._do_init = lambda self, master, appName, home, files, env, size, serializer, conf, *rest: seen.append(
    (master, dict(conf.getAll()), appName))
SparkConf.__init__.__defaults__ = (False, None, None)
SparkContext("local[8]", "mine")
SparkContext(master="local[8]", appName="mine", conf=SparkConf().set("spark.driver.memory", "64g").set("spark.a", "b"))
SparkContext(conf=SparkConf().setMaster("yarn").setAppName("mine"))
for master, conf, name in seen:
    print(master, conf["spark.master"], conf["spark.driver.memory"], conf.get("spark.a"), name)
"""


def test_a_local_lease_keeps_its_size(run: Callable[..., Any]) -> None:
    done = run(CONTEXT, child_environment.local_variables({}, LOCAL, lease="leases/a", properties_file="/x"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "local[1] local[1] 512m None mine",
        "local[1] local[1] 512m b mine",
        "local[1] local[1] 512m None None",
    ]
    assert "the program's own spark.driver.memory is ignored" in done.stderr


def test_a_program_without_spark_isnt_touched(run: Callable[..., Any], state_folder: Path) -> None:
    (state_folder / "own").mkdir()
    (state_folder / "own" / "sitecustomize.py").write_text("print('hidden')")
    done = run("import sys; print('pyspark' in sys.modules)", connect(), PYTHONPATH=str(state_folder / "own"))
    assert done.stdout.splitlines() == ["hidden", "False"]
    assert done.stderr == ""


def test_secrets_are_found_as_they_are_written_and_as_they_are_sent() -> None:
    secrets = secrets_of(CONNECT.url())
    assert SECRET in secrets
    assert "5ecret%2F%2B%3Dof%20the%20driver" in secrets
    assert not [known for known in secrets if known in (CONNECT.user_id, CONNECT.session_id)]
    assert secrets_of("") == secrets_of("sc://h:1") == []


def test_what_is_scrubbed_is_all_of_it() -> None:
    lead = ProgramLead({VARIABLE: json.dumps({"lease": "leases/a", "settings": {"spark.remote": CONNECT.url()}})})
    scrubbed = lead.scrub(f"{CONNECT.url()} Bearer {SECRET} {SECRET}")
    assert "5ecret" not in scrubbed
    assert scrubbed.startswith("sc://127.0.0.1:1/;authorization=***;user_id=u")


def test_a_local_lease_has_the_connect_api_where_the_program_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lead = ProgramLead({VARIABLE: json.dumps({"lease": "leases/a", "settings": {"spark.master": "local[1]"}})})
    assert lead.options({"spark.remote": "local[8]"}) == {"spark.remote": "local[8]"}
    assert lead.options({"spark.remote": "sc://elsewhere", "spark.a": "b"}) == {"spark.a": "b"}
    monkeypatch.setenv("SPARK_LOCAL_REMOTE", "1")  # pyspark's own, when it has started the server
    assert lead.options({"spark.remote": "sc://localhost"}) == {"spark.remote": "sc://localhost"}
