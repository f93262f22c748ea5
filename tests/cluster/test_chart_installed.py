"""The chart's life on a real cluster: installed, tested, upgraded under a live session, uninstalled with nothing left.

Images: ``SPARKBROKER_TEST_BROKER_IMAGE`` and ``SPARKBROKER_TEST_IMAGE``, by default those that ``make cluster`` loads.
"""

import dataclasses
import json
import os
import select
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml  # type: ignore[import-untyped]

from sparkbroker.client import Broker, ConnectConnection

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]
CHART = Path(__file__).parents[2] / "chart"
BROKER_IMAGE = os.environ.get("SPARKBROKER_TEST_BROKER_IMAGE", "sparkbroker.test/broker:1")
SPARK_IMAGE = os.environ.get("SPARKBROKER_TEST_IMAGE", "sparkbroker.test/spark:1")
FORWARD_TIMEOUT = 20.0


@pytest.fixture
def values(namespace):
    """Everything in one namespace, at the sizes of a small machine."""
    repository, _, tag = BROKER_IMAGE.rpartition(":")
    config = {
        "capacity": "[capacity.cluster]\ncpu = 4\nmemory = '8g'\n",
        "queues": "[queues.default]\n",
        "profiles": (
            "[profiles.default]\nprovisioner = 'kubernetes'\npool = 'cluster'\nexecutors = { min_count = 1, max_count = 1, cores = 1, memory = '512m' }\n"
            "driver = { cores = 1, memory = '600m' }\n"
            f"[profiles.default.pod]\nimage = '{SPARK_IMAGE}'\nimage_pull_policy = 'IfNotPresent'\n"
            f"namespace = '{namespace}'\nservice_account = 'sparkbroker-driver'\n"
            "executor_service_account = 'sparkbroker-executor'\ndriver_cpu_request = '200m'\n"
            "executor_cpu_request = '100m'\n"
        ),
    }
    return {
        "image": {"repository": repository, "tag": tag},
        "fullnameOverride": namespace,
        "config": "\n".join(config.values()),
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        "persistence": {"size": "1Gi"},
    }


@pytest.fixture
def helm(tool, namespace, kubectl) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """``helm(*words, values=…)`` in that namespace; the release that is left at the end is removed."""
    program = tool("helm")

    def run(*words, values=None, check=True):
        argv = [program, "--namespace", namespace, *words, *(["--values", "-"] if values is not None else [])]
        given = yaml.safe_dump(values) if values is not None else None
        done = subprocess.run(argv, input=given, capture_output=True, text=True, check=False, timeout=400)
        if check:
            assert done.returncode == 0, f"helm {words}: {done.stdout}{done.stderr}\n{state_of(kubectl, namespace)}"
        return done

    yield run
    subprocess.run(
        [program, "--namespace", namespace, "uninstall", "r", "--no-hooks", "--ignore-not-found"],
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    """What a failed test leaves open would keep the interpreter from ending."""
    with ExitStack() as stack:
        yield stack


def state_of(kubectl, namespace) -> str:
    """What a reader of a failure wants to see."""
    words = (("get", "pods", "-o", "wide"), ("get", "events"), ("logs", f"deployment/{namespace}", "--tail=40"))
    return "\n".join(kubectl("-n", namespace, *each).stdout for each in words)


@contextmanager
def forwarded(tool, namespace, target, port, local=0) -> Iterator[int]:
    """``kubectl port-forward``: the port on 127.0.0.1."""
    words = [tool("kubectl"), "-n", namespace, "port-forward", "--address=127.0.0.1", target, f"{local or ''}:{port}"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            readable, _, _ = select.select([process.stdout], [], [], FORWARD_TIMEOUT)
            line = process.stdout.readline() if readable else ""
            assert line.startswith("Forwarding from 127.0.0.1:"), line
            yield int(line.split(" -> ")[0].rpartition(":")[2])
        finally:
            process.terminate()


def secret(kubectl, namespace, name, key) -> str:
    shown = kubectl(
        "-n", namespace, "get", "secret", name, "-o", f'go-template={{{{index .data "{key}" | base64decode}}}}'
    )
    assert shown.returncode == 0, shown.stderr
    return str(shown.stdout)


def names_of(kubectl, namespace) -> set[str]:
    """Everything that is in a namespace, but for what Kubernetes itself puts into each."""
    kinds = (
        "pods,secrets,services,configmaps,serviceaccounts,persistentvolumeclaims,deployments,replicasets,jobs,roles,"
        "rolebindings,networkpolicies"
    )
    shown = kubectl("-n", namespace, "get", kinds, "-o", "name")
    assert shown.returncode == 0, shown.stderr
    return set(shown.stdout.split()) - {"configmap/kube-root-ca.crt", "serviceaccount/default"}


def drivers(kubectl, namespace) -> list[tuple[str, str]]:
    """Name and uid of each driver's pod."""
    shown = kubectl("-n", namespace, "get", "pods", "-l", "sparkbroker.io/role=driver", "-o", "json")
    found = [item["metadata"] for item in json.loads(shown.stdout)["items"]]
    return [(each["name"], each["uid"]) for each in found]


def test_installed_it_answers_and_its_pod_has_no_rights_on_its_node(helm, kubectl, namespace, values):
    helm("install", "r", str(CHART), "--wait", "--timeout=180s", values=values)
    helm("test", "r", "--timeout=120s")
    inside = "id -u; touch /opt/x 2>&1; touch /var/lib/sparkbroker/x && echo state is writable"
    shown = kubectl("-n", namespace, "exec", f"deployment/{namespace}", "--", "bash", "-c", inside)
    user, refused, state = shown.stdout.splitlines()
    assert (user, state) == ("10001", "state is writable")
    assert "Read-only file system" in refused


def test_a_session_survives_an_upgrade_and_an_uninstall_ends_it(helm, kubectl, tool, namespace, values, tmp_path, ends):
    helm("install", "r", str(CHART), "--wait", "--timeout=180s", values=values)
    token = secret(kubectl, namespace, f"{namespace}-operator", "token")
    authority = Path(tmp_path, "ca.crt")
    authority.write_text(secret(kubectl, namespace, f"{namespace}-tls", "tls.crt"))
    with forwarded(tool, namespace, f"service/{namespace}", 7077) as port:
        broker = ends.enter_context(Broker(f"grpcs://localhost:{port}", token=token, ca_file=authority))
        lease = broker.acquire(ttl=300, unattended_ttl=600, keep_when_holder_lost=True)
        lease.wait_ready(timeout=240)
        lease.attach("the test")
        connection = lease.connection()
        assert isinstance(connection, ConnectConnection)
    [(pod, uid)] = drivers(kubectl, namespace)
    with forwarded(tool, namespace, f"pod/{pod}", urlsplit(connection.endpoint).port) as spark_port:
        spark = remote_session(dataclasses.replace(connection, endpoint=f"sc://127.0.0.1:{spark_port}"))
        ends.callback(spark.client.close)
        spark.sql("SELECT 42 AS answer").createTempView("kept")
        values["config"] += "\n[queues.another]\n"
        helm("upgrade", "r", str(CHART), "--wait", "--timeout=180s", values=values)
        assert spark.table("kept").first()[0] == 42
    assert secret(kubectl, namespace, f"{namespace}-operator", "token") == token
    # The same client, the same attachment: it connects anew by itself.
    with forwarded(tool, namespace, f"service/{namespace}", 7077, local=port):
        assert {queue.name for queue in broker.queues()} == {"queues/another", "queues/default"}
        lease.refresh()
        assert lease.state == "READY"
        assert lease.attached
        assert drivers(kubectl, namespace) == [(pod, uid)]
        helm("uninstall", "r", "--wait", "--timeout=180s")
    assert names_of(kubectl, namespace) == set()
    kinds = "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings"
    left = kubectl("get", kinds, "-o", "name").stdout.split()
    assert [name for name in left if namespace in name] == []


def test_a_certificate_that_an_uninstall_could_not_trust_is_found_out_at_once(helm, kubectl, namespace, values):
    made = kubectl(
        "-n", namespace, "create", "secret", "generic", "cert", "--from-literal=tls.crt=", "--from-literal=tls.key="
    )
    assert made.returncode == 0, made.stderr
    values["tls"] = {"secretName": "cert"}
    words = ("install", "r", str(CHART), "--dry-run=server")
    done = helm(*words, values=values, check=False)
    assert done.returncode != 0
    assert "the Secret cert has no key ca.crt" in done.stderr
    assert "tls.caKey" in done.stderr
    for cure in ({"tls": {"secretName": "cert", "caKey": "tls.crt"}}, {"drain": {"enabled": False}}):
        helm(*words, values=values | cure)


@pytest.mark.long
def test_code_in_a_driver_gets_nothing_from_its_credential(helm, kubectl, tool, namespace, values, tmp_path):
    helm("install", "r", str(CHART), "--wait", "--timeout=180s", values=values)
    token = secret(kubectl, namespace, f"{namespace}-operator", "token")
    authority = Path(tmp_path, "ca.crt")
    authority.write_text(secret(kubectl, namespace, f"{namespace}-tls", "tls.crt"))
    with (
        forwarded(tool, namespace, f"service/{namespace}", 7077) as port,
        Broker(f"grpcs://localhost:{port}", token=token, ca_file=authority) as broker,
    ):
        lease = broker.acquire(unattended_ttl=300)
        lease.wait_ready(timeout=240)
        [(pod, uid)] = drivers(kubectl, namespace)
        program = Path(__file__).with_name("attacker.py").read_text()
        done = kubectl("-n", namespace, "exec", pod, "--", "python3", "-c", program)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {
            "see pods": 200,
            "read secrets": 403,
            "read its own secret": 403,
            "delete all pods": 422,
            "delete its own pod": 422,
            "make a pod": 422,
            "make a token": 403,
        }
        assert drivers(kubectl, namespace) == [(pod, uid)]
        broker.release(lease.name)


def remote_session(connection):
    """A Spark session on that endpoint, as any Connect client opens one."""
    from pyspark.sql.connect.session import SparkSession

    from sparkbroker.client.connect_channel import LeaseChannelBuilder

    return SparkSession.builder.channelBuilder(LeaseChannelBuilder(connection)).create()
