"""What pod settings, and Spark's properties that become a part of executors' pods, refer to beyond themselves: Secrets,
claims, paths of the node, kinds and sizes of volumes, privileges. Pure; ``pod_bounds`` says which of it a holder may have.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

SECRETS: Final = "secrets"
CONFIG_MAPS: Final = "config_maps"
CLAIMS: Final = "claims"
HOST_PATHS: Final = "host_paths"
VOLUME_KINDS: Final = "volume_kinds"
VOLUME_SIZE: Final = "volume_size"
PRIVILEGE: Final = "privilege"

_PRIVILEGED: Final = frozenset({"privileged", "hostNetwork", "hostPID", "hostIPC", "allowPrivilegeEscalation"})
_NAMED: Final = {
    "secret": (SECRETS, "secretName"),
    "configMap": (CONFIG_MAPS, "name"),
    "persistentVolumeClaim": (CLAIMS, "claimName"),
    "hostPath": (HOST_PATHS, "path"),
}
_CONF_VOLUME: Final = re.compile(
    r"(?P<volume>spark\.kubernetes\.(?:driver|executor)\.volumes\.(?P<kind>[^.]+)\.[^.]+)\.(?P<option>.+)"
)
_CONF_SECRET: Final = re.compile(r"spark\.kubernetes\.(?:driver|executor)\.secrets\.(?P<name>.+)")
_CONF_SECRET_KEY: Final = re.compile(r"spark\.kubernetes\.(?:driver|executor)\.secretKeyRef\..+")
_CONF_PULL_SECRETS: Final = "spark.kubernetes.container.image.pullSecrets"
_ON_DEMAND: Final = "OnDemand"


class Reference(msgspec.Struct, frozen=True):
    """``where`` it stands, which bound is about it, and its name. A size is named by its limit; empty: it has none."""

    where: str
    kind: str
    name: str


def references(value: Any, where: str) -> Iterator[Reference]:
    """All of an object in Kubernetes' words, however deep they stand."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _of_entry(str(key), item, f"{where}.{key}")
            yield from references(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from references(item, f"{where}[{index}]")


def _of_entry(key: str, item: Any, where: str) -> Iterator[Reference]:
    if key in _PRIVILEGED and item is not False:
        yield Reference(where, PRIVILEGE, key)
    elif key == "capabilities" and _object(item).get("add"):
        yield Reference(where, PRIVILEGE, "capabilities.add")
    elif key == "volumes":
        for index, volume in enumerate(item if isinstance(item, list | tuple) else ()):
            yield from _of_volume(_object(volume), f"{where}[{index}]")
    elif key == "imagePullSecrets":
        for secret in item if isinstance(item, list | tuple) else ():
            yield Reference(where, SECRETS, str(_object(secret).get("name", "")))
    elif isinstance(item, Mapping) and key.lower().endswith(("secretref", "secretkeyref")):
        # Also those of volumes' drivers, such as nodePublishSecretRef.
        yield Reference(where, SECRETS, str(item.get("name", "")))
    elif isinstance(item, Mapping) and key in ("configMapRef", "configMapKeyRef"):
        yield Reference(where, CONFIG_MAPS, str(item.get("name", "")))


def _of_volume(volume: Mapping[str, Any], where: str) -> Iterator[Reference]:
    # Without a source it is an empty directory.
    for kind in [key for key in volume if key != "name"] or ["emptyDir"]:
        yield Reference(where, VOLUME_KINDS, kind)
        yield from _of_source(kind, _object(volume.get(kind)), f"{where}.{kind}")


def _of_source(kind: str, source: Mapping[str, Any], where: str) -> Iterator[Reference]:
    if kind in _NAMED:
        bound, key = _NAMED[kind]
        # A projected volume's source says `name` where a plain one says `secretName`.
        yield Reference(where, bound, str(source.get(key, source.get("name", ""))))
    elif kind == "emptyDir":
        yield Reference(where, VOLUME_SIZE, str(source.get("sizeLimit") or ""))
    elif kind == "ephemeral":
        claim = _object(_object(source.get("volumeClaimTemplate")).get("spec"))
        requested = _object(_object(claim.get("resources")).get("requests")).get("storage")
        yield Reference(where, VOLUME_SIZE, str(requested or ""))
    elif kind == "projected":
        for index, part in enumerate(source.get("sources") or ()):
            # What can't be mounted plainly can't be projected.
            yield from _of_volume(_object(part), f"{where}.sources[{index}]")
    elif "secretName" in source:
        yield Reference(where, SECRETS, str(source["secretName"]))


def references_of_conf(conf: Mapping[str, str]) -> Iterator[Reference]:
    """Those of Spark's properties for volumes and Secrets of executors, as if they stood in pod settings."""
    volumes: dict[str, tuple[str, dict[str, str]]] = {}
    for key, value in conf.items():
        where = f"[{key!r}]"
        if match := _CONF_VOLUME.fullmatch(key):
            volumes.setdefault(match["volume"], (match["kind"], {}))[1][match["option"]] = value
        elif match := _CONF_SECRET.fullmatch(key):
            yield Reference(where, SECRETS, match["name"])
        elif _CONF_SECRET_KEY.fullmatch(key):
            yield Reference(where, SECRETS, value.partition(":")[0])
        elif key == _CONF_PULL_SECRETS:
            for name in filter(None, (part.strip() for part in value.split(","))):
                yield Reference(where, SECRETS, name)
    for name, (kind, options) in volumes.items():
        yield from _of_volume(_conf_volume(kind, options), f"['{name}.*']")


def _conf_volume(kind: str, options: Mapping[str, str]) -> dict[str, Any]:
    """The volume that Spark makes of them, in Kubernetes' words."""
    claim, size = options.get("options.claimName", ""), options.get("options.sizeLimit", "")
    if kind == "persistentVolumeClaim" and (claim == _ON_DEMAND or "options.storageClass" in options):
        # Spark makes a claim for each executor, which ends with it.
        spec = {"resources": {"requests": {"storage": size}}}
        return {"ephemeral": {"volumeClaimTemplate": {"spec": spec}}}
    source = {"claimName": claim, "path": options.get("options.path", ""), "sizeLimit": size}
    return {kind: source}


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
