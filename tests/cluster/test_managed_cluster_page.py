"""The page that nobody executes: its values fit the chart, and its configuration the broker."""

import re
import subprocess
import sys

import pytest
import yaml  # type: ignore[import-untyped]

from tests.cluster.layout import HERE

ROOT = HERE.parents[1]
PAGE = (ROOT / "docs" / "how-to" / "managed-cluster.md").read_text()
VALUES = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0])


def test_its_configuration_is_the_broker_s(tmp_path):
    path = tmp_path / "broker.toml"
    path.write_text(VALUES["config"])
    command = [sys.executable, "-m", "sparkbroker.broker", "serve", "--check-config", "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.kubernetes
def test_its_values_are_the_chart_s(tool):
    words = ["template", "r", str(ROOT / "chart"), "--namespace", "sparkbroker", "--values", "-"]
    done = subprocess.run(
        [tool("helm"), *words], input=yaml.safe_dump(VALUES), capture_output=True, text=True, check=False, timeout=50
    )
    assert done.returncode == 0, done.stderr
    found = [item for item in yaml.safe_load_all(done.stdout) if item]
    assert {item["metadata"].get("namespace") for item in found if item["kind"] == "NetworkPolicy"} >= {
        "spark-red", "spark-blue",
    }  # fmt: skip
