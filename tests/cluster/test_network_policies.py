"""The chart's NetworkPolicies on a network that enforces them: who reaches which port of a driver, and of an executor.

A program that listens stands in for Spark. On another cluster than that of ``make cluster`` set ``SPARKBROKER_TEST_NETWORK_POLICIES=1``
if its network enforces policies.
"""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from tools.cluster.policies import DAEMON
from tools.cluster.processes import daemons

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300)]
CHART = Path(__file__).parents[2] / "chart"
IMAGE = os.environ.get("SPARKBROKER_TEST_IMAGE", "sparkbroker.test/spark:1")
CONNECT, UI, DRIVER, BLOCKS = 15002, 4040, 7078, 7079
LISTEN = f"""
import socket, threading
listeners = [socket.create_server(("", port), reuse_port=True) for port in ({CONNECT}, {UI}, {DRIVER}, {BLOCKS})]
def serve(listener):
    while True:
        listener.accept()[0].close()
for listener in listeners[1:]:
    threading.Thread(target=serve, args=[listener], daemon=True).start()
serve(listeners[0])
"""
REACH = """
import json, socket, sys
def opens(port):
    try:
        socket.create_connection((sys.argv[1], port), timeout=2).close()
    except OSError:
        return False
    return True
print(json.dumps([port for port in map(int, sys.argv[2:]) if opens(port)]))
"""
ROLE = "sparkbroker.io/role"


@pytest.fixture
def enforced(need):
    ours = any(daemon.name == DAEMON and daemon.lives() for daemon in daemons())
    need(ours or os.environ.get("SPARKBROKER_TEST_NETWORK_POLICIES"), "a network that enforces NetworkPolicies")


@pytest.fixture
def policies(kubectl, tool, namespace, enforced):
    """The chart's, in the test's namespace; sessions are for pods with the label ``may: connect``."""
    peers = [{"podSelector": {"matchLabels": {"may": "connect"}}}]
    values = {"sparkNamespaces": [namespace], "networkPolicy": {"driverClients": peers}, "fullnameOverride": namespace}
    words = ["template", "r", str(CHART), "--namespace", namespace, "--show-only=templates/spark/networkpolicy.yaml"]
    done = subprocess.run(
        [tool("helm"), *words, "--values", "-"],
        input=yaml.safe_dump(values), capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    items = [item for item in yaml.safe_load_all(done.stdout) if item]
    made = kubectl("apply", "-f", "-", given={"apiVersion": "v1", "kind": "List", "items": items})
    assert made.returncode == 0, made.stderr
    return namespace


@pytest.fixture
def pods(kubectl):
    """``pods(namespace, {name: labels})``: they listen on Spark's ports; their addresses."""

    def make(namespace, wanted):
        security = {"runAsNonRoot": True, "runAsUser": 185, "seccompProfile": {"type": "RuntimeDefault"}}
        container = {
            "name": "it", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["python3", "-c", LISTEN],
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        }  # fmt: skip
        spec = {
            "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 0,
            "securityContext": security, "containers": [container],
        }  # fmt: skip
        items = [
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}
            for name, labels in wanted.items()
        ]
        everything = {"apiVersion": "v1", "kind": "List", "items": items}
        made = kubectl("-n", namespace, "create", "-f", "-", given=everything)
        assert made.returncode == 0, made.stderr
        waited = kubectl("-n", namespace, "wait", "pod", *wanted, "--for=condition=Ready", "--timeout=45s")
        assert waited.returncode == 0, waited.stderr
        shown = json.loads(kubectl("-n", namespace, "get", "pods", "-o", "json").stdout)
        return {item["metadata"]["name"]: item["status"]["podIP"] for item in shown["items"]}

    return make


@pytest.fixture
def elsewhere(kubectl, namespace):
    name = f"{namespace}-b"
    assert kubectl("create", "namespace", name).returncode == 0
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.mark.long
def test_who_reaches_a_driver_and_an_executor(kubectl, policies, pods, elsewhere):
    wanted = {
        "driver": {ROLE: "driver"},
        "holder": {ROLE: "driver", "sparkbroker.io/holder": "true"},
        "executor": {ROLE: "executor"},
        "friend": {"may": "connect"},
        "stranger": {},
    }
    at = pods(policies, wanted)
    pods(elsewhere, {"namesake": {"may": "connect"}})

    def reached(who, whom, namespace=policies):
        ports = map(str, (CONNECT, UI, DRIVER, BLOCKS))
        done = kubectl("-n", namespace, "exec", who, "--", "python3", "-c", REACH, at[whom], *ports)
        assert done.returncode == 0, done.stderr
        return set(json.loads(done.stdout))

    # What enforces them learns of pods and policies a moment later than they exist.
    end = time.monotonic() + 60
    while reached("friend", "driver") != {CONNECT, UI} or reached("stranger", "driver"):
        assert time.monotonic() < end, (reached("friend", "driver"), reached("stranger", "driver"))
    assert reached("executor", "driver") == {DRIVER, BLOCKS}
    assert reached("namesake", "driver", elsewhere) == set()
    assert reached("driver", "executor") == {CONNECT, UI, DRIVER, BLOCKS}
    assert reached("friend", "executor") == set()
    assert reached("stranger", "executor") == set()
    # A holder's own pod is its owner's to protect.
    assert reached("stranger", "holder") == {CONNECT, UI, DRIVER, BLOCKS}
