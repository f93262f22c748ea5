"""What is made for a driver: its pod, its Secret, its executors' template, and Spark's conf in them."""

import re
from base64 import b64decode
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkbroker.broker.adapters.kubernetes_provisioner._affinity import executor_affinity
from sparkbroker.broker.adapters.kubernetes_provisioner._manifests import Manifests, properties_file, render, with_owner
from sparkbroker.broker.adapters.kubernetes_provisioner._names import labels, object_name, of_driver
from sparkbroker.broker.domain.asking.pod_sizing import Role
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.asking.sizing import charge
from sparkbroker.broker.domain.capacity.resources import MIB, Resources
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.lease.lease import ContainerSize, ExecutorSpec, LeaseSpec
from sparkbroker.broker.domain.pods.quantities import pod_request
from sparkbroker.broker.domain.pods.settings import DRIVER_CONTAINER, EXECUTOR_CONTAINER, parse_pod
from sparkbroker.broker.domain.units import DriverId
from sparkbroker.broker.ports.provisioner import DriverRequest

ID = DriverId("d0123456789abcdef0123456789")
TOKEN = "secret-token"
GIB = 1 << 30


def request(
    executors=(2, 2),
    *,
    conf=None,
    profile_conf=None,
    holder=None,
    packages=(),
    jars=(),
    driver_id=ID,
    executor_memory=GIB,
    **pod,
) -> DriverRequest:
    size, executor = (ContainerSize(cores=1, memory=memory) for memory in (GIB, executor_memory))
    spec = LeaseSpec(
        profile="p", queue="q", driver=size, conf=conf or {}, pod=holder or {}, packages=packages, jars=jars,
        executors=ExecutorSpec(size=executor, min_count=executors[0], max_count=executors[1]) if executors else None,
    )  # fmt: skip
    settings = parse_pod({"image": "spark:1", "namespace": "spark", **pod}, "pod")
    profile = Profile(
        name="p", provisioner="kubernetes", defaults=spec, pod=settings, pool="cluster", conf=profile_conf or {}
    )
    return DriverRequest(
        driver_id=driver_id, attempt=1, spec=spec, profile=profile, profile_fingerprint="f",
        target=charge(spec, profile),
    )  # fmt: skip


def made(*arguments, **named) -> Manifests:
    return render(request(*arguments, **named), owner="o", token=TOKEN)


def files(manifests: Manifests) -> dict[str, str]:
    return {name: b64decode(data).decode() for name, data in manifests.secret["data"].items()}


def conf(manifests: Manifests) -> dict[str, str]:
    lines = files(manifests)["spark.properties"].splitlines()
    pairs = (re.split(r"(?<!\\)=", line, maxsplit=1) for line in lines)
    return {key: re.sub(r"\\(.)", r"\1", value) for key, value in pairs}


def template(manifests: Manifests) -> dict[str, Any]:
    return msgspec.json.decode(files(manifests)["executor.json"], type=dict[str, Any])


def container(pod: dict[str, Any], name: str) -> Any:
    (found,) = (item for item in pod["spec"]["containers"] if item["name"] == name)
    return found


def tiers(pod: dict[str, Any]) -> list[tuple[int, str, str]]:
    found = pod["spec"]["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    result = []
    for tier in found:
        term = tier["podAffinityTerm"]
        first, *rest = term["labelSelector"]["matchExpressions"]
        if first["key"] == "sparkbroker.io/driver":
            assert first["values"] == [ID]
            result.append((tier["weight"], rest[0]["values"][0], term["topologyKey"]))
    return result


FOUR = [
    (100, "driver", "kubernetes.io/hostname"),
    (75, "executor", "kubernetes.io/hostname"),
    (50, "driver", "topology.kubernetes.io/zone"),
    (25, "executor", "topology.kubernetes.io/zone"),
]


def test_what_sparks_launcher_would_do_with_a_drivers_properties_is_done_without_it():
    given = {
        "spark.driver.defaultJavaOptions": "-Da=0",
        "spark.driver.extraJavaOptions": "-Da=1 '-Db=2 3'",
        "spark.driver.extraClassPath": "/a.jar:/b",
        "spark.driver.extraLibraryPath": "/native",
    }
    manifests = made(conf=given)
    arguments = files(manifests)["java.arguments"].splitlines()
    assert arguments[-3:] == ['"-Da=0"', '"-Da=1"', '"-Db=2 3"']
    driver = container(manifests.pod, "spark-kubernetes-driver")
    environment = {each["name"]: each.get("value") for each in driver["env"]}
    assert (environment["SPARKBROKER_CLASS_PATH"], environment["LD_LIBRARY_PATH"]) == ("/a.jar:/b", "/native")
    assert '-cp "$class_path${SPARKBROKER_CLASS_PATH:+:$SPARKBROKER_CLASS_PATH}"' in driver["command"][-1]
    assert "SPARKBROKER_CLASS_PATH" not in str(made().pod["spec"]["containers"][0]["env"])


def test_executors_want_to_be_beside_their_driver_in_four_tiers():
    assert tiers(template(made())) == FOUR


HOSTILE = {
    "labels": {"team": "x"},
    "env": {"A": "1"},
    "affinity": {
        "podAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "podAffinityTerm": {"labelSelector": {"matchExpressions": [{"key": "x", "operator": "Exists"}]}, "topologyKey": "z"}}
            ]
        },
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}},
    },
    "executor_template": {"metadata": {"labels": {"b": "c"}}, "spec": {"affinity": {"podAntiAffinity": {"x": []}}}},
}  # fmt: skip


def test_no_setting_drops_the_tiers_and_none_is_dropped_for_them():
    pod = template(made(holder=HOSTILE))
    assert tiers(pod) == FOUR
    affinity = pod["spec"]["affinity"]
    assert len(affinity["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]) == 5
    assert {"nodeAffinity", "podAntiAffinity"} < affinity.keys()
    assert pod["metadata"]["labels"].items() >= {"team": "x", "b": "c", **labels("o", ID, Role.EXECUTOR)}.items()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "podAffinity": st.dictionaries(st.text(max_size=5), json_values, max_size=3),
            "nodeAffinity": json_values,
        },
    )
)
def test_whatever_the_affinity_the_four_tiers_stand(given_affinity):
    assert tiers({"spec": {"affinity": executor_affinity(ID, given_affinity, one_zone=False)}}) == FOUR


def test_one_zone_makes_the_drivers_zone_a_condition():
    (term,) = template(made(one_zone=True))["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]  # fmt: skip
    assert term["topologyKey"] == "topology.kubernetes.io/zone"
    assert "required" not in str(template(made())["spec"]["affinity"])


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True))
def test_names_are_names_of_kubernetes_and_differ_by_driver(driver_id):
    name = object_name(DriverId(driver_id))
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)
    assert len(f"{name}-exec-10000") <= 63
    assert name == f"sparkbroker-{driver_id}"


@pytest.mark.parametrize("driver_id", ["", "D1", "d/1", "d" * 41, "-d", "d.1", "d,b=c"])
def test_what_is_no_driver_id_reaches_no_selector(driver_id):
    for use in (object_name, lambda value: of_driver("o", value)):
        with pytest.raises(ProvisionerFailed, match="no driver id"):
            use(DriverId(driver_id))


@pytest.mark.promise(11)
def test_the_token_is_in_its_secret_alone():
    manifests = made()
    assert TOKEN not in str(manifests.pod)
    told = files(manifests)
    assert told.pop("token") == TOKEN
    assert TOKEN not in str(told)
    (variable,) = (item for item in container(manifests.pod, DRIVER_CONTAINER)["env"] if "TOKEN" in item["name"])
    assert variable["valueFrom"]["secretKeyRef"] == {"name": object_name(ID), "key": "token"}
    # What is mounted as files doesn't hold it either.
    mounted = next(v for v in manifests.pod["spec"]["volumes"] if v["name"] == "sparkbroker-files")
    assert "token" not in [item["key"] for item in mounted["secret"]["items"]]


def test_the_secret_goes_with_its_pod():
    (owner,) = with_owner(made().secret, "uid-1")["metadata"]["ownerReferences"]
    assert owner == {"apiVersion": "v1", "kind": "Pod", "name": object_name(ID), "uid": "uid-1"}


def test_the_driver_pod_takes_what_is_charged():
    manifests = made(None, sidecars=[{"name": "s", "image": "s:1", "resources": {"requests": {"cpu": "100m"}}}])
    assert pod_request(manifests.pod["spec"]) == Resources({"cpu": 1100, "memory": 1408 * MIB})
    annotations = manifests.pod["metadata"]["annotations"]
    assert annotations["sparkbroker.io/charge"] == "cpu=1100,memory=1476395008"
    assert annotations["sparkbroker.io/pool"] == "cluster"
    assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert annotations["karpenter.sh/do-not-disrupt"] == "true"
    executors = template(made())["metadata"]["annotations"]
    assert executors == {"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"}


def test_executors_that_spark_can_t_start_with_are_refused():
    with pytest.raises(ProvisionerFailed, match=r"executors\.memory: 449m is too small; Spark needs at least 450m"):
        made(executor_memory=449 << 20)
    assert conf(made(executor_memory=450 << 20))["spark.executor.memory"] == "450m"


SIZES = st.fixed_dictionaries(
    {}, optional={"cpu": st.integers(0, 4000).map("{}m".format), "memory": st.integers(0, 9).map("{}Gi".format)}
)
INITS = st.lists(
    st.builds(
        lambda sizes, always: {"resources": {"requests": sizes}, **({"restartPolicy": "Always"} if always else {})},
        SIZES,
        st.booleans(),
    ),
    max_size=3,
)  # fmt: skip


def named(prefix, items):
    return [{"name": f"{prefix}{index}", "image": "i:1", **item} for index, item in enumerate(items)]


@pytest.mark.promise(1)
@given(below=INITS, ours=INITS, sidecars=INITS, beside=INITS, overhead=SIZES)
def test_pods_take_what_their_lease_is_charged_for_them_whatever_runs_before_and_beside_spark(
    below, ours, sidecars, beside, overhead
):
    def plain(items):
        return [{"resources": item["resources"]} for item in items]

    spec = {
        "initContainers": named("t", below), "containers": named("b", plain(beside)), "overhead": overhead,
    }  # fmt: skip
    asked = request(
        (0, 3), driver_template={"spec": spec}, executor_template={"spec": spec},
        init_containers=named("s", ours), sidecars=named("c", plain(sidecars)),
    )  # fmt: skip
    manifests = render(asked, owner="o", token=TOKEN)
    executor = template(manifests)["spec"]
    # Spark writes the sizes of its own container.
    written = {"cpu": "1", "memory": "1408Mi"}
    (main,) = (item for item in executor["containers"] if item["name"] == EXECUTOR_CONTAINER)
    main["resources"] = {"requests": written, "limits": written}
    assert pod_request(manifests.pod["spec"]) + pod_request(executor) * 3 == asked.target


def test_sparks_conf_for_executors_in_pods():
    told = conf(made(executor_cpu_request="500m", executor_service_account="nobody", image_pull_policy="Never"))
    name = object_name(ID)
    assert (
        told.items()
        >= {
            "spark.executor.instances": "2",
            "spark.executor.memory": "1g",
            "spark.executor.memoryOverhead": "384m",
            "spark.kubernetes.executor.request.cores": "500m",
            "spark.kubernetes.namespace": "spark",
            "spark.kubernetes.driver.pod.name": name,
            "spark.kubernetes.executor.podNamePrefix": name,
            "spark.kubernetes.authenticate.executor.serviceAccountName": "nobody",
            "spark.kubernetes.container.image.pullPolicy": "Never",
            "spark.scheduler.minRegisteredResourcesRatio": "0",
            "spark.kubernetes.executor.podTemplateContainerName": EXECUTOR_CONTAINER,
        }.items()
    )
    # The pod's address is known to the pod alone; a bind address would be handed to the executors in its place.
    assert not {"spark.driver.host", "spark.driver.bindAddress", "spark.master"} & told.keys()
    program = container(made().pod, DRIVER_CONTAINER)["command"][-1]
    assert '"-Dspark.driver.host=$host"' in program
    assert "k8s://https://$api:$KUBERNETES_SERVICE_PORT" in program


def test_an_elastic_lease_has_dynamic_allocation_with_an_end():
    told = conf(made((1, 4)))
    assert (
        told.items()
        >= {
            "spark.dynamicAllocation.enabled": "true",
            "spark.dynamicAllocation.shuffleTracking.enabled": "true",
            "spark.dynamicAllocation.shuffleTracking.timeout": "10min",
            "spark.dynamicAllocation.minExecutors": "1",
            "spark.dynamicAllocation.maxExecutors": "4",
        }.items()
    )
    assert "spark.executor.instances" not in told


def test_a_driver_outlives_its_executors_failures_unless_somebody_wants_an_end():
    assert conf(made((1, 4)))["spark.executor.maxNumFailures"] == str(2**31 - 1)  # Java's largest
    assert conf(made((1, 4), conf={"spark.executor.maxNumFailures": "5"}))["spark.executor.maxNumFailures"] == "5"


def test_without_executors_the_driver_works_itself():
    manifests = made(None)
    assert conf(manifests)["spark.master"] == "local[1]"
    assert "executor.json" not in files(manifests)
    assert "k8s://" not in str(manifests.pod)


def test_packages_are_resolved_by_spark_submit():
    manifests = made(packages=("g:a:1",), jars=("/opt/a%20b.jar", "/opt/c.jar"))
    assert conf(manifests)["spark.jars.packages"] == "g:a:1"
    assert conf(manifests)["spark.jars"] == "file:///opt/a%2520b.jar,/opt/c.jar", "a path is not a URI"
    assert "spark-submit" in container(manifests.pod, DRIVER_CONTAINER)["command"][-1]
    assert "spark-submit" not in container(made().pod, DRIVER_CONTAINER)["command"][-1]


def test_who_wins_in_the_conf():
    told = conf(
        made(
            conf={"spark.a": "holder", "spark.b": "holder", "spark.scheduler.minRegisteredResourcesRatio": "1"},
            profile_conf={"spark.b": "profile", "spark.kubernetes.namespace": "kube-system"},
        )
    )
    assert (told["spark.a"], told["spark.b"]) == ("holder", "profile")
    assert told["spark.scheduler.minRegisteredResourcesRatio"] == "1"
    assert told["spark.kubernetes.namespace"] == "spark"


def test_pods_meet_the_restricted_standard():
    manifests = made(sidecars=[{"name": "s", "image": "s:1"}])
    for pod in (manifests.pod, template(manifests)):
        security = pod["spec"]["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for item in pod["spec"]["containers"]:
            assert item["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert template(manifests)["spec"]["automountServiceAccountToken"] is False


def test_settings_reach_both_pods_and_templates_lie_below_them():
    manifests = made(
        env={"A": "1", "B": {"fieldRef": {"fieldPath": "metadata.name"}}},
        node_selector={"pool": "spark"},
        tolerations=[{"key": "spot"}],
        volumes=[{"name": "v", "emptyDir": {}}],
        volume_mounts=[{"name": "v", "mountPath": "/v"}],
        priority_class="high",
        image_pull_secrets=["pull"],
        topology_spread_constraints=[{"maxSkew": 1}],
        annotations={"n": "1"},
        service_account="driver",
        driver_template={
            "metadata": {"annotations": {"t": "1"}},
            "spec": {
                "hostAliases": [{"ip": "10.0.0.1"}],
                "nodeSelector": {"disk": "ssd"},
                "containers": [{"name": DRIVER_CONTAINER, "image": "not:mine", "lifecycle": {}}, {"name": "other"}],
            },
        },
    )
    driver, executor = manifests.pod, template(manifests)
    for pod, name in ((driver, DRIVER_CONTAINER), (executor, EXECUTOR_CONTAINER)):
        spec, main = pod["spec"], container(pod, name)
        assert spec["nodeSelector"].items() >= {"pool": "spark"}.items()
        assert spec["tolerations"] == [{"key": "spot"}]
        assert spec["priorityClassName"] == "high"
        assert spec["imagePullSecrets"] == [{"name": "pull"}]
        assert spec["topologySpreadConstraints"] == [{"maxSkew": 1}]
        assert {"name": "v", "emptyDir": {}} in spec["volumes"]
        assert {"name": "v", "mountPath": "/v"} in main["volumeMounts"]
        assert main["env"][:2] == [
            {"name": "A", "value": "1"},
            {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ]
        assert pod["metadata"]["annotations"]["n"] == "1"
    assert driver["spec"]["serviceAccountName"] == "driver"
    assert driver["spec"]["hostAliases"] == [{"ip": "10.0.0.1"}]
    assert driver["spec"]["nodeSelector"] == {"disk": "ssd", "pool": "spark"}
    assert driver["metadata"]["annotations"]["t"] == "1"
    assert container(driver, DRIVER_CONTAINER)["image"] == "spark:1"
    assert container(driver, DRIVER_CONTAINER)["lifecycle"] == {}
    assert container(driver, "other")
    assert "hostAliases" not in executor["spec"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": ""}, "names no image"),
        ({"profile_conf": {"hadoop.x": "1"}}, "only keys that begin with spark"),
        ({"profile_conf": {"spark.x": "y" * (1 << 20)}}, "more than a Secret holds"),
        ({"holder": {"image": 3}}, "spec.pod.image"),
    ],
)
def test_what_cant_be_made_is_a_misconfiguration(change, words):
    wrong = request(**{key: value for key, value in change.items() if key != "holder"})
    if "holder" in change:
        wrong = msgspec.structs.replace(wrong, spec=msgspec.structs.replace(wrong.spec, pod=change["holder"]))
    with pytest.raises(ProvisionerFailed, match=re.escape(words)) as error:
        render(wrong, owner="o", token=TOKEN)
    assert error.value.misconfigured


def test_the_same_request_makes_the_same_objects():
    assert made() == made()


def test_properties_are_escaped_as_java_reads_them():
    assert properties_file({"spark.a b": "x = y:z\\\n#!"}) == "spark.a\\ b=x\\ \\=\\ y\\:z\\\\\\n\\#\\!\n"


@pytest.mark.parametrize(
    ("settings", "given", "seconds"),
    [
        ({}, {}, "5s"),
        ({"decommission": True}, {}, "120s"),
        ({"decommission": True, "executor_template": {"spec": {"terminationGracePeriodSeconds": 60}}}, {}, "60s"),
        ({}, {"spark.kubernetes.executor.terminationGracePeriodSeconds": "7s"}, "7s"),
    ],
)
def test_executors_have_the_time_for_their_end_that_was_asked_for(settings, given, seconds):
    """By a property: Spark writes 30 seconds over what the template says."""
    found = conf(made(**settings, profile_conf=given))
    assert found["spark.kubernetes.executor.terminationGracePeriodSeconds"] == seconds
