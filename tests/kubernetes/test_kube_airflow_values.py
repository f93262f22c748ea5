"""The values for Airflow's official chart, held to facts of ours. The chart itself isn't here: docs say with which it was rendered."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from sparkbroker.broker.adapters.kubernetes_provisioner._names import PRINCIPAL
from sparkbroker.client._address import resolve_address

ROOT = Path(__file__).parents[2]
VALUES = ROOT / "examples" / "kubernetes" / "airflow-chart-values.yaml"


@pytest.fixture
def values():
    return yaml.safe_load(VALUES.read_text())


def test_its_airflow_is_the_one_that_is_tested(values):
    lock = (ROOT / "images" / "airflow" / "requirements.txt").read_text()
    tested = re.search(r"^apache-airflow==(\S+)", lock, re.MULTILINE)
    assert tested is not None
    assert values["airflowVersion"] == tested[1]


def test_workers_name_who_may_use_them_and_hold_no_credential_for_the_cluster(values):
    tutorial = list(yaml.safe_load_all((VALUES.parent / "airflow.yaml").read_text()))
    template = next(item["data"]["pod.yaml"] for item in tutorial if item["metadata"]["name"] == "airflow-worker")
    worker = yaml.safe_load(template)
    assert values["workers"]["podAnnotations"] == worker["metadata"]["annotations"]
    assert set(values["workers"]["podAnnotations"]) == {PRINCIPAL}
    assert values["workers"]["serviceAccount"]["automountServiceAccountToken"] is False
    assert worker["spec"]["automountServiceAccountToken"] is False


def test_pods_are_restricted(values):
    for pod in (values["securityContexts"]["pod"], values["statsd"]["securityContexts"]["pod"]):
        assert pod["runAsNonRoot"] is True
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}


def test_its_secret_is_the_one_that_the_tutorial_makes(values, tmp_path):
    (named,) = values["secret"]
    assert named["envName"] == named["secretKey"] == "AIRFLOW_CONN_SPARKBROKER_DEFAULT"
    tutorial = (ROOT / "docs" / "tutorial" / "kubernetes-airflow.md").read_text()
    made = re.search(r"create secret generic (\S+) --from-literal=(\w+)=\"\$\(python3 (\S+) (\S+) token", tutorial)
    assert made is not None
    assert (made[1], made[2]) == (named["secretName"], named["secretKey"])
    assert f"{named['secretKey']}=" in VALUES.read_text()

    token, certificate = tmp_path / "token", tmp_path / "broker.crt"
    token.write_text("secret\n")
    certificate.write_text("a certificate")
    command = [sys.executable, ROOT / made[3], made[4], token, certificate]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    connection = json.loads(shown)
    assert connection["conn_type"] == "sparkbroker"
    assert connection["password"] == "secret"
    address = resolve_address(connection["extra"]["url"], token=connection["password"])
    assert address.url == "grpcs://sparkbroker:7077"
