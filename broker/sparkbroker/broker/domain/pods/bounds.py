"""Which values a holder's pod settings may have. A profile opens a setting with ``allowed_pod``, and bounds it here.

``bounds`` maps a setting to patterns (``*`` and ``?``), of which one has to match: the value of a single setting, each
key of a map, the key of a toleration, the image of a container; also where a template says the same. More names bound
what settings refer to, wherever in them it stands:

* ``service_account``, ``executor_service_account``: names of accounts (default: none but the profile's own);
* ``secrets``: names of Secrets that may be mounted or read into the environment (default: none);
* ``claims``: names of persistent volume claims that may be mounted (default: none);
* ``host_paths``: paths of the node that may be mounted (default: none);
* ``config_maps``: names of ConfigMaps (default: all);
* ``volume_kinds``: kinds of volumes, and of a projected volume's sources (default: ``emptyDir``, ``configMap``,
  ``persistentVolumeClaim``, ``secret``);
* ``volume_size``: one quantity: no empty directory and no ephemeral volume may be larger, or without a size (default:
  any size);
* ``namespace`` lists exact names: these are the namespaces that the broker looks after.

Spark's properties that mount volumes and Secrets into executors are bounded likewise. Like the list of conf keys this keeps
honest users right; what holds against others is the cluster's own admission.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import translate
from typing import Any, Final

import msgspec

from sparkbroker.broker.domain.errors import InvalidField
from sparkbroker.broker.domain.pods.quantities import parse_quantity
from sparkbroker.broker.domain.pods.references import (
    CLAIMS,
    CONFIG_MAPS,
    EXECUTOR_SERVICE_ACCOUNT,
    HOST_PATHS,
    PRIVILEGE,
    SECRETS,
    SERVICE_ACCOUNT,
    VOLUME_KINDS,
    VOLUME_SIZE,
    Reference,
    references,
    references_of_conf,
)
from sparkbroker.broker.domain.pods.settings import (
    DRIVER_CONTAINER,
    EXECUTOR_CONTAINER,
    NAME_PREFIX,
    SETTINGS,
    PodSettings,
)

Bounds = Mapping[str, tuple[str, ...]]

REFERENCES: Final[dict[str, tuple[str, ...]]] = {
    SERVICE_ACCOUNT: (),
    EXECUTOR_SERVICE_ACCOUNT: (),
    SECRETS: (),
    CLAIMS: (),
    HOST_PATHS: (),
    CONFIG_MAPS: ("*",),
    VOLUME_KINDS: ("emptyDir", "configMap", "persistentVolumeClaim", "secret"),
    VOLUME_SIZE: (),
}
BOUNDABLE: Final = (
    "image", "namespace", "priority_class", "env", "labels", "annotations", "node_selector", "tolerations", "sidecars",
    "init_containers",
)  # fmt: skip
_TEMPLATES: Final = ("driver_template", "executor_template")
_SPARK: Final = (DRIVER_CONTAINER, EXECUTOR_CONTAINER)


def check_bounds(bounds: Bounds, field: str) -> None:
    """Raise InvalidField if a profile's bounds name what can't be bounded."""
    for name, patterns in bounds.items():
        if name not in REFERENCES and name not in BOUNDABLE:
            known = ", ".join((*BOUNDABLE, *REFERENCES))
            expected = "open or close it with allowed_pod" if name in SETTINGS else f"known are: {known}"
            raise InvalidField(f"{field}.{name[:64]}", "can't be bounded", expected)
        if name == "namespace" and any(character in pattern for pattern in patterns for character in "*?["):
            raise InvalidField(f"{field}.namespace", "holds a pattern", "list the namespaces: the broker watches each")
        if name == VOLUME_SIZE:
            if len(patterns) != 1:
                raise InvalidField(f"{field}.{name}", f"has {len(patterns)} entries", 'write one size, as ["20Gi"]')
            parse_quantity(patterns[0], f"{field}.{name}")


def check_within(settings: PodSettings, bounds: Bounds, field: str, *, own: PodSettings) -> None:
    """Raise InvalidField for the first thing that a holder may not have. ``own``: the profile's settings."""
    for name in BOUNDABLE:
        if name in bounds:
            for value in _values(name, getattr(settings, name)):
                _check(value, name, bounds[name], f"{field}.{name}")
            for template in _TEMPLATES:
                for value in _values_of_template(name, getattr(settings, template)):
                    _check(value, name, bounds[name], f"{field}.{template}")
    for name in (SERVICE_ACCOUNT, EXECUTOR_SERVICE_ACCOUNT):
        account = getattr(settings, name)
        if account and account != getattr(own, name):
            _check_reference(Reference(f"{field}.{name}", name, account), bounds)
    for secret in settings.image_pull_secrets:
        _check_reference(Reference(f"{field}.image_pull_secrets", SECRETS, secret), bounds)
    for reference in references(msgspec.structs.asdict(settings), field):
        _check_reference(reference, bounds)


def check_conf_within(conf: Mapping[str, str], bounds: Bounds, field: str) -> None:
    """The same for Spark's properties: what of the cluster a holder may mount doesn't depend on how it is said."""
    for reference in references_of_conf(conf):
        _check_reference(msgspec.structs.replace(reference, where=field + reference.where), bounds)


def _check_reference(reference: Reference, bounds: Bounds) -> None:
    where, kind, name = reference.where, reference.kind, reference.name
    if kind == PRIVILEGE:
        raise InvalidField(where, f"{name} can't be a holder's", "leave it out")
    if kind == VOLUME_SIZE:
        _check_size(name, bounds.get(VOLUME_SIZE, ()), where)
        return
    _check(name, kind, bounds.get(kind, REFERENCES[kind]), where)
    if kind == SECRETS and name.startswith(NAME_PREFIX):
        raise InvalidField(where, f"{name!r} is a driver's own secret", "use another")


def _check_size(size: str, limit: tuple[str, ...], where: str) -> None:
    if not limit:
        return
    if not size:
        raise InvalidField(where, "has no size", f"the profile's pod_bounds.{VOLUME_SIZE} allows at most {limit[0]}")
    if parse_quantity(size, where) > parse_quantity(limit[0], VOLUME_SIZE):
        problem = f"{size[:40]!r} is not allowed by the profile"
        raise InvalidField(where, problem, f"its pod_bounds.{VOLUME_SIZE} allows at most {limit[0]}")


def _check(value: str, bound: str, patterns: tuple[str, ...], where: str) -> None:
    if not any(re.fullmatch(translate(pattern), value) for pattern in patterns):
        shown = value if len(value) <= 80 else value[:77] + "…"
        allowed = ", ".join(patterns) or "none"
        raise InvalidField(
            where, f"{shown!r} is not allowed by the profile", f"its pod_bounds.{bound} allows: {allowed}"
        )


def _values(name: str, value: Any) -> list[str]:
    if name == "tolerations":
        return _each(value, "key")
    if name in ("sidecars", "init_containers"):
        return _each(value, "image")
    if isinstance(value, Mapping):
        return list(value)
    return [value] if value else []


def _values_of_template(name: str, template: Mapping[str, Any]) -> Iterable[str]:
    """What a template says that the setting of this name is for."""
    read = _IN_TEMPLATE.get(name)
    if read is None:
        return ()
    metadata, spec = template.get("metadata") or {}, template.get("spec") or {}
    return read(metadata, spec)


def _spark(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [item for item in spec.get("containers") or () if item.get("name") in _SPARK]


def _beside(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [item for item in spec.get("containers") or () if item.get("name") not in _SPARK]


def _each(items: Any, key: str) -> list[str]:
    listed = items if isinstance(items, list | tuple) else ()
    return [str(item.get(key, "")) for item in listed if isinstance(item, Mapping)]


_IN_TEMPLATE: Final[dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Iterable[str]]]] = {
    "image": lambda _, spec: filter(None, _each(_spark(spec), "image")),
    "priority_class": lambda _, spec: filter(None, [str(spec.get("priorityClassName") or "")]),
    "env": lambda _, spec: [name for item in _spark(spec) for name in _each(item.get("env"), "name")],
    "labels": lambda metadata, _: metadata.get("labels") or (),
    "annotations": lambda metadata, _: metadata.get("annotations") or (),
    "node_selector": lambda _, spec: spec.get("nodeSelector") or (),
    "tolerations": lambda _, spec: _each(spec.get("tolerations"), "key"),
    "sidecars": lambda _, spec: _each(_beside(spec), "image"),
    "init_containers": lambda _, spec: _each(spec.get("initContainers"), "image"),
}
"""``namespace`` and the accounts can't be set by a template."""
