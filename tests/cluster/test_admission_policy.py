"""The chart's admission policy on a real API server: what the credential of one lease can do, and what it can't.

The attacks are tried as whoever runs code in a driver could: with a token that is bound to the driver's pod.
"""

import copy
import json
import subprocess
import time
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from tests.cluster import node_attacks as node
from tests.cluster.executor_pod import pod
from tests.cluster.lease_attacks import (
    LEASE_ATTACKS,
    a_second_owner,
    another_kind_of_owner,
    another_owner,
    ephemeral,
    label,
    no_owner,
)

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300)]
CHART = Path(__file__).parents[2] / "chart"
ATTACKS = LEASE_ATTACKS | node.NODE_ATTACKS


@pytest.fixture
def policy():
    """The values of ``admissionPolicy``."""
    return {"maxCpu": "2", "maxMemory": "4Gi", "executorSecrets": ["lake"]}


@pytest.fixture
def release(kubectl, tool, namespace, policy):
    """The chart's part for Spark, in the namespace; objects of the cluster get its name, too.

    What it must refuse it refuses by itself, also where no Pod Security standard is enforced.
    """
    kubectl("label", "--overwrite", "namespace", namespace, "pod-security.kubernetes.io/enforce=privileged")
    values = {"sparkNamespaces": [namespace], "fullnameOverride": namespace, "admissionPolicy": policy}
    shown = [f"--show-only=templates/spark/{name}.yaml" for name in ("rbac", "admission-policy")]
    done = subprocess.run(
        [tool("helm"), "template", "r", str(CHART), "--namespace", "none", *shown, "--values", "-"],
        input=yaml.safe_dump(values), capture_output=True, text=True, check=True, timeout=50,
    )  # fmt: skip
    items = [item for item in yaml.safe_load_all(done.stdout) if item]
    everything = {"apiVersion": "v1", "kind": "List", "items": items}
    made = kubectl("apply", "-f", "-", given=everything)
    assert made.returncode == 0, made.stderr
    yield namespace
    kubectl("delete", "--wait=false", "-f", "-", given=everything)


@pytest.fixture
def lease(kubectl, release):
    """``lease(driver)``: its driver's pod is made; returns a kubectl with its credential, and an executor's manifest."""

    def make(driver):
        name = f"sparkbroker-{driver}"
        given = pod(name, "driver", driver, serviceAccountName="sparkbroker-driver")
        made = kubectl("-n", release, "create", "-f", "-", "-o", "json", given=given)
        assert made.returncode == 0, made.stderr
        uid = json.loads(made.stdout)["metadata"]["uid"]
        bound = ("--bound-object-kind=Pod", f"--bound-object-name={name}", f"--bound-object-uid={uid}")
        issued = kubectl("-n", release, "create", "token", "sparkbroker-driver", *bound)
        assert issued.returncode == 0, issued.stderr
        executor = pod(
            f"{name}-exec-1", "executor", driver,
            serviceAccountName="sparkbroker-executor", automountServiceAccountToken=False,
        )  # fmt: skip
        owner = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid, "controller": True}
        executor["metadata"]["ownerReferences"] = [owner]
        return lambda *words, given=None: kubectl(
            "-n", release, *words, given=given, token=issued.stdout.strip()
        ), executor

    return make


def in_force(call):
    """A policy takes effect a moment after it was made: returns once it says no to what it must refuse."""
    end = time.monotonic() + 30
    while call("create", "--dry-run=server", "-f", "-", given=pod("rogue", "executor", "d1")).returncode == 0:
        assert time.monotonic() < end, "the policy never took effect"


def check_refusals(attacks, said):
    """One for each of these attacks, and by the rule that is against it."""
    refusals = [line for line in said.splitlines() if not line.startswith("Warning: ")]
    for (change, rule), refusal in zip(attacks.items(), refusals, strict=True):
        assert rule in refusal, f"{change.__name__}: {refusal}"


def test_a_lease_makes_its_own_executors_and_nothing_else(lease):
    call, executor = lease("d1")
    in_force(call)
    attacks = [copy.deepcopy(executor) for _ in ATTACKS]
    for change, attack in zip(ATTACKS, attacks, strict=True):
        change(attack)
    everything = {"apiVersion": "v1", "kind": "List", "items": attacks}
    done = call("create", "--dry-run=server", "-f", "-", given=everything)
    assert done.stdout == "", "something went through"
    check_refusals(ATTACKS, done.stderr)
    executor["spec"]["volumes"] = [{"name": "v", "secret": {"secretName": "lake"}}]
    done = call("create", "-f", "-", given=executor)
    assert done.returncode == 0, done.stderr
    done = call("delete", "pod", executor["metadata"]["name"], "--wait=false")
    assert done.returncode == 0, done.stderr


def test_what_a_lease_has_made_stays_as_it_was_let_in(lease):
    call, executor = lease("d1")
    in_force(call)
    done = call("create", "-f", "-", given=executor)
    assert done.returncode == 0, done.stderr
    name = executor["metadata"]["name"]
    for words in (("label", "pod", name, "sparkbroker.io/owner-"), ("patch", "pod", name, "--patch={}")):
        done = call(*words)
        assert done.returncode != 0, words
        assert "forbidden" in done.stderr.lower()


WORKLOAD_IDENTITY = {"serviceAccountToken": {"audience": "sts.amazonaws.com", "path": "token"}}
"""As the webhook of EKS puts it into the pods of an account with a role."""


@pytest.mark.parametrize(
    "policy",
    [
        {
            "executorSecrets": ["registry", "files"], "executorClaims": ["reference"], "executorEphemeralVolumes": "20Gi",
            "executorCsiDrivers": ["files.example"], "executorNfsServers": ["nfs.example"],
            "executorTokenAudiences": ["sts.amazonaws.com"],
        }
    ],
)  # fmt: skip
def test_what_the_chart_s_values_list_an_executor_may_have(lease):
    call, executor = lease("d1")
    in_force(call)

    def refusal(*volumes):
        given = copy.deepcopy(executor)
        given["spec"] |= {"imagePullSecrets": [{"name": "registry"}]}
        given["spec"]["volumes"] = [{"name": f"v{number}", **volume} for number, volume in enumerate(volumes)]
        return call("create", "--dry-run=server", "-f", "-", given=given).stderr

    files = {"driver": "files.example", "nodePublishSecretRef": {"name": "files"}}
    assert refusal() == ""
    allowed = [
        {"persistentVolumeClaim": {"claimName": "reference"}}, {"csi": files},
        {"nfs": {"server": "nfs.example", "path": "/"}}, {"projected": {"sources": [WORKLOAD_IDENTITY]}},
        {"ephemeral": ephemeral("10Gi")}, {"ephemeral": ephemeral("10Gi")},
    ]  # fmt: skip
    assert refusal(*allowed) == ""
    another = {"serviceAccountToken": {"audience": "another", "path": "token"}}
    unsaid = {"serviceAccountToken": {"path": "token"}}  # the API server's own
    source = {"kind": "PersistentVolumeClaim", "name": "sparkbroker"}
    for message, volumes in (
        ("executorClaims", [{"persistentVolumeClaim": {"claimName": "sparkbroker"}}]),
        ("executorCsiDrivers", [{"csi": {"driver": "secrets-store.csi.k8s.io"}}]),
        ("only the Secrets", [{"csi": files | {"nodePublishSecretRef": {"name": "sparkbroker-d2"}}}]),
        ("executorNfsServers", [{"nfs": {"server": "another.example", "path": "/"}}]),
        ("executorTokenAudiences", [{"projected": {"sources": [WORKLOAD_IDENTITY, another]}}]),
        ("executorTokenAudiences", [{"projected": {"sources": [unsaid]}}]),
        ("executorEphemeralVolumes", [{"ephemeral": ephemeral("21Gi")}]),
        ("executorEphemeralVolumes", [{"ephemeral": ephemeral("11Gi")}, {"ephemeral": ephemeral("10Gi")}]),
        ("executorEphemeralVolumes", [{"ephemeral": ephemeral("1Gi", dataSource=source)}]),
        ("executorEphemeralVolumes", [{"ephemeral": ephemeral("1Gi", volumeName="pv-of-the-broker")}]),
        ("executorEphemeralVolumes", [{"ephemeral": ephemeral("1Gi", selector={"matchLabels": {"a": "b"}})}]),
    ):
        assert message in refusal(*volumes), (message, volumes)


@pytest.fixture
def runtime_classes(kubectl):
    """Two; the cluster refuses by itself those that don't exist."""
    names = ["sparkbroker-test-listed", "sparkbroker-test-other"]
    kind = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "handler": "runc"}
    everything = {"apiVersion": "v1", "kind": "List", "items": [{**kind, "metadata": {"name": name}} for name in names]}
    made = kubectl("apply", "-f", "-", given=everything)
    assert made.returncode == 0, made.stderr
    yield names
    kubectl("delete", "--wait=false", "-f", "-", given=everything)


@pytest.mark.parametrize(
    "policy",
    [
        {
            "executorLabels": ["team", "example.org/*"], "executorTolerations": ["spark-*", "gpu"],
            "executorSchedulers": ["batch"], "executorRuntimeClasses": ["sparkbroker-test-listed"], "extendedResources": {"example.org/card": "1"},
        }
    ],
)  # fmt: skip
def test_how_executors_may_be_marked_and_placed(lease, runtime_classes):
    call, executor = lease("d1")
    in_force(call)

    def refusal(labels, *taints, **spec):
        given = copy.deepcopy(executor)
        label(given, **labels)
        given["spec"] |= {"tolerations": [{"key": key, "operator": "Exists"} for key in taints], **spec}
        return call("create", "--dry-run=server", "-f", "-", given=given).stderr

    sparks = {"spark-role": "executor", "spark-app-selector": "sparkbroker-d1", "spark-exec-id": "1"}
    assert refusal({**sparks, "team": "a", "example.org/cost": "b"}) == ""
    assert refusal({}, "spark-large", "gpu", "example.org/card", schedulerName="batch") == ""
    listed, other = runtime_classes
    assert refusal({}, runtimeClassName=listed) == ""
    assert "executorRuntimeClasses" in refusal({}, runtimeClassName=other)
    assert "executorLabels" in refusal({"teams": "a"})
    assert "executorTolerations" in refusal({}, "gpu", "spar")
    assert "executorRuntimeClasses" in refusal({}, schedulerName="other")


@pytest.mark.parametrize("policy", [{"podSecurity": "baseline"}])
def test_below_the_baseline_is_no_executor(lease):
    call, executor = lease("d1")
    in_force(call)
    restricted_only = {
        node.no_security_context, node.most_capabilities, node.escalation, node.escalation_in_an_init_container,
        node.root, node.a_container_as_root, node.perhaps_root, node.whatever_system_calls,
    }  # fmt: skip
    for change in (change for change, message in ATTACKS.items() if message is node.STANDARD):
        attack = copy.deepcopy(executor)
        change(attack)
        done = call("create", "--dry-run=server", "-f", "-", given=attack)
        assert ("standard baseline" in done.stderr) == (done.returncode != 0) == (change not in restricted_only), (
            change.__name__, done.stderr,
        )  # fmt: skip


def test_the_policy_fits_what_the_cluster_knows_of_pods(lease, kubectl, release):
    """The cluster checks the expressions against its own types, some time after the policy was made."""
    end = time.monotonic() + 60
    found = {}
    while "typeChecking" not in found:
        assert time.monotonic() < end, "the policy's types were never checked"
        shown = kubectl("get", "validatingadmissionpolicy", f"{release}-none-spark", "-o", "json")
        found = json.loads(shown.stdout).get("status", {})
    assert found["typeChecking"] == {}


def test_a_lease_can_end_no_other_s_pods_and_not_its_own_driver(lease, kubectl, release):
    call, executor = lease("d1")
    other, others = lease("d2")
    in_force(call)
    for owner, manifest in ((call, executor), (other, others)):
        done = owner("create", "-f", "-", given=manifest)
        assert done.returncode == 0, done.stderr
    for name in ("sparkbroker-d1", "sparkbroker-d2", "sparkbroker-d2-exec-1"):
        done = call("delete", "pod", name, "--wait=false")
        assert done.returncode != 0, f"{name} was deleted"
        assert "only executors of its own driver" in done.stderr
    assert call("delete", "pods", "--all", "--wait=false").returncode != 0
    left = kubectl("-n", release, "get", "pods", "-o", "name").stdout.split()
    # Its own executor is its own to delete; all others are still there.
    assert set(left) >= {"pod/sparkbroker-d1", "pod/sparkbroker-d2", "pod/sparkbroker-d2-exec-1"}


def test_a_driver_reads_no_secret_and_an_unbound_token_is_worth_nothing(lease, kubectl, release):
    call, executor = lease("d1")
    in_force(call)
    for words in (("get", "secrets"), ("get", "configmaps"), ("create", "token", "sparkbroker-driver")):
        done = call(*words)
        assert done.returncode != 0, words
        assert "cannot" in done.stderr
    unbound = kubectl("-n", release, "create", "token", "sparkbroker-driver").stdout.strip()
    done = kubectl("-n", release, "create", "--dry-run=server", "-f", "-", given=executor, token=unbound)
    assert done.returncode != 0
    assert "only executors of its own driver" in done.stderr


@pytest.fixture
def client_lease(kubectl, release):
    """``client_lease(driver)``: the account of a lease in mode CLIENT, as the broker makes it; a kubectl with its token, and
    an executor's manifest."""

    def make(driver):
        name = f"sparkbroker-client-{driver}"
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": f"{release}-client"}
        items = [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}},
            {
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name},
                "roleRef": role, "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": release}],
            },
        ]  # fmt: skip
        made = kubectl("-n", release, "create", "-f", "-", given={"apiVersion": "v1", "kind": "List", "items": items})
        assert made.returncode == 0, made.stderr
        issued = kubectl("-n", release, "create", "token", name)
        assert issued.returncode == 0, issued.stderr
        executor = pod(
            f"sparkbroker-{driver}-exec-1", "executor", driver,
            serviceAccountName="sparkbroker-executor", automountServiceAccountToken=False,
        )  # fmt: skip
        # The holder's own pod, as the broker marks it.
        holder = pod(f"notebook-{driver}", "driver", driver)
        holder["metadata"]["labels"]["sparkbroker.io/holder"] = "true"
        made = kubectl("-n", release, "create", "-f", "-", "-o", "json", given=holder)
        assert made.returncode == 0, made.stderr
        uid = json.loads(made.stdout)["metadata"]["uid"]
        owner = {"apiVersion": "v1", "kind": "Pod", "name": f"notebook-{driver}", "uid": uid, "controller": True}
        executor["metadata"]["ownerReferences"] = [owner]
        return lambda *words, given=None: kubectl(
            "-n", release, *words, given=given, token=issued.stdout.strip()
        ), executor

    return make


def test_a_lease_in_client_mode_has_its_own_executors_and_nothing_else(client_lease, kubectl, release):
    call, executor = client_lease("d1")
    other, others = client_lease("d2")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "sparkbroker-d2"}, "stringData": {"a": "b"}}
    assert kubectl("-n", release, "create", "-f", "-", given=secret).returncode == 0
    in_force(call)
    for owner, manifest in ((call, executor), (other, others)):
        done = owner("create", "-f", "-", given=manifest)
        assert done.returncode == 0, done.stderr
    # The name of its account says whose they are, and the broker finds them by their labels; which pod owns them nobody vouches for.
    owners = {no_owner, another_kind_of_owner, a_second_owner}
    changes = [change for change in ATTACKS if change is not another_owner]
    attacks = [copy.deepcopy(executor) for _ in changes]
    for number, (change, attack) in enumerate(zip(changes, attacks, strict=True)):
        attack["metadata"]["name"] = f"sparkbroker-d1-exec-{number + 10}"
        change(attack)
    done = call("create", "--dry-run=server", "-f", "-", given={"apiVersion": "v1", "kind": "List", "items": attacks})
    assert done.stdout == "", "something went through"
    said = {
        change: "one owner, a pod that is its controller" if change in owners else ATTACKS[change] for change in changes
    }
    check_refusals(said, done.stderr)
    for_another = copy.deepcopy(others)
    for_another["metadata"]["name"] = "sparkbroker-d2-exec-2"
    done = call("create", "-f", "-", given=for_another)
    assert "only executors of its own driver" in done.stderr
    for name in ("notebook-d1", "sparkbroker-d2-exec-1"):
        done = call("delete", "pod", name, "--wait=false")
        assert "only executors of its own driver" in done.stderr, name
    for words in (
        ("get", "secrets"), ("get", "secret", "sparkbroker-d2"), ("get", "configmaps"), ("get", "serviceaccounts"),
        ("create", "token", "sparkbroker-client-d2"), ("create", "token", "sparkbroker-driver"),
        ("label", "pod", "sparkbroker-d2-exec-1", "sparkbroker.io/driver=d1", "--overwrite"),
        ("label", "pod", "sparkbroker-d1-exec-1", "sparkbroker.io/owner-"),
        ("exec", "notebook-d1", "--", "true"),
    ):  # fmt: skip
        done = call(*words)
        assert done.returncode != 0, words
        assert "forbidden" in done.stderr.lower(), (words, done.stderr)
    done = call("delete", "pod", "sparkbroker-d1-exec-1", "--wait=false")
    assert done.returncode == 0, done.stderr
    assert call("delete", "pods", "--all", "--wait=false").returncode != 0
    left = set(kubectl("-n", release, "get", "pods", "-o", "name").stdout.split())
    assert left >= {"pod/notebook-d1", "pod/sparkbroker-d2-exec-1"}
