"""Mode CLIENT in a task: the worker's own pod is the driver. What is to be said of it when the DAG is parsed (which tasks
can't have it, what their pod needs), and when the task runs (which pod it is). Pure.

The pod is made before the task's templates are rendered, of what the DAG says literally. What isn't literal leaves the
worker's size to the pod template of Airflow or to the task's own ``pod_override``.
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sparkbroker.airflow_provider.late import has_template
from sparkbroker.airflow_provider.request import InvalidArgument
from sparkbroker.client.own_pod import VARIABLES, missing_variables

AIRFLOWS_MEMORY: Final = 512
"""MiB for the two processes in which Airflow runs a task, beside the driver's JVM."""
CONTAINER: Final = "base"
"""The worker's container, as Airflow calls it."""
_LEAST_OVERHEAD: Final = 384
_OVERHEAD: Final = 0.1
_IN_A_POD: Final = "KUBERNETES_SERVICE_HOST"
_MEMORY: Final = re.compile(r"(?P<number>[0-9]{1,15})(?P<unit>[mgt]?)(?:i?b|i)?", re.IGNORECASE)
_MIB: Final = {"": 1, "m": 1, "g": 1 << 10, "t": 1 << 20}
_ELSEWHERE: Final = "give 'CONNECT', or 'LOCAL' for the classic API on any worker"


def is_client(mode: object) -> bool:
    """Whether that is CLIENT: the text itself, and no template of it."""
    return isinstance(mode, str) and mode.strip().upper() == "CLIENT"


def is_workers(arguments: Mapping[str, Any]) -> bool:
    """Whether a task with these arguments makes its worker's pod a driver: it asks for a lease of its own, of mode CLIENT."""
    return is_client(arguments.get("mode")) and arguments.get("lease") is None


def check(arguments: Mapping[str, Any], *, api: str, refusal: str = "") -> None:
    """Raise InvalidArgument for what can't be in mode CLIENT. ``refusal``: why this operator can't at all."""
    if not is_workers(arguments):
        return
    if refusal:
        raise InvalidArgument("mode", f"'CLIENT', and {refusal}", _ELSEWHERE)
    if api != "classic":
        raise InvalidArgument("api", f"{api!r}, and a session of mode CLIENT is a classic one", "leave it out")
    on_retry = arguments.get("on_retry")
    if isinstance(on_retry, str) and on_retry.strip().lower() == "reattach":
        problem = (
            "'reattach', and in mode CLIENT the driver is the worker's own pod, which a retry doesn't have any more"
        )
        raise InvalidArgument("on_retry", problem, "give 'replace', or mode 'CONNECT'")


def check_worker(environ: Mapping[str, str] = os.environ) -> None:
    """Raise InvalidArgument unless this process knows which pod it is in."""
    missing = missing_variables(environ)
    if not missing:
        return
    if _IN_A_POD not in environ:
        problem = "'CLIENT' makes the worker's own pod the driver, and this worker is in no pod"
        raise InvalidArgument("mode", problem, f"run the task with KubernetesExecutor, or {_ELSEWHERE}")
    problem = f"'CLIENT' makes the worker's own pod the driver, and {', '.join(missing)} doesn't say which that is"
    expected = (
        "give mode literally and install `kubernetes` where DAGs are parsed, so that KubernetesExecutor sets it; or set it in "
        "the worker's pod template (valueFrom.fieldRef)"
    )
    raise InvalidArgument("mode", problem, expected)


def with_overhead(ask: Mapping[str, Any]) -> dict[str, Any]:
    """``ask`` (arguments, or what ``request.ask`` made of them) with what the driver has beside its heap, if it says just
    the heap: Spark's own rule, and room for Airflow."""
    memory = _mebibytes(ask.get("memory"))
    if memory is None or ask.get("memory_overhead") is not None:
        return dict(ask)
    overhead = max(int(_OVERHEAD * memory), _LEAST_OVERHEAD) + AIRFLOWS_MEMORY
    return {**ask, "memory_overhead": f"{overhead}m"}


def worker_pod(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a worker needs that is to be the driver of a lease with these arguments, as a part of a Pod.

    The variables by which it knows itself; and, where the sizes are literal, requests and limits: the largest that the lease
    pays for, which are the least that the driver needs.
    """
    env = [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.{part}"}}} for part, name in VARIABLES.items()
    ]
    resources = _resources(arguments)
    return {
        "spec": {"containers": [{"name": CONTAINER, "env": env, **({"resources": resources} if resources else {})}]}
    }


def _resources(arguments: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    sized = with_overhead(arguments)
    memory, overhead = _mebibytes(sized.get("memory")), _mebibytes(sized.get("memory_overhead"))
    if memory is None or overhead is None:
        return {}
    pod = arguments.get("pod")
    settings = pod if isinstance(pod, Mapping) else {}
    total = f"{memory + overhead}Mi"
    found = {"requests": {"memory": total}, "limits": {"memory": total}}
    request = settings.get("driver_cpu_request") or arguments.get("cores")
    for kind, amount in (("requests", request), ("limits", settings.get("driver_cpu_limit"))):
        if isinstance(amount, int | str) and amount and not has_template(amount):
            found[kind]["cpu"] = str(amount)
    return found


def _mebibytes(value: object) -> int | None:
    """None for what isn't literal, or no size: that is told when the task runs."""
    match = _MEMORY.fullmatch(value.strip()) if isinstance(value, str) else None
    return None if match is None else int(match["number"]) * _MIB[match["unit"].lower()]


def merged(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Two parts of a Pod as one: what ``theirs`` says stays, and ``ours`` is added. The first container is the worker's."""
    spec = _spec(ours.get("spec", {}), theirs.get("spec", {}))
    metadata = _mappings(ours.get("metadata", {}), theirs.get("metadata", {}), ("labels", "annotations"))
    return {**theirs, **({"metadata": metadata} if metadata else {}), "spec": spec}


def _spec(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    found = _mappings(ours, theirs, ("nodeSelector",))
    for name, key in (("volumes", "name"), ("imagePullSecrets", "name"), ("tolerations", "")):
        found |= _lists(ours, theirs, name, key)
    our_worker, their_worker = (list(spec.get("containers", ()))[:1] or [{}] for spec in (ours, theirs))
    worker = _container(our_worker[0], their_worker[0])
    found["containers"] = [worker, *list(theirs.get("containers", ()))[1:]]
    return found


def _container(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    found = {**ours, **theirs}
    for name, key in (("env", "name"), ("volumeMounts", "mountPath")):
        found |= _lists(ours, theirs, name, key)
    resources = _merged_resources(ours.get("resources", {}), theirs.get("resources", {}))
    return {**found, **({"resources": resources} if resources else {})}


def _merged_resources(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """All of them: Airflow replaces the pod template's by what there is here. A limit of ours would cut off a request of
    theirs."""
    asked = theirs.get("requests", {})
    limits = {name: amount for name, amount in ours.get("limits", {}).items() if name not in asked}
    found = {
        **theirs,
        "requests": {**ours.get("requests", {}), **asked},
        "limits": {**limits, **theirs.get("limits", {})},
    }
    return {name: value for name, value in found.items() if value}


def _mappings(ours: Mapping[str, Any], theirs: Mapping[str, Any], deep: Sequence[str]) -> dict[str, Any]:
    both = {name: {**ours.get(name, {}), **theirs.get(name, {})} for name in deep}
    return {**ours, **theirs, **{name: value for name, value in both.items() if value}}


def _lists(ours: Mapping[str, Any], theirs: Mapping[str, Any], name: str, key: str) -> dict[str, Any]:
    """The list of that name, as a mapping of it; empty: there is none. ``key``: what tells its items apart."""
    taken = [item.get(key) if key else item for item in theirs.get(name, ())]
    added = [item for item in ours.get(name, ()) if (item.get(key) if key else item) not in taken]
    items = [*theirs.get(name, ()), *added]
    return {name: items} if items else {}
