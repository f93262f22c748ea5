"""From what a cluster says to what a lease says."""

from datetime import UTC, datetime

import pytest

from sparkbroker.broker.adapters.kubernetes_provisioner._errors import Call, failure, unanswered
from sparkbroker.broker.adapters.kubernetes_provisioner._pods import POD, Event, Pod
from sparkbroker.broker.adapters.kubernetes_provisioner._reasons import (
    OVERDUE,
    abandoned,
    disruption,
    driver_exit,
    executor_failure,
    hindrance,
    hindrance_by_events,
    node_trouble,
    unconfirmable,
    unschedulable,
)
from sparkbroker.broker.domain.lease.driver import DriverExit
from sparkbroker.broker.domain.pods.settings import DRIVER_CONTAINER, EXECUTOR_CONTAINER

SCHEDULER = (
    "0/3 nodes are available: 3 Insufficient cpu. no new claims to deallocate, preemption: 0/3 nodes are available: "
    "3 No preemption victims found for incoming pod."
)


def pod(status: str, *, role: str = "driver", metadata: str = "", node: str = "node1") -> Pod:
    labels = f'{{"sparkbroker.io/driver":"d1","sparkbroker.io/role":"{role}"}}'
    return POD.decode(
        f'{{"metadata":{{"name":"p","uid":"u","labels":{labels}{metadata}}},"spec":{{"nodeName":"{node}"}},"status":{{{status}}}}}'
    )


def waiting(reason: str, message: str = "", container: str = DRIVER_CONTAINER) -> str:
    return f'"phase":"Pending","containerStatuses":[{{"name":"{container}","state":{{"waiting":{{"reason":"{reason}","message":"{message}"}}}}}}]'


def ended(code: int, reason: str = "Error", container: str = DRIVER_CONTAINER, extra: str = "") -> str:
    state = f'{{"terminated":{{"exitCode":{code},"reason":"{reason}"{extra}}}}}'
    return f'"phase":"Failed","containerStatuses":[{{"name":"{container}","state":{state}}}]'


def test_the_schedulers_sentence_is_shortened():
    assert unschedulable(SCHEDULER) == "unschedulable: 0/3 nodes are available: 3 Insufficient cpu."
    assert unschedulable("") == "unschedulable: the scheduler gives no reason"
    assert len(unschedulable("x" * 5000)) < 500


@pytest.mark.parametrize(
    ("status", "words", "hopeless"),
    [
        (
            '"phase":"Pending","conditions":[{"type":"PodScheduled","status":"False","reason":"Unschedulable","message":"0/3 nodes are available: 3 Insufficient cpu."}]',
            "unschedulable: 0/3 nodes are available: 3 Insufficient cpu.",
            False,
        ),
        (
            waiting("ErrImagePull", "not found"),
            "the image of container spark-kubernetes-driver can't be pulled: not found",
            False,
        ),
        (waiting("ImagePullBackOff"), "the image of container spark-kubernetes-driver can't be pulled", False),
        (waiting("ErrImageNeverPull"), "is not on the node, and the pull policy is Never", True),
        (waiting("InvalidImageName"), "has no valid name", True),
        (waiting("CreateContainerConfigError", "secret x not found"), "can't be configured: secret x not found", True),
        (waiting("CrashLoopBackOff", container="sidecar"), "container sidecar fails again and again", False),
        (waiting("StrangeNewReason"), "waits (StrangeNewReason)", False),
    ],
)
def test_why_a_pod_doesnt_run_yet(status, words, hopeless):
    found = hindrance(pod(status))
    assert found is not None
    assert words in found.message
    assert found.hopeless is hopeless


@pytest.mark.parametrize("status", ["", waiting("ContainerCreating"), waiting("PodInitializing"), '"phase":"Running"'])
def test_what_is_usual_is_no_hindrance(status):
    assert hindrance(pod(status)) is None


def test_what_only_events_tell():
    missing = Event(reason="FailedMount", message='MountVolume.SetUp failed for volume "v" : secret "db" not found')
    found = hindrance_by_events([Event(reason="Scheduled"), missing])
    assert found is not None
    assert (found.message, found.hopeless) == ('a volume can\'t be mounted: secret "db" not found', True)
    slow = hindrance_by_events([Event(reason="FailedAttachVolume", message="Multi-Attach error")])
    assert slow is not None
    assert not slow.hopeless
    network = hindrance_by_events([Event(reason="FailedCreatePodSandBox", message="no address")])
    assert network is not None
    assert "its node can't start it: no address" in network.message
    assert hindrance_by_events([Event(reason="Pulled")]) is None


def test_an_image_that_is_being_pulled_is_told_by_events():
    pulling = Event(reason="Pulling", message='Pulling image "registry.example/spark:4.3.0"')
    mended = Event(reason="FailedMount", message='secret "sparkbroker-d1" not found')
    found = hindrance_by_events([Event(reason="Scheduled"), mended, pulling])
    assert found is not None
    assert (found.message, found.hopeless) == ("its node is pulling the image registry.example/spark:4.3.0", False)
    pulled = Event(reason="Pulled", message='Successfully pulled image "registry.example/spark:4.3.0" in 61.2s')
    assert hindrance_by_events([mended, pulling, pulled]) is None


@pytest.mark.parametrize(
    ("status", "exit", "words"),
    [
        (ended(1), DriverExit(exit_code=1), ""),
        (ended(137, "OOMKilled"), DriverExit(signal="SIGKILL", out_of_memory=True), "container spark-kubernetes-driver was killed for lack of memory"),
        (ended(143), DriverExit(signal="SIGTERM"), ""),
        (ended(0, "Completed"), DriverExit(exit_code=0), ""),
        (ended(3), DriverExit(exit_code=3), ""),
        ('"phase":"Failed","reason":"Evicted","message":"The node was low on resource: memory."', DriverExit(), "evicted by its node node1: The node was low on resource: memory."),
    ],
)  # fmt: skip
def test_how_a_driver_ended(status, exit, words):
    found = driver_exit(pod(status))
    assert found is not None
    assert found[0] == exit
    assert words in found[1]


def test_a_jvm_that_ended_itself_for_want_of_memory():
    found = driver_exit(pod(ended(3)), ("java.lang.OutOfMemoryError: Java heap space",))
    assert found is not None
    assert found[0].out_of_memory


def test_a_driver_that_runs_has_not_ended():
    assert driver_exit(pod('"phase":"Running"')) is None


def test_a_sidecars_end_is_told_beside_the_drivers():
    both = (
        f'"phase":"Failed","containerStatuses":[{{"name":"{DRIVER_CONTAINER}","state":{{"terminated":{{"exitCode":143}}}}}},'
        '{"name":"proxy","state":{"terminated":{"exitCode":137,"reason":"OOMKilled"}}}]'
    )
    found = driver_exit(pod(both))
    assert found is not None
    assert "container proxy was killed for lack of memory" in found[1]


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("PreemptionByScheduler", "preempted by the scheduler"),
        ("DeletionByTaintManager", "its node node1 was tainted"),
        ("DeletionByPodGC", "its node node1 is gone"),
        ("EvictionByEvictionAPI", "evicted on somebody's request"),
    ],
)
def test_what_the_cluster_did_to_it(reason, words):
    target = f'"conditions":[{{"type":"DisruptionTarget","status":"True","reason":"{reason}"}}]'
    assert words in disruption(pod(target))


def test_a_node_that_is_silent():
    status = '"conditions":[{"type":"Ready","status":"False"},{"type":"ContainersReady","status":"True"}]'
    assert "its node node1 does not answer" in node_trouble(pod(status))
    assert node_trouble(pod("")) == ""
    assert node_trouble(pod(status.replace("True", "False"))) == ""


def test_what_an_operator_may_give_up():
    """A node that is silent, or that should have ended the pod a while ago; not one that is still at it."""
    well = (
        '"phase":"Running","conditions":[{"type":"Ready","status":"True"},{"type":"ContainersReady","status":"True"}]'
    )
    silent = well.replace('"Ready","status":"True"', '"Ready","status":"False"', 1)
    due = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    leaving = pod(well, metadata=',"deletionTimestamp":"2026-01-01T00:00:00Z"')
    assert not unconfirmable(pod(well), due)
    assert unconfirmable(pod(silent), due)
    assert not unconfirmable(leaving, due + OVERDUE - 1)
    assert unconfirmable(leaving, due + OVERDUE + 1)
    assert abandoned([], []) == "nothing of it was left"
    told = abandoned([pod(silent)] * 7, [pod(well, node="")])
    assert told.startswith("removed from the cluster's record without a word of their nodes: p (node1), p (node1)")
    assert "and 2 more; what runs there may go on" in told
    assert told.endswith("asked to end, since their nodes answer: p (no node); ask again if they don't")


def test_which_container_of_which_executor_failed():
    killed = pod(ended(137, "OOMKilled", EXECUTOR_CONTAINER), role="executor")
    assert executor_failure(killed) == "executor p: container spark-kubernetes-executor was killed for lack of memory"
    assert executor_failure(pod(ended(0, "Completed", EXECUTOR_CONTAINER), role="executor")) == ""


CREATE = Call(verb="create", resource="pods", namespace="spark")


def answer(code: int, message: str) -> tuple[str, bool, bool]:
    body = f'{{"kind":"Status","code":{code},"message":"{message}"}}'.encode()
    error = failure(CREATE, code, body)
    assert error.code == code
    return error.message, error.retryable, error.misconfigured


@pytest.mark.parametrize(
    ("code", "message", "words", "retryable"),
    [
        (403, 'pods \\"x\\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3', "the quota 'q' of namespace 'spark' is full: this takes pods=1, pods=3 of pods=3 is used", True),
        (403, 'pods is forbidden: User \\"system:serviceaccount:b:b\\" cannot create resource \\"pods\\" in API group \\"\\" in the namespace \\"spark\\"', "403: system:serviceaccount:b:b may not create pods in namespace 'spark'", False),
        (403, 'pods \\"x\\" is forbidden: violates PodSecurity \\"restricted:latest\\": host namespaces', "admission denied in namespace 'spark': violates PodSecurity", False),
        (403, 'pods \\"x\\" is forbidden: error looking up service account spark/drv: serviceaccount \\"drv\\" not found', "the service account spark/drv does not exist", False),
        (403, 'pods \\"x\\" is forbidden: ValidatingAdmissionPolicy \\"p\\" with binding \\"b\\" denied request: no', "admission denied in namespace 'spark': ValidatingAdmissionPolicy", False),
        (404, 'namespaces \\"spark\\" not found', "namespace 'spark' does not exist", False),
        (422, 'Pod \\"x\\" is invalid: spec.containers[0].image: Required value', "Kubernetes refuses to create pods in namespace 'spark'", False),
        (401, "Unauthorized", "doesn't accept the broker's credentials", True),
        (429, "too many requests", "(429)", True),
        (500, "boom", "(500): boom", True),
        (503, "", "(503)", True),
    ],
)  # fmt: skip
def test_answers_become_sentences(code, message, words, retryable):
    text, again, misconfigured = answer(code, message)
    assert words in text
    assert again is retryable
    assert misconfigured is not retryable


def test_an_answer_that_is_no_status_is_told_as_it_is():
    assert "<html>" in failure(CREATE, 502, b"<html>bad gateway").message
    assert unanswered(CREATE, "refused").retryable


def test_the_drivers_own_secret_may_still_come():
    """A broker that was killed between the pod and its Secret makes it when it is back."""
    for name, hopeless in (("sparkbroker-d1", False), ("lake", True)):
        text = f'MountVolume.SetUp failed for volume "x" : secret "{name}" not found'
        found = hindrance_by_events([Event(reason="FailedMount", message=text)])
        assert found is not None
        assert found.hopeless is hopeless
