"""Why a pod doesn't run yet, and why one ended: a sentence that needs no kubectl. Pure.

A hindrance that a later try can't cure without a change of the profile or the cluster is hopeless; some of these may be
cured within seconds (a Secret that is made at the same time), so the caller waits a little before it believes them.
"""

import re
import signal
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from sparkbroker.broker.adapters.kubernetes_provisioner._pods import ContainerStatus, Event, Pod, Terminated
from sparkbroker.broker.domain.lease.driver import DriverExit
from sparkbroker.broker.domain.pods.settings import DRIVER_CONTAINER, NAME_PREFIX

LONGEST: Final = 400
OVERDUE: Final = 10.0
"""Seconds after the end of its grace period for which a pod may still exist while its node is well."""
NAMED: Final = 5
EXIT_ON_OUT_OF_MEMORY: Final = 3
"""The status with which -XX:+ExitOnOutOfMemoryError ends a JVM."""

EXIT_ON_EXECUTOR_FAILURES: Final = 11
"""Spark's own, of a driver whose executors failed too often (SparkExitCode.EXCEED_MAX_EXECUTOR_FAILURES)."""

_PULL: Final = {
    "ErrImagePull": "can't be pulled",
    "ImagePullBackOff": "can't be pulled",
    "ErrImageNeverPull": "is not on the node, and the pull policy is Never",
    "InvalidImageName": "has no valid name",
    "ImageInspectError": "can't be inspected",
    "RegistryUnavailable": "can't be pulled: its registry doesn't answer",
}
_HOPELESS: Final = frozenset({"InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"})
_USUAL: Final = frozenset({"", "ContainerCreating", "PodInitializing"})
_NO_CLAIMS: Final = re.compile(r",? ?no new claims to deallocate")
_MOUNT: Final = frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume"})
_OWN_SECRET: Final = f'secret "{NAME_PREFIX}'
"""The driver's own is made after its pod, by a broker that was killed in between when it is back; the node, which tries
again ever more rarely, sees it up to two minutes later."""
_PULLS: Final = frozenset({"Pulling", "Pulled"})
_IMAGE: Final = re.compile(r'image "([^"]+)"')
_SANDBOX: Final = frozenset({"FailedCreatePodSandBox", "FailedCreatePodContainer", "NetworkNotReady"})


class Hindrance(msgspec.Struct, frozen=True, kw_only=True):
    """Why a pod doesn't run yet. ``hopeless``: trying again won't help."""

    message: str
    hopeless: bool = False


def hindrance(pod: Pod) -> Hindrance | None:
    """What its status tells; None: it runs, or nothing is wrong yet."""
    scheduled = pod.condition("PodScheduled")
    if scheduled is not None and scheduled.status == "False":
        return Hindrance(message=unschedulable(scheduled.message or scheduled.reason or ""))
    for status in (*pod.status.init_container_statuses, *pod.status.container_statuses):
        found = _of_container(status)
        if found is not None:
            return found
    return None


def unschedulable(message: str) -> str:
    """The scheduler's sentence, without what it says of preemption and of claims."""
    text = _NO_CLAIMS.sub("", message.partition(" preemption:")[0]).strip(" ,")
    return f"unschedulable: {_short(text or 'the scheduler gives no reason')}"


def _of_container(status: ContainerStatus) -> Hindrance | None:
    waiting = status.state.waiting
    if waiting is None or waiting.reason in _USUAL:
        return None
    hopeless = waiting.reason in _HOPELESS and _OWN_SECRET not in waiting.message
    if waiting.reason in _PULL:
        what = f"the image of container {status.name} {_PULL[waiting.reason]}"
    elif waiting.reason == "CreateContainerConfigError":
        what = f"container {status.name} can't be configured"
    elif waiting.reason == "CrashLoopBackOff":
        ended = status.last_state.terminated
        what = f"container {status.name} fails again and again"
        return Hindrance(message=f"{what}{': ' + ended_as(status.name, ended) if ended is not None else ''}")
    else:
        what = f"container {status.name} waits ({waiting.reason})"
    return Hindrance(message=f"{what}: {_short(waiting.message)}" if waiting.message else what, hopeless=hopeless)


def hindrance_by_events(events: Iterable[Event]) -> Hindrance | None:
    """What only events tell of a pod that has a node and no containers: volumes that can't be mounted, no network, an image
    that is being pulled."""
    found = None
    for event in events:  # the newest last
        if event.reason in _MOUNT:
            missing = re.search(r'(secret|configmap|persistentvolumeclaim) "[^"]*" not found', event.message)
            text = missing[0] if missing else event.message
            hopeless = missing is not None and _OWN_SECRET not in text
            found = Hindrance(message=f"a volume can't be mounted: {_short(text)}", hopeless=hopeless)
        elif event.reason in _SANDBOX:
            found = Hindrance(message=f"its node can't start it: {_short(event.message)}")
        elif event.reason in _PULLS:  # what came before is over
            image = _IMAGE.search(event.message) if event.reason == "Pulling" else None
            found = (
                Hindrance(message=f"its node is pulling the image {_short(image[1])}") if image is not None else None
            )
        elif event.reason == "FailedScheduling" and found is None:
            found = Hindrance(message=unschedulable(event.message))
    return found


def driver_exit(pod: Pod, log_tail: tuple[str, ...] = ()) -> tuple[DriverExit, str] | None:
    """How a driver's pod ended by itself, and the sentence that explains it beyond that; None: it has not ended."""
    main = pod.container(DRIVER_CONTAINER)
    ended = main.terminated if main is not None else None
    others = [
        (status.name, status.state.terminated)
        for status in (*pod.status.init_container_statuses, *pod.status.container_statuses)
        if status.name != DRIVER_CONTAINER and status.state.terminated is not None
    ]
    if ended is None and not pod.ended:
        return None
    sentences = [disruption(pod)]
    sentences += [ended_as(name, other) for name, other in others if other is not None and other.exit_code != 0]
    if ended is None:
        starved = pod.is_holder and any(other is not None and other.reason == "OOMKilled" for _, other in others)
        return DriverExit(out_of_memory=starved, log_tail=log_tail), _joined(sentences)
    if ended.reason == "OOMKilled":
        sentences.append(f"container {DRIVER_CONTAINER} was killed for lack of memory: it reached its limit")
    elif ended.message:
        sentences.append(_short(ended.message))
    if ended.exit_code == EXIT_ON_EXECUTOR_FAILURES:
        sentences.append("more of its executors failed than spark.executor.maxNumFailures allows")
    return _exit(ended, log_tail), _joined(sentences)


def _exit(ended: Terminated, log_tail: tuple[str, ...]) -> DriverExit:
    number = ended.signal or (ended.exit_code - 128 if 128 < ended.exit_code < 160 else 0)
    by_itself = ended.exit_code == EXIT_ON_OUT_OF_MEMORY and any("OutOfMemoryError" in line for line in log_tail)
    return DriverExit(
        exit_code=None if number else ended.exit_code,
        signal=_signal(number),
        out_of_memory=ended.reason == "OOMKilled" or by_itself,
        log_tail=log_tail,
    )


def ended_as(name: str, ended: Terminated) -> str:
    """One container's end, for people."""
    if ended.reason == "OOMKilled":
        return f"container {name} was killed for lack of memory"
    why = f" ({_short(ended.message)})" if ended.message else ""
    return f"container {name} ended with status {ended.exit_code}{why}"


def executor_failure(pod: Pod) -> str:
    """How an executor failed, for people; empty: it has not."""
    name = pod.metadata.name
    for status in (*pod.status.init_container_statuses, *pod.status.container_statuses):
        ended = status.state.terminated
        if ended is not None and (ended.exit_code != 0 or ended.reason == "OOMKilled"):
            return f"executor {name}: {_joined([disruption(pod), ended_as(status.name, ended)])}"
    why = disruption(pod)
    return f"executor {name}: {why}" if why else ""


def disruption(pod: Pod) -> str:
    """What the cluster did to it: evicted, preempted, its node lost; empty: nothing."""
    if pod.status.reason == "Evicted":
        return f"evicted by its node {pod.spec.node_name}: {_short(pod.status.message)}"
    target = pod.condition("DisruptionTarget")
    if target is not None and target.status == "True":
        words = {
            "PreemptionByScheduler": "preempted by the scheduler for a pod of higher priority",
            "DeletionByTaintManager": f"its node {pod.spec.node_name} was tainted (lost, or being emptied)",
            "EvictionByEvictionAPI": "evicted on somebody's request (a drain of its node, for example)",
            "DeletionByPodGC": f"its node {pod.spec.node_name} is gone",
            "TerminationByKubelet": f"ended by its node {pod.spec.node_name}",
        }
        text = words.get(target.reason or "", target.reason or "disrupted")
        return f"{text}: {_short(target.message)}" if target.reason not in words and target.message else text
    if pod.status.reason:
        detail = f": {_short(pod.status.message)}" if pod.status.message else ""
        return f"{pod.status.reason}{detail}"
    return ""


def node_trouble(pod: Pod) -> str:
    """Whether its node has stopped speaking; empty: it speaks, as far as is known."""
    ready, containers = pod.condition("Ready"), pod.condition("ContainersReady")
    # The node controller makes a pod unready, and of its containers it knows nothing new.
    if ready is not None and ready.status != "True" and containers is not None and containers.status == "True":
        return f"its node {pod.spec.node_name} does not answer: what runs there can't be confirmed gone"
    if pod.status.reason == "NodeLost":
        return f"its node {pod.spec.node_name} is lost"
    return ""


def unconfirmable(pod: Pod, wall: float) -> bool:
    """Whether waiting for its node's word is of no use: that doesn't answer, or should have ended it a while ago."""
    if node_trouble(pod):
        return True
    due = pod.metadata.deletion_timestamp  # the end of its grace period
    return due is not None and wall > due.timestamp() + OVERDUE


def abandoned(removed: Sequence[Pod], asked: Sequence[Pod]) -> str:
    """What was done with a driver's pods that an operator gives up, for people."""
    if not removed and not asked:
        return "nothing of it was left"
    parts = []
    if removed:
        parts.append(
            f"removed from the cluster's record without a word of their nodes: {_named(removed)}; what runs there may go on "
            "until the node is ended or back"
        )
    if asked:
        parts.append(f"asked to end, since their nodes answer: {_named(asked)}; ask again if they don't")
    return "; ".join(parts)


def _named(pods: Sequence[Pod]) -> str:
    names = [f"{pod.metadata.name} ({pod.spec.node_name or 'no node'})" for pod in pods]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _signal(number: int) -> str:
    if not number:
        return ""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def _joined(sentences: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(filter(None, sentences)))


def _short(text: str) -> str:
    """One line, bounded."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
