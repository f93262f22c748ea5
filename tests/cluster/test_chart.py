"""What the chart renders, without a cluster: `helm template` and `helm lint`, with Helm from the cluster's own tools or PATH."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from sparkbroker.broker.adapters.kubernetes_provisioner import _examine
from sparkbroker.broker.config import load_config
from tests.kubernetes.space import RIGHTS
from tools.cluster import layout

pytestmark = pytest.mark.kubernetes

CHART = Path(__file__).parents[2] / "chart"
WORKLOADS = ("Deployment", "Job", "Pod")
VALUE = re.compile(r"( *)(\w+):(.*)")
EXPLAINS = re.compile(r" *# -- ")


@pytest.fixture(scope="module")
def helm(need):
    program = layout.BIN / "helm"
    found = str(program) if program.exists() else shutil.which("helm")
    need(found, "helm (`python3 -m tools.cluster build` compiles it)")

    def run(*words, values=None):
        given = yaml.safe_dump(values or {})
        argv = [found, *words, "--values", "-"]
        return subprocess.run(argv, input=given, capture_output=True, text=True, check=False, timeout=50)

    return run


@pytest.fixture
def render(helm):
    """``render(values)``: the objects, by kind, namespace (the release's if unsaid) and name."""

    def run(values=None):
        done = helm("template", "broker", str(CHART), "--namespace", "apps", values=values)
        assert done.returncode == 0, done.stderr
        objects = [item for item in yaml.safe_load_all(done.stdout) if item]
        found = {}
        for item in objects:
            key = (item["kind"], item["metadata"].get("namespace", "apps"), item["metadata"]["name"])
            assert key not in found, f"{key} is there twice"
            found[key] = item
        return found

    return run


def pod_of(item):
    match item["kind"]:
        case "Pod":
            return item["spec"]
        case _:
            return item["spec"]["template"]["spec"]


def test_it_lints(helm):
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"sparkNamespace": ["spark"]}, "sparkNamespace"),
        ({"persistence": {"enable": True}}, "enable"),
        ({"metrics": {"port": 0}}, "port"),
        ({"sparkNamespaces": ["Spark!"]}, "sparkNamespaces"),
        ({"config": "[queues"}, "config is not TOML"),
        ({"config": "[server]\nlisten = []\n"}, "server.listen is the chart's"),
        ({"config": '[store]\nstate_folder = "/tmp"\n'}, "store.state_folder is the chart's"),
        ({"config": '[kubernetes]\nowner = "me"\n'}, "kubernetes.owner is the chart's"),
        ({"admissionPolicy": {"podSecurity": "privileged"}}, "podSecurity"),
        (
            {"resourceQuotas": {"elsewhere": {"pods": 1}}},
            "resourceQuotas: elsewhere is none of sparkNamespaces (default)",
        ),
        ({"resourceQuotas": {"default": {"pods": "many"}}}, "resourceQuotas"),
        ({"service": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.1"]}}, "loadBalancerSourceRanges"),
        (
            {"service": {"loadBalancerSourceRanges": ["10.0.0.0/8"]}},
            "service.loadBalancerSourceRanges: service.type is ClusterIP",
        ),
    ],
)
def test_what_is_wrong_is_refused_and_named(helm, values, problem):
    done = helm("template", "broker", str(CHART), values=values)
    assert done.returncode != 0
    assert problem in done.stderr


def test_every_pod_meets_the_restricted_standard(render):
    pods = [pod_of(item) for key, item in render().items() if key[0] in WORKLOADS]
    assert len(pods) == 3
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        for volume in pod["volumes"]:
            assert volume.keys() & {"configMap", "secret", "emptyDir", "persistentVolumeClaim"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]


def test_each_namespace_has_its_accounts_roles_and_policies(render):
    found = render({"sparkNamespaces": ["red", "blue"]})
    for namespace in ("red", "blue"):
        for kind, name in (
            ("ServiceAccount", "sparkbroker-driver"),
            ("ServiceAccount", "sparkbroker-executor"),
            ("Role", "broker-sparkbroker-broker"),
            ("Role", "broker-sparkbroker-driver"),
            ("Role", "broker-sparkbroker-client"),
            ("RoleBinding", "broker-sparkbroker-broker"),
            ("RoleBinding", "broker-sparkbroker-driver"),
            ("NetworkPolicy", "broker-sparkbroker-driver"),
            ("NetworkPolicy", "broker-sparkbroker-executor"),
        ):
            assert (kind, namespace, name) in found
        [subject] = found["RoleBinding", namespace, "broker-sparkbroker-driver"]["subjects"]
        assert subject["namespace"] == namespace
    [policy] = [item for key, item in found.items() if key[0] == "ValidatingAdmissionPolicy"]
    [condition] = policy["spec"]["matchConditions"]
    assert (
        '["system:serviceaccount:red:sparkbroker-driver","system:serviceaccount:blue:sparkbroker-driver"]'
        in condition["expression"]
    )
    [binding] = [item for key, item in found.items() if key[0] == "ValidatingAdmissionPolicyBinding"]
    [term] = binding["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
    assert term["values"] == ["red", "blue"]


def rights(role):
    """Its verbs, by resource (``resource.group``)."""
    found: dict[str, set[str]] = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                found.setdefault(f"{resource}.{group}".strip("."), set()).update(rule["verbs"])
    return found


def sets(*tables):
    return {name: set(table[name]) for table in tables for name in table}


def test_drivers_may_touch_pods_only_and_executors_nothing(render):
    found = render()
    for role in ("driver", "client"):
        # No verb that changes a pod: what the admission policy has let in stays as it is.
        assert rights(found["Role", "apps", f"broker-sparkbroker-{role}"]) == {
            "pods": {"get", "list", "watch", "create", "delete", "deletecollection"}
        }
        assert sets(RIGHTS[role]) == rights(found["Role", "apps", f"broker-sparkbroker-{role}"]), "tests use others"
    bound = [
        subject["name"] for key, item in found.items() if key[0].endswith("RoleBinding") for subject in item["subjects"]
    ]
    assert sorted(bound) == ["broker-sparkbroker", "sparkbroker-driver"]
    assert found["ServiceAccount", "apps", "sparkbroker-executor"]["automountServiceAccountToken"] is False


def test_the_broker_s_rights_are_what_doctor_asks_for_and_nothing_of_the_cluster_s(render):
    found = render()
    role = found["Role", "apps", "broker-sparkbroker-broker"]
    both = {name: {*_examine.RIGHTS.get(name, ()), *_examine.CLIENT_RIGHTS.get(name, ())} for name in rights(role)}
    assert rights(role) == both
    assert both.keys() == _examine.RIGHTS.keys() | _examine.CLIENT_RIGHTS.keys()
    [names] = [rule["resourceNames"] for rule in role["rules"] if rule["resources"] == ["roles"]]
    assert names == ["broker-sparkbroker-client"]
    assert not [key for key in found if key[0].startswith("ClusterRole")]


def test_without_client_mode_the_broker_makes_no_accounts_and_changes_no_pod(render):
    found = render({"clientMode": {"enabled": False}})
    assert rights(found["Role", "apps", "broker-sparkbroker-broker"]) == sets(_examine.RIGHTS)
    assert ("Role", "apps", "broker-sparkbroker-client") not in found


def test_the_operator_s_token_is_in_the_token_file_as_a_hash(render):
    found = render(
        {"tokens": {"entries": '[[token]]\nprincipal = "ann"\nroles = ["user"]\nsha256 = "' + "0" * 64 + '"\n'}}
    )
    token = found["Secret", "apps", "broker-sparkbroker-operator"]["stringData"]["token"]
    text = found["Secret", "apps", "broker-sparkbroker-tokens"]["stringData"]["tokens"]
    operator, ann = tomllib.loads(text)["token"]
    assert operator["roles"] == ["operator"]
    assert ann["principal"] == "ann"
    assert token not in text


def test_secrets_of_one_s_own_replace_the_chart_s(render):
    found = render({"tokens": {"secretName": "ours"}, "tls": {"secretName": "cert"}})
    assert not [key for key in found if key[0] == "Secret"]
    volumes = {
        volume["name"]: volume for volume in pod_of(found["Deployment", "apps", "broker-sparkbroker"])["volumes"]
    }
    assert volumes["tokens"]["secret"]["secretName"] == "ours"
    assert volumes["tls"]["secret"]["secretName"] == "cert"
    # Nobody knows an operator's token: neither test nor drain can call.
    assert not [key for key in found if key[0] in ("Job", "Pod")]


@pytest.mark.parametrize(
    ("tls", "file"),
    [
        ({}, "tls.crt"),
        ({"secretName": "cert"}, "ca.crt"),
        ({"secretName": "cert", "caKey": "tls.crt"}, "tls.crt"),
    ],
)
def test_its_own_calls_trust_the_certificate_s_authority(render, tls, file):
    found = render({"tls": tls})
    for key in (("Job", "apps", "broker-sparkbroker-drain"), ("Pod", "apps", "broker-sparkbroker-test")):
        [container] = pod_of(found[key])["containers"]
        assert {"name": "SPARKBROKER_CA_FILE", "value": f"/etc/sparkbroker-tls/{file}"} in container["env"]


def test_what_is_given_for_the_broker_s_pod_is_in_it(render):
    given: dict[str, Any] = {
        "extraEnv": [{"name": "LAKE", "value": "s3a://lake"}],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        "priorityClassName": "system-cluster-critical",
        "podLabels": {"team": "data"}, "podAnnotations": {"note": "kept"}, "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "own", "operator": "Exists"}], "affinity": {"nodeAffinity": {}},
        "imagePullSecrets": ["registry"],
    }  # fmt: skip
    template = render(given)["Deployment", "apps", "broker-sparkbroker"]["spec"]["template"]
    pod, metadata = template["spec"], template["metadata"]
    [container] = pod["containers"]
    assert given["extraEnv"][0] in container["env"]
    assert given["extraVolumes"][0] in pod["volumes"]
    assert given["extraVolumeMounts"][0] in container["volumeMounts"]
    for name in ("priorityClassName", "nodeSelector", "tolerations", "affinity"):
        assert pod[name] == given[name]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert metadata["labels"].items() >= given["podLabels"].items()
    assert metadata["annotations"].items() >= given["podAnnotations"].items()


def owner_of(deployment):
    """What the broker takes for its owner, of the environment that the chart gives it."""
    [container] = pod_of(deployment)["containers"]
    env = {
        item["name"]: item["value"] for item in container["env"] if item["name"].startswith("SPARKBROKER__KUBERNETES")
    }
    return load_config(None, {"HOME": "/nobody", **env}).kubernetes.owner


def test_each_release_s_broker_has_an_owner_s_value_of_its_own_and_its_policy_asks_for_it(helm):
    owners = set()
    for release, namespace in (("broker", "apps"), ("broker", "other"), ("b", "apps"), ("a.b-" * 13 + "c", "n" * 63)):
        done = helm("template", release, str(CHART), "--namespace", namespace, values={"fullnameOverride": "x"})
        assert done.returncode == 0, done.stderr
        objects = {item["kind"]: item for item in yaml.safe_load_all(done.stdout) if item}
        owner = owner_of(objects["Deployment"])
        assert f"['sparkbroker.io/owner'] == '{owner}'" in done.stdout
        owners.add(owner)
    assert len(owners) == 4


def test_a_quota_is_in_the_namespace_that_it_is_for(render):
    hard = {"pods": 200, "requests.cpu": "100", "limits.memory": "400Gi"}
    found = render({"sparkNamespaces": ["red", "blue"], "resourceQuotas": {"red": hard}})
    assert [key for key in found if key[0] == "ResourceQuota"] == [("ResourceQuota", "red", "broker-sparkbroker")]
    assert found["ResourceQuota", "red", "broker-sparkbroker"]["spec"] == {"hard": hard}


def test_prometheus_finds_the_broker_s_metrics(render):
    monitor = {"enabled": True, "interval": "15s", "labels": {"release": "prometheus"}}
    found = render({"metrics": {"serviceMonitor": monitor}})
    made = found["ServiceMonitor", "apps", "broker-sparkbroker"]
    assert made["metadata"]["labels"]["release"] == "prometheus"
    wanted = made["spec"]["selector"]["matchLabels"].items()
    services = [item for key, item in found.items() if key[0] == "Service"]
    [service] = [item for item in services if wanted <= item["metadata"]["labels"].items()]
    assert service["metadata"]["name"] == "broker-sparkbroker-metrics"
    [endpoint] = made["spec"]["endpoints"]
    assert endpoint == {"port": "metrics", "interval": "15s"}
    assert service["spec"]["ports"] == [{"name": "metrics", "port": 9464, "targetPort": "metrics"}]
    template = found["Deployment", "apps", "broker-sparkbroker"]["spec"]["template"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    [container] = template["spec"]["containers"]
    assert {"name": "metrics", "containerPort": 9464} in container["ports"]


@pytest.mark.parametrize("kind", ["ClusterIP", "NodePort", "LoadBalancer"])
def test_metrics_are_not_published_with_the_broker(render, kind):
    found = render({"service": {"type": kind}})
    broker, metrics = (found["Service", "apps", f"broker-sparkbroker{end}"]["spec"] for end in ("", "-metrics"))
    assert (broker["type"], metrics["type"]) == (kind, "ClusterIP")
    assert [port["targetPort"] for port in broker["ports"]] == ["grpc"]


def test_a_load_balancer_lets_in_the_addresses_that_are_named(render):
    ranges = ["10.0.0.0/8", "2001:db8::/32"]
    found = render({"service": {"type": "LoadBalancer", "loadBalancerSourceRanges": ranges}})
    assert found["Service", "apps", "broker-sparkbroker"]["spec"]["loadBalancerSourceRanges"] == ranges
    assert "loadBalancerSourceRanges" not in render()["Service", "apps", "broker-sparkbroker"]["spec"]


def test_two_brokers_never_share_the_database(render):
    deployment = render()["Deployment", "apps", "broker-sparkbroker"]["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})


def test_a_changed_configuration_restarts_the_broker(render):
    def checksum(values):
        template = render(values)["Deployment", "apps", "broker-sparkbroker"]["spec"]["template"]
        return template["metadata"]["annotations"]["checksum/config"]

    assert checksum({"config": "[queues.a]\n"}) != checksum({"config": "[queues.b]\n"})


def test_peers_that_are_named_are_beside_the_chart_s_own(render):
    peer = {"podSelector": {"matchLabels": {"may": "connect"}}}
    clients = {"brokerClients": [peer], "driverClients": [peer], "metricsClients": [peer]}
    found = render({"networkPolicy": clients, "sparkNamespaces": ["spark"]})
    broker = found["NetworkPolicy", "apps", "broker-sparkbroker"]["spec"]
    [calls, metrics] = [rule["from"] for rule in broker["ingress"]]
    assert (calls[0], metrics) == (peer, [peer])
    sessions = found["NetworkPolicy", "spark", "broker-sparkbroker-driver"]["spec"]["ingress"][0]["from"]
    assert sessions[0] == peer
    assert sessions[1]["podSelector"] == broker["podSelector"]
    assert sessions[1]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "apps"}


def test_what_is_switched_off_is_not_there(render):
    def kinds(enabled):
        switch = {"enabled": enabled}
        switched = ("networkPolicy", "admissionPolicy", "persistence", "drain")
        return {
            key[0]
            for key in render(
                {**dict.fromkeys(switched, switch), "metrics": {"serviceMonitor": switch, "prometheusRule": switch}}
            )
        }

    assert kinds(True) - kinds(False) == {
        "NetworkPolicy", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "PersistentVolumeClaim", "Job",
        "PrometheusRule",
        "ServiceMonitor",
    }  # fmt: skip


def unexplained(lines):
    """Values without a comment directly above, and of runs of values that have one: those of a run that it doesn't all name, `so`."""
    found: list[str] = []
    comment, run, inside = "", list[str](), -1
    for line in lines:
        depth = len(line) - len(line.lstrip())
        if inside >= 0 and (not line or depth > inside):  # The text of a value.
            continue
        inside = -1
        value = VALUE.fullmatch(line)
        if line.lstrip().startswith("#"):
            comment = line if run or not comment else f"{comment}\n{line}"
            comment, run = comment if EXPLAINS.match(comment) else "", []
        elif (
            value is None or not value[3]
        ):  # Nothing, or a group's name: what explains a group explains none of its values.
            comment, run = "", []
        else:
            inside = depth if value[3] == " |" else -1
            run = [*run, value[2]]
            if not comment or (len(run) > 1 and not all(f"`{name}`" in comment for name in run)):
                found.append(value[2])
    return found


def test_every_value_is_explained():
    assert unexplained((CHART / "values.yaml").read_text().splitlines()) == []


def test_a_value_that_is_not_explained_is_noticed():
    lines = (CHART / "values.yaml").read_text().splitlines()
    tried = 0
    for start, line in enumerate(lines):
        if not EXPLAINS.match(line):
            continue
        end = next(number for number in range(start, len(lines)) if not lines[number].lstrip().startswith("#"))
        value = VALUE.fullmatch(lines[end])
        assert value is not None, f"values.yaml:{start + 1} explains nothing"
        if value[3]:
            assert unexplained(lines[:start] + lines[end:]), f"values.yaml:{start + 1}"
            tried += 1
    assert tried > 50
    assert unexplained(["# -- The first.", "a: 1", "b: 2"]) == ["b"]
    assert unexplained(["# -- It wins over `b`.", "a: 1", "b: 2"]) == ["b"]
    assert unexplained(["# -- `a` and `b`.", "a: 1", "", "b: 2"]) == ["b"]
    assert unexplained(["# -- Both.", "group:", "  a: 1"]) == ["a"]
