"""What makes a process's pyspark open the lease's session, and reach it past a web proxy."""

import json
import os
import socket
import string
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkbroker.client import ConnectConnection, LocalConnection
from sparkbroker.client._loopback import is_loopback, is_loopback_address
from sparkbroker.client.child_environment import (
    MISLEADING,
    connect_variables,
    local_variables,
    spark_properties,
    without_misleading,
    without_proxy,
)
from sparkbroker.client.local_settings import local_settings
from sparkbroker.client.local_settings import local_variables as of_machine


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "0:0:0:0:0:0:0:1"])
def test_addresses_of_this_machine(host):
    assert is_loopback_address(host)
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["localhost", "LocalHost", "localhost.", "me.localhost"])
def test_names_of_this_machine(host):
    assert is_loopback(host)
    assert not is_loopback_address(host)


@pytest.mark.parametrize(
    "host",
    ["", "10.0.0.1", "::", "0.0.0.0", "localhost.example.org", "127.0.0.1.nip.io", "notlocalhost", "fe80::1",
     "::ffff:10.0.0.1", "127.0.0.1\0.org"],
)  # fmt: skip
def test_other_hosts(host):
    assert not is_loopback(host)


def test_another_machine_is_reached_as_the_user_says():
    assert without_proxy({"http_proxy": "http://p:3128", "no_proxy": "a"}, "driver.example.org") == {}


@pytest.mark.parametrize(
    ("environ", "kept"),
    [
        ({}, ""),
        ({"no_proxy": "a.org, 10.0.0.0/8 ,"}, "a.org,10.0.0.0/8,"),
        ({"no_grpc_proxy": "g", "no_proxy": "a"}, "g,"),
        ({"NO_PROXY": "UP"}, "UP,"),
        ({"no_proxy": "low", "NO_PROXY": "UP"}, "low,"),
        # gRPC then reads no ``no_proxy``; neither do we.
        ({"no_grpc_proxy": "", "no_proxy": "a"}, ""),
    ],
)
def test_what_the_user_says_of_proxies_is_kept(environ, kept):
    assert without_proxy(environ, "127.0.0.1") == {"no_grpc_proxy": f"{kept}127.0.0.1,::1,localhost"}


WORD = st.text(string.ascii_lowercase + "./:*", min_size=1, max_size=8)


@given(st.lists(WORD, max_size=5), st.sampled_from(["no_grpc_proxy", "no_proxy", "NO_PROXY"]))
def test_no_host_of_the_users_is_lost_and_doing_it_twice_changes_nothing(hosts, name):
    environ = {name: ",".join(hosts)}
    once = without_proxy(environ, "127.0.0.2")
    assert set(hosts) | {"127.0.0.2"} <= set(once["no_grpc_proxy"].split(","))
    assert without_proxy(environ | once, "127.0.0.2") == once


@pytest.fixture
def proxy():
    """A web proxy: it tells which hosts it is asked for, and refuses them."""
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(10)
                    asked.append(connection.recv(4096).partition(b"\r")[0].decode())

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


CALL = """
import sys, grpc
for target in sys.argv[1:]:
    with grpc.insecure_channel(target) as channel:
        try:
            channel.unary_unary("/x/y")(b"", timeout=5)
        except grpc.RpcError as error:
            print(error.code().name)
"""


@pytest.fixture
def endpoint():
    """A gRPC server that knows no call."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield port
        server.stop(None).wait()


@pytest.mark.parametrize("variable", ["grpc_proxy", "https_proxy", "http_proxy"])
def test_grpc_itself_reads_it_so(proxy, endpoint, variable):
    url, asked = proxy
    base = {"PATH": os.environ["PATH"], variable: url, "no_proxy": "a.invalid"}
    environ = base | without_proxy(base, "127.0.0.1")
    targets = [f"127.0.0.1:{endpoint}", f"localhost:{endpoint}", "a.invalid:1", "b.invalid:1"]
    done = subprocess.run(
        [sys.executable, "-c", CALL, *targets], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["UNIMPLEMENTED", "UNIMPLEMENTED", "UNAVAILABLE", "UNAVAILABLE"]
    assert set(asked) == {"CONNECT b.invalid:1 HTTP/1.1"}, "the user's own exception holds, and the proxy for the rest"


CONNECT = ConnectConnection(
    endpoint="sc://127.0.0.1:15002",
    session_id="0f0e0d0c-0000-4000-8000-000000000001",
    user_id="u",
    headers={"authorization": "Bearer s3cret"},
)


def test_a_connect_lease_is_given_by_spark_remote():
    variables = connect_variables({"no_proxy": "a"}, CONNECT, lease="leases/a", ca_file="/f/ca.pem")
    assert json.loads(variables.pop("SPARKBROKER_PROGRAM")) == {
        "lease": "leases/a",
        "settings": {"spark.remote": CONNECT.url()},
    }
    assert variables == {
        "SPARK_REMOTE": CONNECT.url(),
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": "/f/ca.pem",
        "no_grpc_proxy": "a,127.0.0.1,::1,localhost",
    }


LOCAL = LocalConnection(master="local[2]", conf={"spark.driver.memory": "1g", "spark.x": "y"})


def test_a_local_lease_is_given_by_a_file_of_properties():
    variables = local_variables({}, LOCAL, lease="leases/a", properties_file="/a b/spark.conf", python="/v/bin/python")
    assert json.loads(variables.pop("SPARKBROKER_PROGRAM")) == {
        "lease": "leases/a",
        "settings": {"spark.master": "local[2]", "spark.driver.memory": "1g"},
    }
    assert variables == {
        "PYSPARK_SUBMIT_ARGS": "--load-spark-defaults --properties-file '/a b/spark.conf' pyspark-shell",
        "MASTER": "local[2]",
        "PYSPARK_PYTHON": "/v/bin/python",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_DIRS": "/a b/scratch",
        "SPARK_SUBMIT_OPTS": "'-Djava.io.tmpdir=/a b'",
        "no_grpc_proxy": "127.0.0.1,::1,localhost",
    }


def test_workers_have_the_commands_python_unless_the_caller_says_otherwise():
    environ = {"PYSPARK_PYTHON": "/other"}
    assert "PYSPARK_PYTHON" not in local_variables(
        environ, LOCAL, lease="l", properties_file="f", python="/v/bin/python"
    )


def test_a_packaged_java_is_named():
    assert local_variables({}, LOCAL, lease="l", properties_file="f", java_home="/j")["JAVA_HOME"] == "/j"


@pytest.mark.parametrize("name", [*sorted(MISLEADING), "PYSPARK_REMOTE_INIT_CONF_0", "PYSPARK_REMOTE_INIT_CONF_LEN"])
def test_what_another_session_left_is_removed(name):
    assert without_misleading({name: "x", "KEPT": "1", "SPARK_HOME": "/s"}) == {"KEPT": "1", "SPARK_HOME": "/s"}


def test_properties_are_written_as_java_reads_them():
    assert spark_properties([("a b", "c=\\:#é\t!\f")]) == "a\\ b=c\\=\\\\\\:\\#é\\t\\!\\f\n"


def test_a_local_session_has_loopback_and_a_folder_of_its_own_unless_the_user_says_otherwise(tmp_path):
    conf = {"spark.master": "local[2]", "spark.ui.enabled": "true"}
    assert local_settings(conf) | conf == local_settings(conf)
    assert local_settings(conf)["spark.driver.host"] == local_settings(conf)["spark.driver.bindAddress"] == "127.0.0.1"
    assert local_settings({"spark.master": "local"})["spark.ui.enabled"] == "false"
    assert local_settings({"spark.master": "k8s://x"}) == {"spark.master": "k8s://x"}
    java = {"SPARK_SUBMIT_OPTS": f"-Djava.io.tmpdir={tmp_path}"}
    own = {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_LOCAL_DIRS": str(tmp_path / "scratch")}
    assert of_machine({}, conf, tmp_path) == own | java
    assert of_machine({"SPARK_LOCAL_IP": "10.0.0.1", "SPARK_LOCAL_DIRS": "/d"}, conf, tmp_path) == java
    assert of_machine({"SPARK_SUBMIT_OPTS": "-Da=b"}, conf, Path("/a b"))["SPARK_SUBMIT_OPTS"] == (
        "'-Djava.io.tmpdir=/a b' -Da=b"
    )
    assert "SPARK_LOCAL_DIRS" not in of_machine({}, {**conf, "spark.local.dir": "/d"}, tmp_path)
