"""The chart's admission policy, for one namespace and the accounts of a test."""

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import yaml  # type: ignore[import-untyped]

from tests.kubernetes.space import Space

CHART: Final = Path(__file__).parents[2] / "chart"
_BASE: Final = "/apis/admissionregistration.k8s.io/v1"
_KINDS: Final = {
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}


@asynccontextmanager
async def policy(space: Space, helm: str) -> AsyncIterator[str]:
    """Yields the value of ``[kubernetes] owner`` that a broker needs under it."""
    shown = await asyncio.to_thread(_render, space.name, helm)
    (owner,) = set(re.findall(r"\['sparkbroker.io/owner'\]\s+== '([^']+)'", shown))
    made: list[str] = []
    try:
        for item in filter(None, yaml.safe_load_all(shown)):
            path = f"{_BASE}/{_KINDS[item['kind']]}"
            await space.post(path, item)
            made.append(f"{path}/{item['metadata']['name']}")
        yield owner
    finally:
        for path in reversed(made):
            await space.delete(path)


def _render(namespace: str, helm: str) -> str:
    values = {
        "fullnameOverride": namespace,
        "driver": {"serviceAccount": {"name": "driver"}},
        "executor": {"serviceAccount": {"name": "executor"}},
        "admissionPolicy": {"maxCpu": "2", "maxMemory": "4Gi"},
    }
    command = [helm, "template", "r", str(CHART), "--namespace", namespace]
    command += ["--show-only=templates/spark/admission-policy.yaml", "--values", "-"]
    given = yaml.safe_dump(values)
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=True, timeout=50)
    return str(done.stdout)
