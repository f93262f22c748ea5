"""The token of a connection is in no log, trigger, XCom, rendered template or lease, in a real Airflow."""

import json
import subprocess
import sys

import pytest

from tests.airflow.services import Place

TOKEN = "the-token-that-nobody-may-ever-see-anywhere"
pytestmark = [pytest.mark.services, pytest.mark.spark, pytest.mark.timeout(600)]


AIRFLOWS_OWN = ("scheduler.log", b"[task.stdout]")
"""Where LocalExecutor of Airflow 3 repeats what a task prints, with nothing masked: it would show any connection's password."""


def holders(folder):
    """Files in which the token is."""
    return [path for path in folder.rglob("*") if path.is_file() and shows_it(path)]


def shows_it(path):
    name, mark = AIRFLOWS_OWN
    lines = [line for line in path.read_bytes().split(b"\n") if TOKEN.encode() in line]
    return any(path.name != name or mark not in line for line in lines)


def test_the_token_is_nowhere(airflow_services, spark_broker):
    connection = json.loads(spark_broker.connection()) | {"password": TOKEN}
    add = [sys.executable, "-m", "airflow", "connections", "add", "guarded", "--conn-json", json.dumps(connection)]
    subprocess.run(add, env=airflow_services.env, check=True, capture_output=True, timeout=240)
    run = airflow_services.trigger("secret")
    place = Place("secret", run, "tell")
    assert airflow_services.wait_task(place, seconds=240)["state"] == "success"
    log = airflow_services.task_log(place)
    assert "by the token >***<" in log
    assert "is READY" in log, "it waited in the triggerer"
    assert holders(airflow_services.folder) == []
    assert holders(spark_broker.folder) == []
