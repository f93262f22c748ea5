"""The predecessor's settings of pods, as a lease takes them. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sparkbroker.airflow_provider.client_mode import CONTAINER
from sparkbroker.airflow_provider.compat.config import Sentinel, SparkBaseConf, SparkDriverConf, SparkExecutorConf
from sparkbroker.airflow_provider.late import is_late

_AFFINITIES: Final = {
    "node_affinity": "nodeAffinity",
    "pod_affinity": "podAffinity",
    "pod_anti_affinity": "podAntiAffinity",
}
_OF_SPEC: Final = {
    "tolerations": "tolerations",
    "node_selector": "nodeSelector",
    "affinity": "affinity",
    "volumes": "volumes",
}
_OF_CONTAINER: Final = {"env": "env", "volume_mounts": "volumeMounts"}
"""Pod settings by what they are called in a Pod's spec and in its container."""
_ROLE: Final = "eks.amazonaws.com/role-arn"


def of_lease(base: SparkBaseConf, driver: SparkDriverConf, executors: SparkExecutorConf) -> dict[str, Any]:
    """Pod settings of a lease that has both pods: the settings of both where they agree, else each one's template."""
    pod: dict[str, Any] = {
        "image": driver.image or executors.image,
        "image_pull_policy": base.image_pull_policy,
        "image_pull_secrets": texts(base.image_pull_secrets),
        "namespace": _named(base.kubernetes_namespace),
        "service_account": _named(driver.service_account_name),
        "executor_service_account": _named(executors.service_account_name),
    }
    ours, theirs = _pod_of(driver), _pod_of(executors)
    agreed = {name: value for name, value in ours.items() if theirs.get(name) == value}
    pod |= agreed
    if "env" in agreed:
        pod["env"] = _environment(agreed["env"])
    for of, settings in (("driver", ours), ("executor", theirs)):
        differing = {name: settings[name] for name in settings if name not in agreed}
        pod[f"{of}_template"] = _template(f"spark-kubernetes-{of}", differing)
    return _given(pod)


def of_executors(base: SparkBaseConf, executors: SparkExecutorConf) -> dict[str, Any]:
    """Pod settings of a lease whose driver is the worker's pod: there are no others' pods than executors'."""
    pod = {
        **_pod_of(executors),
        "image": executors.image,
        "image_pull_policy": base.image_pull_policy,
        "image_pull_secrets": texts(base.image_pull_secrets),
        "namespace": _named(base.kubernetes_namespace),
        "executor_service_account": _named(executors.service_account_name),
    }
    if "env" in pod:
        pod["env"] = _environment(pod["env"])
    return _given(pod)


def of_worker(base: SparkBaseConf, driver: SparkDriverConf) -> dict[str, Any]:
    """The part of a Pod that the driver's settings are where the worker is the driver."""
    part = _template(CONTAINER, _pod_of(driver))
    container = {"image": driver.image, "imagePullPolicy": base.image_pull_policy}
    secrets = texts(base.image_pull_secrets)
    named = [{"name": name} for name in secrets] if isinstance(secrets, list) else None
    spec = {"serviceAccountName": _named(driver.service_account_name), "imagePullSecrets": named}
    spec = {**part.get("spec", {}), **_given(spec)}
    if found := _given(container):
        (known,) = spec.get("containers") or [{"name": CONTAINER}]
        spec["containers"] = [{**known, **found}]
    return {**part, **({"spec": spec} if spec else {})}


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value not in (None, [], {})}


def _pod_of(conf: SparkDriverConf | SparkExecutorConf) -> dict[str, Any]:
    """By the names of pod settings, in Kubernetes' words."""
    role = None if conf.aws_role_arn in (None, Sentinel.AUTODETECT) else conf.aws_role_arn
    affinity = {new: plain(getattr(conf, old)) for old, new in _AFFINITIES.items() if getattr(conf, old) is not None}
    found = {
        "annotations": {**(conf.pod_annotations or {}), **({_ROLE: role} if role else {})},
        "tolerations": conf.tolerations,
        "node_selector": conf.node_selector,
        "affinity": affinity,
        "volumes": conf.volumes,
        "volume_mounts": conf.volume_mounts,
        "env": conf.environment_variables,
        "labels": conf.pod_labels,
    }
    return {name: plain(value) for name, value in found.items() if value not in (None, [], {})}


def _template(main: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A part of a Pod with these settings, ``main`` being its first container."""
    metadata = {name: settings[name] for name in ("labels", "annotations") if name in settings}
    spec = {written: settings[name] for name, written in _OF_SPEC.items() if name in settings}
    container = {written: settings[name] for name, written in _OF_CONTAINER.items() if name in settings}
    if container:
        spec["containers"] = [{"name": main, **container}]
    return {name: part for name, part in (("metadata", metadata), ("spec", spec)) if part}


def _environment(variables: Any) -> Any:
    """As a pod setting: each name with its text, or with where its value comes from."""
    if not isinstance(variables, list):
        return variables
    return {variable["name"]: variable.get("valueFrom", variable.get("value", "")) for variable in variables}


def _named(value: Any) -> Any:
    return None if value is Sentinel.AUTODETECT else value


def plain(value: Any) -> Any:
    """An object of the Kubernetes client as the API writes it (``secretKeyRef``), without that client; other values as
    they are."""
    names = getattr(value, "attribute_map", None)
    if isinstance(names, Mapping):
        given = {written: getattr(value, name) for name, written in names.items()}
        return {written: plain(item) for written, item in given.items() if item is not None}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def texts(value: Sequence[str] | str | None) -> Any:
    """A list; text is one with commas between; what comes late is left to the task."""
    if isinstance(value, str):
        return value if is_late(value) else [item.strip() for item in value.split(",") if item.strip()]
    return None if value is None else value if is_late(value) else list(value)
