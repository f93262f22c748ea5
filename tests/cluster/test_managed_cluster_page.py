"""The page that nobody executes: its values fit the chart, and its configuration the broker."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from sparkbroker.broker.adapters.kubernetes_provisioner._names import HOLDER, OWNER

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "managed-cluster.md").read_text()
TEXT = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0]
VALUES = yaml.safe_load(TEXT)
CLOUD_S = re.compile(r"gp3|aws|s3a:|googleapis|gserviceaccount|azure", re.IGNORECASE)


def test_its_configuration_is_the_broker_s(tmp_path):
    path = tmp_path / "broker.toml"
    path.write_text(VALUES["config"])
    command = [sys.executable, "-m", "sparkbroker.broker", "serve", "--check-config", "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_one_cloud_s_is_marked():
    lines = [line for line in TEXT.splitlines() if CLOUD_S.search(line.partition("   #")[0])]
    assert len(lines) == 5
    for line in lines:
        assert re.search(r"   # EKS\. GKE.* AKS: ", line), line
    # GKE refuses these outside of kube-system.
    assert not VALUES.get("priorityClassName", "").startswith("system-")


def test_what_a_broker_left_is_found_by_its_label_and_users_own_pods_are_spared():
    [selector] = re.findall(r"delete pods,\S+ -l '([^']+)'", PAGE)
    assert selector == f"{OWNER}=<value>,!{HOLDER}"


@pytest.fixture
def rendered(tool):
    words = ["template", "r", str(ROOT / "chart"), "--namespace", "sparkbroker", "--values", "-"]
    given = yaml.safe_dump(VALUES)

    def run():
        done = subprocess.run(
            [tool("helm"), *words], input=given, capture_output=True, text=True, check=False, timeout=50
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.kubernetes
def test_its_values_are_the_chart_s(rendered):
    found = [item for item in yaml.safe_load_all(rendered()) if item]
    assert {item["metadata"].get("namespace") for item in found if item["kind"] == "NetworkPolicy"} >= {
        "spark-red", "spark-blue",
    }  # fmt: skip


@pytest.mark.kubernetes
def test_with_its_secrets_each_rendering_is_the_same(rendered):
    assert rendered() == rendered()
