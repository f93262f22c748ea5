"""docs/tutorial/kubernetes-airflow.md, command by command, in a namespace of another name."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from sparkbroker.broker.adapters.kubernetes_provisioner._api import Api
from sparkbroker.broker.adapters.system_clock import SystemClock
from tests.kubernetes.kube_airflow import IMAGE, ROOT, KubeAirflow
from tests.kubernetes.space import Space, check_image, check_needs
from tools.cluster.layout import BIN

pytestmark = [pytest.mark.kubernetes, pytest.mark.long, pytest.mark.timeout(900)]
PAGE = ROOT / "docs" / "tutorial" / "kubernetes-airflow.md"
ELSEWHERE = re.compile(r"make cluster|python3 -m tools\.cluster|export |.* (--watch|port-forward) ?.*")
"""What has been done where this test runs, and what a person ends."""
NAMESPACE = re.compile(r"(--namespace|namespace) airflow\b")
PATH = os.pathsep.join([str(Path(sys.executable).parent), str(BIN), os.environ["PATH"]])


def commands():
    """What the page has one type."""
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.fixture
def folder(tmp_path):
    """The parts of a clone that the page uses; its pods are of the test's own namespace."""
    for name in ("chart", "examples/kubernetes"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


async def test_the_tutorial(need, folder):
    check_needs(need)
    for tool in ("kubectl", "helm", "openssl"):
        need(shutil.which(tool, path=PATH), tool)
    name = f"test-{uuid.uuid4().hex[:8]}"
    values = folder / "examples" / "kubernetes" / "broker-values.yaml"
    values.write_text(values.read_text().replace('namespace = "airflow"', f'namespace = "{name}"'))
    api = await Api.connect(SystemClock())
    airflow = KubeAirflow(Space(api, name))
    ran = []
    try:
        await check_image(need, airflow.space, IMAGE)
        for command in commands():
            if ELSEWHERE.match(command):
                continue
            if "dags trigger" in command:
                await airflow.until_serving({"spark_on_kubernetes"})
            said = await run(NAMESPACE.sub(rf"\1 {name}", command), folder)
            ran.append(command)
            if "dags trigger" in command:
                await computed(airflow)
            elif command.endswith("get pods"):
                assert [line.split("-")[0] for line in said.splitlines()[1:]].count("spark") == 0, said
        assert len(ran) == 14
    finally:
        if ran and not ran[-1].endswith("delete namespace airflow"):
            await run(f"helm uninstall sparkbroker --namespace {name} --ignore-not-found --no-hooks", folder)
            await run(f"kubectl delete namespace {name} --wait=false", folder)
        await api.close()


async def computed(airflow):
    (dag_run,) = await airflow.ask("runs", "spark_on_kubernetes")
    states = await airflow.until_ended("spark_on_kubernetes", dag_run)
    assert set(states.values()) == {"success"}, await airflow.log("spark_on_kubernetes", dag_run, "classic")
    found = await airflow.xcom("spark_on_kubernetes", dag_run, "classic")
    assert found == {"total": 499500, "squares": 328350, "executors": 2}
    async with asyncio.timeout(120):  # the workers' pods are removed after their tasks have ended
        while len(await airflow.space.pods()) > 2:
            await asyncio.sleep(0.5)


async def run(command, folder):
    environment = {**os.environ, "PATH": PATH}
    done = await asyncio.to_thread(
        subprocess.run, ["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=environment,
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout
