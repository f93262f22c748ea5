"""The tools and the cluster that these tests use."""

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator

import pytest

from tools.cluster import layout

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def tool(need) -> Callable[[str], str]:
    """The path of ``helm`` or ``kubectl``: the cluster's own, else PATH's."""

    def find(name: str) -> str:
        own = layout.BIN / name
        found = str(own) if own.exists() else shutil.which(name)
        need(found, f"{name} (`python3 -m tools.cluster build` compiles it)")
        return str(found)

    return find


@pytest.fixture(scope="session")
def kubectl(need, tool, run_folder) -> Run:
    """``kubectl(*words, given=None, token=None)`` on the cluster of KUBECONFIG; ``given`` is an object for its stdin."""
    need(os.environ.get("KUBECONFIG"), "a cluster (KUBECONFIG; `make cluster` starts one)")
    program = tool("kubectl")
    nobody = run_folder / "nobody.kubeconfig"
    nobody.write_text(without_users(program))

    def run(*words, given=None, token=None):
        who = ["--token", token, "--kubeconfig", nobody] if token else []
        text = json.dumps(given) if given is not None else None
        return subprocess.run(
            [program, *who, *words], input=text, capture_output=True, text=True, check=False, timeout=50
        )

    return run


@pytest.fixture
def namespace(kubectl) -> Iterator[str]:
    """A namespace of this test alone, under the restricted Pod Security standard."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    made = kubectl("create", "-f", "-", given=manifest("v1", "Namespace", name, labels=labels))
    assert made.returncode == 0, made.stderr
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def manifest(version: str, kind: str, name: str, *, labels: dict[str, str]) -> dict[str, object]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels}}


def without_users(program: str) -> str:
    """A kubeconfig that knows the cluster and nobody's credentials: beside a client certificate a token doesn't count."""
    words = [program, "config", "view", "--raw", "--minify", "--flatten", "--output=json"]
    config = json.loads(subprocess.run(words, capture_output=True, text=True, check=True, timeout=50).stdout)
    config["users"] = [{"name": user["name"], "user": {}} for user in config["users"]]
    return json.dumps(config)
