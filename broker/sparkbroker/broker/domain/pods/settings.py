"""The settings of a driver's and its executors' pods: what a profile gives, and what a holder may bring.

Both are written alike, by the same names. What is a Kubernetes object (tolerations, volumes, containers, affinity) is in
Kubernetes' own words, camelCase, and is checked by its API server; what the broker relies on is checked here.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from sparkbroker.broker.domain.capacity.resources import parse_cpu
from sparkbroker.broker.domain.errors import InvalidField
from sparkbroker.broker.domain.json_values import check_values
from sparkbroker.broker.domain.pods.shapes import check_shapes
from sparkbroker.broker.domain.text import shown_value

LABEL_PREFIX: Final = "sparkbroker.io/"
"""Of the labels and annotations by which the broker finds its own."""
NAME_PREFIX: Final = "sparkbroker-"
"""Of the pods, secrets, volumes and containers that the broker names."""
DRIVER_CONTAINER: Final = "spark-kubernetes-driver"
EXECUTOR_CONTAINER: Final = "spark-kubernetes-executor"
MAX_ITEMS: Final = 256

_DNS_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_DNS_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_ENV_NAME: Final = re.compile(r"[A-Za-z_.-][A-Za-z0-9_.-]{0,252}")
_KEY: Final = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE: Final = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_IMAGE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}")
_MAJOR_MINOR: Final = re.compile(r"[0-9]{1,2}\.[0-9]{1,2}")
_OWNED_ENV: Final = frozenset({"SPARK_CONNECT_AUTHENTICATE_TOKEN", "SPARKBROKER_POD_IP"})
_TEMPLATE_METADATA: Final = frozenset({"labels", "annotations"})
_NOT_OF_A_TEMPLATE: Final = {
    "serviceAccountName": "use service_account or executor_service_account",
    "serviceAccount": "use service_account or executor_service_account",
    "restartPolicy": "a driver and its executors are never restarted in place",
    "nodeName": "use node_selector or affinity",
    "resources": "size Spark's containers by cores and memory, and others by their own resources",
}


class PodSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Empty and False are unset. ``env`` maps to text, or to a Kubernetes ``valueFrom`` (``{"secretKeyRef": …}``).

    The four ``*_cpu_*`` are in Kubernetes' notation; unset, a container requests the whole cores of its size and has no
    limit. ``sidecars`` and ``init_containers`` are those of driver and executors both; what differs between the two
    stands in ``driver_template`` or ``executor_template``, parts of a Pod, over which everything else goes.
    ``one_zone``: executors run in the driver's zone or not at all. ``python_version``: of the image, as "3.11".
    """

    image: str = ""
    image_pull_policy: Literal["", "Always", "IfNotPresent", "Never"] = ""
    image_pull_secrets: tuple[str, ...] = ()
    namespace: str = ""
    service_account: str = ""
    executor_service_account: str = ""
    env: dict[str, str | dict[str, Any]] = {}
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, Any], ...] = ()
    affinity: dict[str, Any] = {}
    topology_spread_constraints: tuple[dict[str, Any], ...] = ()
    priority_class: str = ""
    one_zone: bool = False
    volumes: tuple[dict[str, Any], ...] = ()
    volume_mounts: tuple[dict[str, Any], ...] = ()
    init_containers: tuple[dict[str, Any], ...] = ()
    sidecars: tuple[dict[str, Any], ...] = ()
    driver_cpu_request: str = ""
    driver_cpu_limit: str = ""
    executor_cpu_request: str = ""
    executor_cpu_limit: str = ""
    decommission: bool = False
    python_version: str = ""
    driver_template: dict[str, Any] = {}
    executor_template: dict[str, Any] = {}


SETTINGS: Final = PodSettings.__struct_fields__
_SECTIONS: Final = ("init_containers", "sidecars")


def parse_pod(given: Mapping[str, Any], field: str) -> PodSettings:
    """The settings. Raise InvalidField, which names ``field`` and the setting."""
    for name in given:
        if name not in SETTINGS:
            raise InvalidField(
                f"{field}.{name[:64]}", "there is no such pod setting", f"known are: {_listed(SETTINGS)}"
            )
    check_values(given, field)
    try:
        settings = msgspec.convert(_without_whole_floats(given), PodSettings)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$.")
        where = path.rstrip("`")
        raise InvalidField(
            f"{field}.{where}" if where else field, _lower(problem), "see the table of pod settings"
        ) from error
    _check_names(settings, field)
    _check_maps(settings, field)
    _check_lists(settings, field)
    for name in ("driver_template", "executor_template"):
        _check_template(getattr(settings, name), f"{field}.{name}")
    check_shapes(msgspec.structs.asdict(settings), field)
    for name in SETTINGS:
        if name.endswith(("_cpu_request", "_cpu_limit")) and (text := getattr(settings, name)):
            parse_cpu(text, f"{field}.{name}")
    return settings


def merge(profile: PodSettings, holder: PodSettings) -> PodSettings:
    """The profile's settings with a holder's over them: one value replaces the other, maps and lists are joined.

    Names in maps are the holder's where both have them. Raise InvalidField if both define a volume or container.
    """
    changes: dict[str, Any] = {}
    for name in SETTINGS:
        ours, theirs = getattr(profile, name), getattr(holder, name)
        if not theirs:
            continue
        if isinstance(theirs, tuple):
            _check_disjoint(name, ours, theirs)
            changes[name] = ours + tuple(item for item in theirs if item not in ours)
        elif name in ("affinity", "driver_template", "executor_template"):
            changes[name] = deep_merge(ours, theirs)
        elif isinstance(theirs, dict):
            changes[name] = {**ours, **theirs}
        else:
            changes[name] = theirs
    return msgspec.structs.replace(profile, **changes)


def deep_merge(below: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Objects merged key by key, lists joined (an item that is equal stands once), else ``over``'s value."""
    result = dict(below)
    for key, value in over.items():
        known = result.get(key)
        if isinstance(known, Mapping) and isinstance(value, Mapping):
            result[key] = deep_merge(known, value)
        elif isinstance(known, list | tuple) and isinstance(value, list | tuple):
            result[key] = [*known, *(item for item in value if item not in known)]
        else:
            result[key] = value
    return result


def _check_names(settings: PodSettings, field: str) -> None:
    rules = (
        ("namespace", _DNS_LABEL, "write at most 63 of a-z, 0-9 and '-'"),
        ("service_account", _DNS_NAME, "write a name of a-z, 0-9, '-' and '.'"),
        ("executor_service_account", _DNS_NAME, "write a name of a-z, 0-9, '-' and '.'"),
        ("priority_class", _DNS_NAME, "write a name of a-z, 0-9, '-' and '.'"),
        ("image", _IMAGE, 'write it as "registry/repository:tag"'),
        ("python_version", _MAJOR_MINOR, 'write it as "3.11"'),
    )
    for name, pattern, expected in rules:
        value = getattr(settings, name)
        if value and pattern.fullmatch(value) is None:
            raise InvalidField(f"{field}.{name}", f"{shown_value(value)} is not valid", expected)
    for secret in settings.image_pull_secrets:
        if _DNS_NAME.fullmatch(secret) is None:
            raise InvalidField(
                f"{field}.image_pull_secrets", f"{shown_value(secret)} is no name", "write a Secret's name"
            )


def _check_maps(settings: PodSettings, field: str) -> None:
    for name in ("labels", "annotations", "node_selector"):
        for key, value in getattr(settings, name).items():
            where = f"{field}.{name}[{shown_value(key)}]"
            if _KEY.fullmatch(key) is None:
                raise InvalidField(where, "is not a key that Kubernetes takes", 'write it as "name" or "domain/name"')
            if name != "node_selector" and key.startswith(LABEL_PREFIX):
                raise InvalidField(where, "is the broker's own", "use another key")
            if name != "annotations" and _LABEL_VALUE.fullmatch(value) is None:
                expected = "write at most 63 of A-Z a-z 0-9 - _ ."
                raise InvalidField(where, f"{shown_value(value)} is not a label's value", expected)
    for key in settings.env:
        where = f"{field}.env[{shown_value(key)}]"
        if _ENV_NAME.fullmatch(key) is None:
            raise InvalidField(where, "is not the name of a variable", "use letters, digits and '_'")
        if key in _OWNED_ENV:
            raise InvalidField(where, "is the broker's own", "use another name")


def _check_lists(settings: PodSettings, field: str) -> None:
    for name in SETTINGS:
        value = getattr(settings, name)
        if isinstance(value, tuple | dict) and len(value) > MAX_ITEMS:
            raise InvalidField(f"{field}.{name}", f"has {len(value)} entries", f"at most {MAX_ITEMS} are taken")
    for name in ("volumes", *_SECTIONS):
        seen: set[str] = set()
        for index, item in enumerate(getattr(settings, name)):
            where = f"{field}.{name}[{index}]"
            own = item.get("name")
            if not isinstance(own, str) or _DNS_LABEL.fullmatch(own) is None:
                raise InvalidField(
                    f"{where}.name", f"{shown_value(own)} is no name", "write at most 63 of a-z, 0-9 and '-'"
                )
            if own.startswith((NAME_PREFIX, "spark-local-dir-")) or own in (DRIVER_CONTAINER, EXECUTOR_CONTAINER):
                raise InvalidField(f"{where}.name", f"{own!r} is the broker's or Spark's own", "use another name")
            if own in seen:
                raise InvalidField(f"{where}.name", f"{own!r} is there twice", "use each name once")
            seen.add(own)
    for index, mount in enumerate(settings.volume_mounts):
        path = mount.get("mountPath")
        if not isinstance(path, str) or not path.startswith("/") or not isinstance(mount.get("name"), str):
            raise InvalidField(
                f"{field}.volume_mounts[{index}]", "is not a mount", "give name and an absolute mountPath"
            )


def _check_template(template: Mapping[str, Any], field: str) -> None:
    for key, part in template.items():
        if key not in ("metadata", "spec"):
            raise InvalidField(f"{field}.{key}", "is not a part of a pod template", "give metadata and spec only")
        if not isinstance(part, Mapping):
            raise InvalidField(f"{field}.{key}", "is no object", "write it as in a Pod")
    for key, values in template.get("metadata", {}).items():
        if key not in _TEMPLATE_METADATA:
            raise InvalidField(f"{field}.metadata.{key}", "is the broker's own", "give labels and annotations only")
        if not isinstance(values, Mapping) or any(str(name).startswith(LABEL_PREFIX) for name in values):
            problem = f"is no map of text to text, or holds {LABEL_PREFIX}*, which is the broker's own"
            raise InvalidField(f"{field}.metadata.{key}", problem, "use other keys")
    _check_template_spec(template.get("spec", {}), f"{field}.spec")


def _check_template_spec(spec: Mapping[str, Any], field: str) -> None:
    for key, expected in _NOT_OF_A_TEMPLATE.items():
        if key in spec:
            raise InvalidField(f"{field}.{key}", "can't be set by a template", expected)
    for key in ("containers", "initContainers", "volumes"):
        items = spec.get(key, [])
        if not isinstance(items, list | tuple) or not all(isinstance(item, Mapping) for item in items):
            raise InvalidField(f"{field}.{key}", "is not a list of objects", "write it as in a Pod")


def _check_disjoint(setting: str, ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> None:
    if setting not in ("volumes", *_SECTIONS):
        return
    names = {item["name"]: item for item in ours}
    for item in theirs:
        if item["name"] in names and names[item["name"]] != item:
            problem = f"{item['name']!r} is also one of the profile's"
            raise InvalidField(f"spec.pod.{setting}", problem, "use another name")


def _without_whole_floats(value: Any) -> Any:
    """JSON from protobuf knows no whole numbers: 5.0 was meant as 5."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _without_whole_floats(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_whole_floats(item) for item in value]
    return value


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)
