"""What the pods of a driver say of it, in the domain's words. Pure.

A pod that is being deleted, or whose driver has ended, is lost for good: the observation is STOPPING with its exit, and
stays so until nothing of the driver exists. Only then it is EXITED (it ended by itself) or ABSENT.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Final

import msgspec

from sparkbroker.broker.adapters.kubernetes_provisioner._pods import Pod
from sparkbroker.broker.adapters.kubernetes_provisioner._reasons import (
    EXIT_ON_EXECUTOR_FAILURES,
    disruption,
    driver_exit,
    hindrance,
    node_trouble,
)
from sparkbroker.broker.domain.capacity.resources import CPU, MAX_CORES, MAX_MEMORY, MEMORY, Resources
from sparkbroker.broker.domain.lease.driver import DriverExit
from sparkbroker.broker.domain.lease.observation import Executors, Handle, Observation, Phase
from sparkbroker.broker.domain.pods.settings import DRIVER_CONTAINER
from sparkbroker.broker.domain.units import DriverId, WallTime

SCHEDULED: Final = "PodScheduled"
SANDBOX_READY: Final = "PodReadyToStartContainers"
REASONS: Final = 2
"""Of executors that don't run: the most frequent ones are told."""


MOST: Final = Resources({CPU: MAX_CORES * 1000, MEMORY: MAX_MEMORY})
"""Of one driver and its executors: no more runs anywhere, however much pods that wait for a node ask for."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a driver. ``pods``: its own first. ``last``: its own pod as it was last seen.

    ``port_open`` and ``ready`` are what the broker has found out by calling it, ``trouble`` why it can't yet;
    ``by_events`` what only events told; ``asked``: we asked it to end; ``wanted``: executors, as recorded; ``refused``: why no more of
    them are made.
    """

    pods: tuple[Pod, ...] = ()
    last: Pod | None = None
    port_open: WallTime | None = None
    ready: WallTime | None = None
    trouble: str = ""
    by_events: str = ""
    asked: bool = False
    wanted: int | None = None
    executor_failure: str = ""
    refused: str = ""
    log_tail: tuple[str, ...] = ()


def observation(driver_id: DriverId, evidence: Evidence) -> Observation:
    """The driver as it is."""
    own = next((pod for pod in evidence.pods if pod.is_driver), None)
    shown = own or evidence.last
    phase, message, exit = _phase(own, evidence)
    scheduled, sandbox, started = _way_to_process(shown)
    usable = phase in (Phase.PORT_OPEN, Phase.READY)
    return Observation(
        driver_id=driver_id,
        phase=phase,
        handle={**_handle(own), "executors": _wanted(evidence)} if own is not None else {},
        resources=_sum(pod for pod in evidence.pods if not (pod.is_holder and evidence.asked)),
        profile_fingerprint=shown.fingerprint if shown is not None else "",
        pool=shown.pool if shown is not None else "",
        pod_scheduled=scheduled,
        sandbox_ready=sandbox,
        process_started=started,
        port_open=_not_before(started, evidence.port_open) if usable else None,
        ready=_not_before(started, evidence.ready) if phase is Phase.READY else None,
        executors=executors(evidence) if phase is Phase.READY else None,
        exit=exit,
        message=message,
    )


def _phase(own: Pod | None, evidence: Evidence) -> tuple[Phase, str, DriverExit | None]:
    if not evidence.pods:
        return _of_nothing(evidence)
    if own is None:
        count = len(evidence.pods)
        why = disruption(evidence.last) if evidence.last is not None else ""
        whose = "the holder's" if evidence.last is not None and evidence.last.is_holder else "its"
        return (
            Phase.STOPPING,
            _joined(f"{whose} pod is gone", why, f"{count} of its executors still exist"),
            _lost(evidence),
        )
    return _of_holder(own, evidence) if own.is_holder else _of_own(own, evidence)


def _of_own(own: Pod, evidence: Evidence) -> tuple[Phase, str, DriverExit | None]:
    """A driver's pod of the broker's."""
    ended = driver_exit(own, evidence.log_tail)
    if ended is not None:
        exit, why = ended
        if exit.exit_code == EXIT_ON_EXECUTOR_FAILURES:
            why = _joined(why, evidence.refused, evidence.executor_failure)
        return Phase.STOPPING, why, exit
    if own.leaving:
        who = "" if evidence.asked else disruption(own) or "its pod was deleted by somebody else"
        return Phase.STOPPING, _joined(who, node_trouble(own)), DriverExit(log_tail=evidence.log_tail)
    main = own.container(DRIVER_CONTAINER)
    if main is None or main.running is None:
        found = hindrance(own)
        message = found.message if found is not None else evidence.by_events
        return Phase.STARTING, message or _usual(own), None
    if evidence.ready is not None:
        seen = executors(evidence)
        return Phase.READY, _joined(node_trouble(own), seen.describe() if seen is not None else ""), None
    if evidence.port_open is not None:
        return Phase.PORT_OPEN, _joined(evidence.trouble, node_trouble(own)), None
    return Phase.STARTING, _joined(evidence.trouble, node_trouble(own)), None


def _of_holder(own: Pod, evidence: Evidence) -> tuple[Phase, str, DriverExit | None]:
    """A pod that is the holder's own. While it is being deleted its process may still end its lease in good order."""
    ended = driver_exit(own)
    if ended is not None:
        return Phase.STOPPING, _joined("the holder's pod has ended", ended[1]), ended[0]
    if evidence.asked:
        return Phase.STOPPING, "", None
    if evidence.ready is None:
        return Phase.STARTING, "its account is being made", None
    seen = executors(evidence)
    leaving = "the holder's pod is being deleted" if own.leaving else ""
    described = seen.describe() if seen is not None else ""
    return Phase.READY, _joined(leaving, node_trouble(own), described), None


def _of_nothing(evidence: Evidence) -> tuple[Phase, str, DriverExit | None]:
    """That nothing exists was confirmed: a look that may have missed some of it never comes here (promise 7)."""
    if evidence.last is None:
        return Phase.ABSENT, "", None
    ended = driver_exit(evidence.last, evidence.log_tail)
    if evidence.asked:
        return Phase.ABSENT, "", None
    if ended is not None:
        return Phase.EXITED, ended[1], ended[0]
    usual = "the holder's pod is gone" if evidence.last.is_holder else "its pod was deleted by somebody else"
    return Phase.ABSENT, disruption(evidence.last) or usual, None


def _lost(evidence: Evidence) -> DriverExit:
    ended = driver_exit(evidence.last, evidence.log_tail) if evidence.last is not None else None
    return ended[0] if ended is not None else DriverExit(log_tail=evidence.log_tail)


def executors(evidence: Evidence) -> Executors | None:
    """How many executors there are, and why others aren't. None: none is wanted, and none exists."""
    own = [pod for pod in evidence.pods if not pod.is_driver and not pod.ended and not pod.leaving]
    wanted, running = max(_wanted(evidence), len(own)), sum(pod.status.phase == "Running" for pod in own)
    if not wanted:
        return None
    reasons = Counter(found.message for pod in own if (found := hindrance(pod)) is not None)
    why = (f"{count} of them {reason}" for reason, count in reasons.most_common(REASONS))
    failed = f"last failure: {evidence.executor_failure}" if evidence.executor_failure else ""
    refused = f"Spark can't make more: {evidence.refused}" if evidence.refused and len(own) < wanted else ""
    return Executors(wanted=wanted, running=running, pending=len(own) - running, message=_joined(*why, refused, failed))


def _wanted(evidence: Evidence) -> int:
    """As recorded. A pod's own word counts only while nothing is: a holder's pod may be changed by whoever made it."""
    if evidence.wanted is not None:
        return evidence.wanted
    return next((pod.wanted or 0 for pod in evidence.pods if pod.is_driver), 0)


def _usual(pod: Pod) -> str:
    """How far a pod is that doesn't run yet, and of which nothing is wrong."""
    node = pod.spec.node_name
    if not node:
        return "its pod is being scheduled"
    if _since(pod, SANDBOX_READY) is None:
        return f"its node {node} is preparing it"
    running = (status.name for status in pod.status.init_container_statuses if status.state.running is not None)
    helper = next(running, "")
    return (
        f"its init container {helper} runs" if helper else f"its node {node} pulls its images and makes its containers"
    )


def _way_to_process(pod: Pod | None) -> tuple[WallTime | None, WallTime | None, WallTime | None]:
    """When it was scheduled, when its sandbox was ready, when its driver was started. A holder's pod came before its lease."""
    if pod is None:
        return None, None, None
    main = pod.container(DRIVER_CONTAINER)
    started = _wall(main.running.started_at) if main is not None and main.running is not None else None
    if pod.is_holder:
        return None, None, started
    scheduled = _since(pod, SCHEDULED)
    started = _not_before(scheduled, started)
    sandbox = _not_before(scheduled, _since(pod, SANDBOX_READY))
    if started is not None and sandbox is not None and sandbox >= started:
        sandbox = None  # a kubelet before 1.36 says it when its images are there: that tells nothing of their pull
    return scheduled, sandbox, started


def _since(pod: Pod, type: str) -> WallTime | None:
    """From when on one of its conditions holds; None: it doesn't."""
    condition = pod.condition(type)
    return _wall(condition.last_transition_time) if condition is not None and condition.status == "True" else None


def _wall(moment: datetime | None) -> WallTime | None:
    return WallTime(moment.timestamp()) if moment is not None else None


def _not_before(earlier: WallTime | None, moment: WallTime | None) -> WallTime | None:
    """The node's clock isn't ours: what follows doesn't come before."""
    return moment if moment is None or earlier is None else max(earlier, moment)


def _handle(pod: Pod) -> Handle:
    handle: Handle = {"namespace": pod.metadata.namespace, "pod": pod.metadata.name, "uid": pod.metadata.uid}
    if pod.spec.node_name:
        handle["node"] = pod.spec.node_name
    if pod.is_holder:
        handle["holder"] = 1
    if pod.status.pod_ip:
        handle["ip"] = pod.status.pod_ip
    return handle


def _sum(pods: Iterable[Pod]) -> Resources:
    result = Resources()
    for pod in pods:
        result += pod.takes
    return result.minimum(MOST)


def _joined(*parts: str) -> str:
    return "; ".join(filter(None, parts))
