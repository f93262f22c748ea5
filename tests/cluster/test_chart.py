"""What the chart renders, without a cluster: `helm template` and `helm lint`, with Helm from the cluster's own tools or PATH."""

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from tests.cluster import layout

pytestmark = pytest.mark.kubernetes

CHART = Path(__file__).parents[2] / "chart"
WORKLOADS = ("Deployment", "Job", "Pod")


@pytest.fixture(scope="module")
def helm(need):
    program = layout.BIN / "helm"
    found = str(program) if program.exists() else shutil.which("helm")
    need(found, "helm (`python3 -m tests.cluster build` compiles it)")

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


def test_drivers_may_touch_pods_only_and_executors_nothing(render):
    found = render()
    for role in ("driver", "client"):
        rules = found["Role", "apps", f"broker-sparkbroker-{role}"]["rules"]
        assert {resource for rule in rules for resource in rule["resources"]} == {"pods"}
        assert {verb for rule in rules for verb in rule["verbs"]} == {
            "get", "list", "watch", "create", "delete", "deletecollection",
        }  # fmt: skip
    bound = [
        subject["name"] for key, item in found.items() if key[0].endswith("RoleBinding") for subject in item["subjects"]
    ]
    assert sorted(bound) == ["broker-sparkbroker", "broker-sparkbroker", "sparkbroker-driver"]
    assert found["ServiceAccount", "apps", "sparkbroker-executor"]["automountServiceAccountToken"] is False


def test_without_client_mode_the_broker_makes_no_accounts(render):
    found = render({"clientMode": {"enabled": False}})
    rules = found["Role", "apps", "broker-sparkbroker-broker"]["rules"]
    assert "serviceaccounts" not in {resource for rule in rules for resource in rule["resources"]}
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
    found = render(
        {
            "networkPolicy": {"enabled": False},
            "admissionPolicy": {"enabled": False},
            "persistence": {"enabled": False},
            "drain": {"enabled": False},
        }
    )
    kinds = {key[0] for key in found}
    assert not kinds & {"NetworkPolicy", "ValidatingAdmissionPolicy", "PersistentVolumeClaim", "Job", "ServiceMonitor"}


def test_every_value_is_explained():
    """Above each value, or above the group that it stands in, is a comment."""
    explained: dict[int, bool] = {}
    for number, line in enumerate((CHART / "values.yaml").read_text().splitlines(), 1):
        text = line.lstrip()
        depth = len(line) - len(text)
        if text.startswith("#"):
            explained[depth] = True
        elif not text:
            explained.clear()
        elif not text.startswith("[") and not text.endswith(":"):
            assert any(explained.get(level) for level in range(depth + 1)), f"values.yaml:{number}: {text}"
