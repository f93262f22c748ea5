"""The chart's admission policy on a real API server: what the credential of one lease can do, and what it can't.

The attacks are tried as whoever runs code in a driver could: with a token that is bound to the driver's pod.
"""

import copy
import json
import subprocess
import time

import pytest
import yaml  # type: ignore[import-untyped]

from tests.cluster.layout import HERE

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300)]
CHART = HERE.parents[1] / "chart"
IMAGE = "sparkbroker.test/none:1"
"""Nothing is pulled or run: the pods of these tests belong to no node."""
RESTRICTED = {"runAsNonRoot": True, "runAsUser": 185, "seccompProfile": {"type": "RuntimeDefault"}}
CONTAINED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


@pytest.fixture
def release(kubectl, tool, namespace):
    """The chart's part for Spark, in the namespace; objects of the cluster get its name, too.

    What it must refuse it refuses by itself, also where no Pod Security standard is enforced.
    """
    kubectl("label", "--overwrite", "namespace", namespace, "pod-security.kubernetes.io/enforce=privileged")
    values = {
        "sparkNamespaces": [namespace],
        "fullnameOverride": namespace,
        "admissionPolicy": {"maxCpu": "2", "maxMemory": "4Gi", "executorSecrets": ["lake"]},
    }
    shown = [f"--show-only=templates/spark/{name}.yaml" for name in ("rbac", "admission-policy")]
    done = subprocess.run(
        [tool("helm"), "template", "r", str(CHART), *shown, "--values", "-"],
        input=yaml.safe_dump(values), capture_output=True, text=True, check=True, timeout=50,
    )  # fmt: skip
    items = [item for item in yaml.safe_load_all(done.stdout) if item]
    everything = {"apiVersion": "v1", "kind": "List", "items": items}
    made = kubectl("apply", "-f", "-", given=everything)
    assert made.returncode == 0, made.stderr
    yield namespace
    kubectl("delete", "--wait=false", "-f", "-", given=everything)


def pod(name, role, driver, **spec):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"sparkbroker.io/role": role, "sparkbroker.io/driver": driver}},
        "spec": {
            "restartPolicy": "Never",
            "nodeSelector": {"no": "node"},
            "securityContext": RESTRICTED,
            "containers": [
                {
                    "name": "spark-kubernetes-executor",
                    "image": IMAGE,
                    "securityContext": CONTAINED,
                    "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}},
                }
            ],
            **spec,
        },
    }


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


def in_force(attempt):
    """A policy takes effect a moment after it was made: returns once it says no to what it must refuse."""
    end = time.monotonic() + 30
    while attempt().returncode == 0:
        assert time.monotonic() < end, "the policy never took effect"


def container(manifest):
    return manifest["spec"]["containers"][0]


def no_owner(manifest):
    del manifest["metadata"]["ownerReferences"]


def another_lease(manifest):
    manifest["metadata"]["labels"]["sparkbroker.io/driver"] = "d2"


def a_driver(manifest):
    manifest["metadata"]["labels"]["sparkbroker.io/role"] = "driver"


def the_driver_s_account(manifest):
    manifest["spec"]["serviceAccountName"] = "sparkbroker-driver"


def a_token(manifest):
    manifest["spec"]["automountServiceAccountToken"] = True


def a_projected_token(manifest):
    source = {"serviceAccountToken": {"path": "token"}}
    manifest["spec"]["volumes"] = [{"name": "v", "projected": {"sources": [source]}}]


def a_secret(manifest):
    manifest["spec"]["volumes"] = [{"name": "v", "secret": {"secretName": "sparkbroker-d2"}}]


def a_projected_secret(manifest):
    source = {"secret": {"name": "sparkbroker-d2"}}
    manifest["spec"]["volumes"] = [{"name": "v", "projected": {"sources": [source]}}]


def a_secret_variable(manifest):
    key = {"secretKeyRef": {"name": "sparkbroker-d2", "key": "token"}}
    container(manifest)["env"] = [{"name": "T", "valueFrom": key}]


def all_of_a_secret(manifest):
    container(manifest)["envFrom"] = [{"secretRef": {"name": "sparkbroker-d2"}}]


def a_secret_in_an_init_container(manifest):
    second = copy.deepcopy(container(manifest)) | {"name": "init"}
    second["envFrom"] = [{"secretRef": {"name": "sparkbroker-d2"}}]
    manifest["spec"]["initContainers"] = [second]


def a_large_one(manifest):
    container(manifest)["resources"]["limits"]["memory"] = "5Gi"


def many_cores(manifest):
    container(manifest)["resources"]["requests"]["cpu"] = "2001m"


def two_that_are_large_together(manifest):
    second = copy.deepcopy(container(manifest)) | {"name": "second"}
    second["resources"]["requests"]["cpu"] = "1500m"
    manifest["spec"]["containers"].append(second)


def no_limit(manifest):
    del container(manifest)["resources"]["limits"]


def a_node(manifest):
    manifest["spec"]["nodeName"] = "node1"


def importance(manifest):
    manifest["spec"]["priorityClassName"] = "system-node-critical"


def a_holder_s_mark(manifest):
    manifest["metadata"]["labels"]["sparkbroker.io/holder"] = "true"


def another_name(manifest):
    manifest["metadata"]["name"] = "sparkbroker-d2"


def a_finalizer(manifest):
    manifest["metadata"]["finalizers"] = ["example.org/never"]


def the_broker_s_labels(manifest):
    manifest["metadata"]["labels"]["app.kubernetes.io/instance"] = "r"


def a_long_farewell(manifest):
    manifest["spec"]["terminationGracePeriodSeconds"] = 86_400


def a_graphics_card(manifest):
    container(manifest)["resources"]["limits"]["nvidia.com/gpu"] = "1"


def a_host_path(manifest):
    manifest["spec"]["volumes"] = [{"name": "v", "hostPath": {"path": "/"}}]


def the_node_s_network(manifest):
    manifest["spec"]["hostNetwork"] = True


def privileges(manifest):
    container(manifest)["securityContext"] = {"privileged": True}


ATTACKS = {
    a_holder_s_mark: "never marked as its holder's own",
    another_name: "named after its driver's",
    a_finalizer: "without finalizers",
    the_broker_s_labels: "the labels of the broker's own pods",
    a_long_farewell: "ends within 600 s",
    a_graphics_card: "admissionPolicy.extendedResources",
    a_host_path: "only volumes of the kinds",
    the_node_s_network: "none of its node's namespaces",
    privileges: "has no privileges",
    no_owner: "only pods that its own pod owns",
    another_lease: "only executors of its own driver",
    a_driver: "only executors of its own driver",
    the_driver_s_account: "runs as sparkbroker-executor, without its token",
    a_token: "runs as sparkbroker-executor, without its token",
    a_projected_token: "only the Secrets that",
    a_secret: "only the Secrets that",
    a_projected_secret: "only the Secrets that",
    a_secret_variable: "only the Secrets that",
    all_of_a_secret: "only the Secrets that",
    a_secret_in_an_init_container: "only the Secrets that",
    a_large_one: "at most 2 CPUs and 4Gi of memory",
    many_cores: "at most 2 CPUs and 4Gi of memory",
    two_that_are_large_together: "at most 2 CPUs and 4Gi of memory",
    no_limit: "requests CPU and has a memory limit",
    a_node: "is placed by the scheduler",
    importance: "only the priority classes",
}


def test_a_lease_makes_its_own_executors_and_nothing_else(lease):
    call, executor = lease("d1")
    rogue = pod("rogue", "executor", "d1")
    in_force(lambda: call("create", "--dry-run=server", "-f", "-", given=rogue))
    attacks = [copy.deepcopy(executor) for _ in ATTACKS]
    for change, attack in zip(ATTACKS, attacks, strict=True):
        change(attack)
    everything = {"apiVersion": "v1", "kind": "List", "items": attacks}
    done = call("create", "--dry-run=server", "-f", "-", given=everything)
    assert done.stdout == "", "something went through"
    for (change, message), refusal in zip(ATTACKS.items(), done.stderr.splitlines(), strict=True):
        assert message in refusal, f"{change.__name__}: {refusal}"
    executor["spec"]["volumes"] = [{"name": "v", "secret": {"secretName": "lake"}}]
    done = call("create", "-f", "-", given=executor)
    assert done.returncode == 0, done.stderr
    done = call("delete", "pod", executor["metadata"]["name"], "--wait=false")
    assert done.returncode == 0, done.stderr


def test_a_lease_can_end_no_other_s_pods_and_not_its_own_driver(lease, kubectl, release):
    call, executor = lease("d1")
    other, others = lease("d2")
    in_force(lambda: call("create", "--dry-run=server", "-f", "-", given=pod("rogue", "executor", "d1")))
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
    in_force(lambda: call("create", "--dry-run=server", "-f", "-", given=pod("rogue", "executor", "d1")))
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
        return lambda *words, given=None: kubectl(
            "-n", release, *words, given=given, token=issued.stdout.strip()
        ), executor

    return make


def test_a_lease_in_client_mode_has_its_own_executors_and_nothing_else(client_lease, kubectl, release):
    call, executor = client_lease("d1")
    other, others = client_lease("d2")
    # The holder's own pod, as the broker marks it, and a Secret of the namespace.
    holder = pod("notebook", "driver", "d1")
    holder["metadata"]["labels"]["sparkbroker.io/holder"] = "true"
    assert kubectl("-n", release, "create", "-f", "-", given=holder).returncode == 0
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "sparkbroker-d2"}, "stringData": {"a": "b"}}
    assert kubectl("-n", release, "create", "-f", "-", given=secret).returncode == 0
    in_force(lambda: call("create", "--dry-run=server", "-f", "-", given=pod("rogue", "executor", "d1")))
    for owner, manifest in ((call, executor), (other, others)):
        done = owner("create", "-f", "-", given=manifest)
        assert done.returncode == 0, done.stderr
    attacks = [copy.deepcopy(executor) for _ in ATTACKS if _ is not no_owner]
    changes = [change for change in ATTACKS if change is not no_owner]  # the name of its account says whose it is
    for number, (change, attack) in enumerate(zip(changes, attacks, strict=True)):
        attack["metadata"]["name"] = f"sparkbroker-d1-exec-{number + 10}"
        change(attack)
    done = call("create", "--dry-run=server", "-f", "-", given={"apiVersion": "v1", "kind": "List", "items": attacks})
    assert done.stdout == "", "something went through"
    for change, refusal in zip(changes, done.stderr.splitlines(), strict=True):
        assert ATTACKS[change] in refusal, f"{change.__name__}: {refusal}"
    for_another = copy.deepcopy(others)
    for_another["metadata"]["name"] = "sparkbroker-d2-exec-2"
    done = call("create", "-f", "-", given=for_another)
    assert "only executors of its own driver" in done.stderr
    for name in ("notebook", "sparkbroker-d2-exec-1"):
        done = call("delete", "pod", name, "--wait=false")
        assert "only executors of its own driver" in done.stderr, name
    for words in (
        ("get", "secrets"), ("get", "secret", "sparkbroker-d2"), ("get", "configmaps"), ("get", "serviceaccounts"),
        ("create", "token", "sparkbroker-client-d2"), ("create", "token", "sparkbroker-driver"),
        ("label", "pod", "sparkbroker-d2-exec-1", "sparkbroker.io/driver=d1", "--overwrite"),
        ("exec", "notebook", "--", "true"),
    ):  # fmt: skip
        done = call(*words)
        assert done.returncode != 0, words
        assert "forbidden" in done.stderr.lower(), (words, done.stderr)
    done = call("delete", "pod", "sparkbroker-d1-exec-1", "--wait=false")
    assert done.returncode == 0, done.stderr
    assert call("delete", "pods", "--all", "--wait=false").returncode != 0
    left = set(kubectl("-n", release, "get", "pods", "-o", "name").stdout.split())
    assert left >= {"pod/notebook", "pod/sparkbroker-d2-exec-1"}
