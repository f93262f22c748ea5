"""Mode CLIENT without a cluster: which pod may be a driver, how it is marked, what its session is built with, how it is seen."""

from typing import Any

import msgspec
import pytest

from sparkbroker.broker.adapters.kubernetes_provisioner import _holder
from sparkbroker.broker.adapters.kubernetes_provisioner._names import account_name, deletable
from sparkbroker.broker.adapters.kubernetes_provisioner._pods import POD, Pod
from sparkbroker.broker.adapters.kubernetes_provisioner._store import PodStore
from sparkbroker.broker.adapters.kubernetes_provisioner._verdict import Evidence, observation
from sparkbroker.broker.domain.asking.client_mode import check_holder_pod
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.asking.sizing import charge
from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.errors import InvalidField, ProvisionerFailed
from sparkbroker.broker.domain.lease.lease import ContainerSize, ExecutorSpec, HolderPod, LeaseMode, LeaseSpec
from sparkbroker.broker.domain.pods.settings import parse_pod
from sparkbroker.broker.domain.units import DriverId, Principal, WallTime
from sparkbroker.broker.ports.provisioner import DriverRequest, Phase

ID = DriverId("d1")
UID = "3e1b4c52-6f0a-4bb4-9a07-1d3f9d8a1c11"
OTHER_UID = UID.replace("3e1b", "0000")
POD_OF_ANN = HolderPod(namespace="spark", name="notebook", uid=UID)
GIB = 1 << 30


def request(asked: HolderPod | None = POD_OF_ANN, *, conf: dict[str, str] | None = None, **pod: Any) -> DriverRequest:
    driver = ContainerSize(cores=1, memory=GIB, overhead=GIB)
    executors = ExecutorSpec(size=ContainerSize(cores=2, memory=GIB), min_count=2, max_count=2)
    spec = LeaseSpec(
        profile="p", queue="q", mode=LeaseMode.CLIENT, driver=driver, executors=executors, holder_pod=asked,
        conf=conf or {},
    )  # fmt: skip
    settings = parse_pod({"image": "spark:1", "namespace": "spark", **pod}, "pod")
    profile = Profile(name="p", provisioner="kubernetes", defaults=spec, pod=settings, pool="cluster")
    return DriverRequest(
        driver_id=ID, attempt=1, spec=spec, profile=profile, profile_fingerprint="f", target=charge(spec, profile),
        principal=Principal("ann"),
    )  # fmt: skip


def pod(
    *, uid: str = UID, labels: dict[str, str] | None = None, phase: str = "Running", ip: str = "10.0.0.9", **more: Any
) -> Pod:
    annotations = more.get("annotations", {"sparkbroker.io/principal": "ann", "sparkbroker.io/executors": "2"})
    resources = more.get("resources", {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "2Gi"}})
    metadata = {
        "name": "notebook", "namespace": "spark", "uid": uid, "resourceVersion": "7", "labels": labels or {},
        "annotations": annotations, **more.get("metadata", {}),
    }  # fmt: skip
    whole = {
        "metadata": metadata,
        "spec": {"nodeName": "n", "containers": [{"name": "main", "resources": resources}], **more.get("spec", {})},
        "status": {"phase": phase, "podIP": ip, **more.get("status", {})},
    }
    return POD.decode(msgspec.json.encode(whole))


MARKS = {
    "sparkbroker.io/owner": "o", "sparkbroker.io/driver": "d1", "sparkbroker.io/role": "driver",
    "sparkbroker.io/holder": "true",
}  # fmt: skip
MARKED: dict[str, Any] = {
    "labels": MARKS,
    "annotations": {"sparkbroker.io/principal": "ann", "sparkbroker.io/profile-fingerprint": "f"},
}


def test_the_pod_that_asks_is_taken_and_one_that_is_marked_stays_so():
    _holder.check(pod(), request(), "o")
    _holder.check(pod(**MARKED), request(), "o")


@pytest.mark.parametrize(
    ("seen", "message", "again"),
    [
        ({"uid": OTHER_UID}, "has another uid than", False),
        ({"annotations": {}}, "does not say who may use it", False),
        ({"annotations": {"sparkbroker.io/principal": "bob"}}, "another principal's", False),
        ({"phase": "Succeeded"}, "has ended", False),
        ({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, "is being deleted", False),
        ({"ip": ""}, "has no address yet", True),
        ({**MARKED, "labels": {**MARKS, "sparkbroker.io/driver": "d2"}}, "one at a time", True),
        ({**MARKED, "labels": {**MARKS, "sparkbroker.io/owner": "x"}}, "another broker's lease", False),
        ({"labels": {"sparkbroker.io/role": "executor", "sparkbroker.io/owner": "o"}}, "that a broker has made", False),
        ({"labels": {"sparkbroker.io/role": "driver"}}, "that a broker has made", False),
        ({"resources": {"requests": {"cpu": "1001m"}}}, "ask for a driver of the pod's size", False),
        ({"resources": {"requests": {"memory": "2049Mi"}}}, "ask for a driver of the pod's size", False),
        ({"resources": {"limits": {"memory": "2047Mi"}}}, "a driver of this size needs", False),
    ],
)
def test_a_pod_that_is_refused(seen, message, again):
    with pytest.raises(ProvisionerFailed, match=message) as refusal:
        _holder.check(pod(**seen), request(), "o")
    assert refusal.value.retryable is again
    assert "bob" not in refusal.value.message


@pytest.mark.parametrize(
    ("whole", "message"),
    [
        ({"requests": {"cpu": "4"}}, "requests cpu 4 cores"),
        ({"limits": {"memory": "1Gi"}}, "is limited to 1 GiB of memory"),
    ],
)
def test_what_a_pod_asks_for_as_a_whole_counts(whole, message):
    asked = {"requests": {"cpu": "1", "memory": "1Gi"}}
    _holder.check(pod(resources=asked), request(), "o")
    with pytest.raises(ProvisionerFailed, match=message):
        _holder.check(pod(resources=asked, spec={"resources": whole}), request(), "o")


@pytest.mark.parametrize("limit", [str(2**63 - 1), "1e99999"])
def test_a_limit_of_any_size_is_one(limit):
    _holder.check(pod(resources={"requests": {"memory": "1Gi"}, "limits": {"memory": limit}}), request(), "o")


@pytest.mark.parametrize("key", ["executors", "pool", "profile-fingerprint", "python-version"])
def test_annotations_are_read_as_they_were_written(key):
    """The pod's maker may change them."""
    wrong = pod(labels=MARKS, annotations={f"sparkbroker.io/{key}": "1/" + "x" * 100_000})
    assert (wrong.wanted, wrong.pool, wrong.fingerprint, wrong.python_version) == (None, "", "", "")


def test_a_mark_is_for_the_very_pod_that_was_looked_at_and_comes_off_whole():
    patch = _holder.claim(pod(), request(), "o")["metadata"]
    assert (patch["uid"], patch["resourceVersion"]) == (UID, "7")
    assert patch["labels"] == MARKS
    assert patch["annotations"]["sparkbroker.io/charge"] == f"cpu=5000,memory={2 * GIB + 2 * (GIB + (384 << 20))}"
    off = _holder.unclaim(pod(**MARKED))["metadata"]
    assert off["uid"] == UID
    assert off["labels"] == dict.fromkeys(patch["labels"])
    assert off["annotations"] == dict.fromkeys(patch["annotations"])


def test_a_holder_s_pod_has_none_of_the_profile_s_sidecars_to_pay_for():
    sidecar = {"name": "proxy", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}
    alone, beside = request(), request(sidecars=[sidecar])
    assert beside.target == alone.target + Resources.of(cores=1, memory=GIB) * 2  # its executors'
    named = request(driver_cpu_request="250m")
    assert alone.target.quantities["cpu"] - named.target.quantities["cpu"] == 750


def test_the_account_is_the_lease_s_alone_and_goes_with_the_pod():
    account = _holder.account(pod(), ID, "o")
    binding = _holder.binding(pod(), ID, "o", "some-role")
    assert account["metadata"] == binding["metadata"]
    assert account["metadata"]["name"] == account_name(ID) == "sparkbroker-client-d1"
    assert account["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Pod", "name": "notebook", "uid": UID}
    ]
    assert account["automountServiceAccountToken"] is False
    assert binding["roleRef"]["name"] == "some-role"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "sparkbroker-client-d1", "namespace": "spark"}]


def test_what_the_session_is_built_with():
    asked = request(conf={"spark.sql.shuffle.partitions": "7"}, executor_service_account="executor", one_zone=True)
    conf, template = _holder.session(asked, pod(), "o")
    assert conf["spark.kubernetes.driver.pod.name"] == "notebook"
    assert conf["spark.kubernetes.namespace"] == "spark"
    assert conf["spark.kubernetes.executor.podNamePrefix"] == "sparkbroker-d1"
    assert conf["spark.kubernetes.authenticate.executor.serviceAccountName"] == "executor"
    assert conf["spark.driver.host"] == "10.0.0.9"
    assert conf["spark.driver.memory"] == "1g"
    assert conf["spark.executor.instances"] == "2"
    assert conf["spark.sql.shuffle.partitions"] == "7"
    # The client's own: its paths, its address of the API server. Spark's own way to read a token reads it once.
    absent = ("spark.master", "spark.kubernetes.executor.podTemplateFile", "spark.driver.bindAddress")
    assert not conf.keys() & set(absent)
    assert not [key for key in conf if key.startswith(("spark.connect.", "spark.kubernetes.authenticate.oauth"))]
    assert template["metadata"]["labels"]["sparkbroker.io/driver"] == "d1"
    assert template["metadata"]["labels"]["sparkbroker.io/role"] == "executor"
    assert "sparkbroker.io/holder" not in template["metadata"]["labels"]
    terms = template["spec"]["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert [term["weight"] for term in terms] == [100, 75, 50, 25]


@pytest.mark.promise(6)
def test_nothing_that_is_deleted_is_ever_a_holder_s_pod():
    assert deletable("o", ID) == "sparkbroker.io/owner=o,sparkbroker.io/driver=d1,!sparkbroker.io/holder"


# -- as it is seen


def executor(name: str = "e1", phase: str = "Running") -> Pod:
    labels = {"sparkbroker.io/driver": "d1", "sparkbroker.io/role": "executor"}
    return pod(uid=name, labels=labels, phase=phase, metadata={"name": name})


READY = WallTime(2_000_000_000.0)


def seen(*pods: Pod, **more: Any):
    return observation(ID, Evidence(pods=pods, **more))


def test_ready_once_it_has_its_rights_and_how_many_executors():
    own = pod(labels=MARKS)
    assert seen(own).phase is Phase.STARTING
    ready = seen(own, executor(), executor("e2", "Pending"), ready=READY)
    assert ready.phase is Phase.READY
    assert ready.executors is not None
    assert (ready.executors.wanted, ready.executors.running, ready.executors.pending) == (2, 1, 1)
    assert ready.handle["holder"] == 1
    assert ready.resources == Resources.of(cores=3, memory=6 * GIB)


def test_a_pod_that_is_being_deleted_may_still_say_goodbye():
    leaving = pod(labels=MARKS, metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    going = seen(leaving, ready=READY)
    assert going.phase is Phase.READY
    assert "being deleted" in going.message


@pytest.mark.promise(5)
def test_released_it_is_charged_no_more_and_its_executors_are():
    own = pod(labels=MARKS)
    ending = seen(own, executor(), ready=READY, asked=True)
    assert (ending.phase, ending.exit) == (Phase.STOPPING, None)
    assert ending.resources == Resources.of(cores=1, memory=2 * GIB)
    assert seen(own, asked=True).phase is Phase.STOPPING  # its marks are still on
    assert seen(asked=True, last=own).phase is Phase.ABSENT


@pytest.mark.promise(9)
def test_lost_with_its_pod():
    own = pod(labels=MARKS)
    gone = seen(executor(), ready=READY, last=own)
    assert gone.phase is Phase.STOPPING
    assert gone.exit is not None
    assert "the holder's pod is gone" in gone.message
    assert "the holder's pod is gone" in seen(ready=READY, last=own).message
    killed = {"name": "main", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}
    dead = seen(pod(labels=MARKS, phase="Failed", status={"containerStatuses": [killed]}), ready=READY)
    assert dead.exit is not None
    assert dead.exit.out_of_memory
    assert "killed for lack of memory" in dead.message


def test_one_pod_may_be_the_driver_of_one_lease_after_the_other():
    store, first = PodStore(), pod(labels=MARKS)
    second = pod(labels={**MARKS, "sparkbroker.io/driver": "d2"}, metadata={"resourceVersion": "9"})
    assert store.put(first)
    assert store.remove(first)
    assert not store.put(first)  # a late event
    assert store.put(second)
    assert store.driver_pod(DriverId("d2")) is not None
    assert store.driver_pod(ID) is None


# -- as it is asked for


def ask(given: HolderPod | None, mode: LeaseMode = LeaseMode.CLIENT, settings: dict[str, Any] | None = None):
    return check_holder_pod(given, settings or {}, mode, request().profile)


def test_a_pod_that_can_be_asked_for():
    assert ask(POD_OF_ANN) == POD_OF_ANN
    assert ask(None, LeaseMode.CONNECT) is None


@pytest.mark.parametrize(
    ("given", "mode", "field"),
    [
        (None, LeaseMode.CLIENT, "spec.holder_pod"),
        (POD_OF_ANN, LeaseMode.CONNECT, "spec.holder_pod"),
        (POD_OF_ANN, LeaseMode.LOCAL, "spec.holder_pod"),
        (HolderPod(namespace="kube-system", name="x", uid=UID), LeaseMode.CLIENT, "spec.holder_pod.namespace"),
        (HolderPod(namespace="spark", name="../x", uid=UID), LeaseMode.CLIENT, "spec.holder_pod.name"),
        (HolderPod(namespace="spark", name="x", uid="1"), LeaseMode.CLIENT, "spec.holder_pod.uid"),
    ],
)
def test_a_pod_that_can_not(given, mode, field):
    with pytest.raises(InvalidField) as refusal:
        ask(given, mode)
    assert refusal.value.field == field


def test_executors_are_in_the_pod_s_namespace():
    with pytest.raises(InvalidField, match="not the executors' namespace"):
        ask(POD_OF_ANN, settings={"namespace": "other"})
