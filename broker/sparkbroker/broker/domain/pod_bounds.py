"""Which values a holder's pod settings may have. A profile opens a setting with ``allowed_pod``, and bounds it here.

``bounds`` maps a setting to patterns (``*`` and ``?``), of which one has to match: the value of a single setting, each
key of a map, the key of a toleration, the image of a container. Four more names bound what settings refer to:

* ``secrets``: names of Secrets that may be mounted or read into the environment (default: none);
* ``host_paths``: paths of the node that may be mounted (default: none);
* ``volume_kinds``: kinds of volumes (default: ``emptyDir``, ``configMap``, ``persistentVolumeClaim``, ``secret``);
* ``namespace`` lists exact names: these are the namespaces that the broker looks after.

Like the list of conf keys this keeps honest users right; what holds against others is the cluster's own admission.
"""

import re
from collections.abc import Iterator, Mapping
from fnmatch import translate
from typing import Any, Final

from sparkbroker.broker.domain.errors import InvalidField
from sparkbroker.broker.domain.pod_settings import NAME_PREFIX, SETTINGS, PodSettings

REFERENCES: Final = {"secrets": (), "host_paths": (), "volume_kinds": ("emptyDir", "configMap", "persistentVolumeClaim", "secret")}  # fmt: skip
BOUNDABLE: Final = (
    "image", "namespace", "service_account", "executor_service_account", "priority_class", "env", "labels",
    "annotations", "node_selector", "tolerations", "sidecars", "init_containers",
)  # fmt: skip
_PRIVILEGED: Final = frozenset({"privileged", "hostNetwork", "hostPID", "hostIPC", "allowPrivilegeEscalation"})
_OF_SECRETS: Final = {"secretKeyRef": "name", "secretRef": "name", "secret": "secretName"}


def check_bounds(bounds: Mapping[str, tuple[str, ...]], field: str) -> None:
    """Raise InvalidField if a profile's bounds name what can't be bounded."""
    for name, patterns in bounds.items():
        if name not in REFERENCES and name not in BOUNDABLE:
            known = ", ".join((*BOUNDABLE, *REFERENCES))
            expected = "open or close it with allowed_pod" if name in SETTINGS else f"known are: {known}"
            raise InvalidField(f"{field}.{name[:64]}", "can't be bounded", expected)
        if name == "namespace" and any(character in pattern for pattern in patterns for character in "*?["):
            raise InvalidField(f"{field}.namespace", "holds a pattern", "list the namespaces: the broker watches each")


def check_within(settings: PodSettings, bounds: Mapping[str, tuple[str, ...]], field: str) -> None:
    """Raise InvalidField for the first thing that a holder may not have."""
    for name in BOUNDABLE:
        if name in bounds:
            for value in _values(name, getattr(settings, name)):
                _check(value, bounds[name], f"{field}.{name}")
    for index, volume in enumerate(settings.volumes):
        for kind in volume.keys() - {"name"}:
            _check(kind, _of(bounds, "volume_kinds"), f"{field}.volumes[{index}]")
    for name in settings.image_pull_secrets:
        _check(name, _of(bounds, "secrets"), f"{field}.image_pull_secrets")
    for name in SETTINGS:
        for kind, value in _references(getattr(settings, name)):
            _check_reference(kind, value, bounds, f"{field}.{name}")


def _check_reference(kind: str, value: str, bounds: Mapping[str, tuple[str, ...]], field: str) -> None:
    if kind == "privileged":
        raise InvalidField(field, f"{value} can't be a holder's", "leave it out")
    _check(value, _of(bounds, kind), field)
    if kind == "secrets" and value.startswith(NAME_PREFIX):
        raise InvalidField(field, f"{value!r} is a driver's own secret", "use another")


def _of(bounds: Mapping[str, tuple[str, ...]], kind: str) -> tuple[str, ...]:
    return bounds.get(kind, REFERENCES[kind])


def _check(value: str, patterns: tuple[str, ...], field: str) -> None:
    if not any(re.fullmatch(translate(pattern), value) for pattern in patterns):
        shown = value if len(value) <= 80 else value[:77] + "…"
        raise InvalidField(
            field, f"{shown!r} is not allowed by the profile", f"allowed are: {', '.join(patterns) or 'none'}"
        )


def _values(name: str, value: Any) -> list[str]:
    if name == "tolerations":
        return [str(item.get("key", "")) for item in value]
    if name in ("sidecars", "init_containers"):
        return [str(item.get("image", "")) for item in value]
    if isinstance(value, Mapping):
        return list(value)
    return [value] if value else []


def _references(value: Any) -> Iterator[tuple[str, str]]:
    """Everything that a setting refers to beyond itself, wherever it stands: (kind of bound, its name)."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key in _PRIVILEGED and item is not False:
                yield "privileged", key
            elif key == "capabilities" and isinstance(item, Mapping) and item.get("add"):
                yield "privileged", "capabilities.add"
            elif key in _OF_SECRETS and isinstance(item, Mapping):
                # A projected volume's source says `name` where a plain one says `secretName`.
                yield "secrets", str(item.get(_OF_SECRETS[key], item.get("name", "")))
            elif key == "hostPath" and isinstance(item, Mapping):
                yield "host_paths", str(item.get("path", ""))
            yield from _references(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _references(item)
