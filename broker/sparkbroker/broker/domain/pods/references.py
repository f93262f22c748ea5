"""What pod settings, and Spark's properties that become a part of executors' pods, refer to beyond themselves: Secrets,
claims, accounts, paths of the node, kinds and sizes of volumes, privileges. Pure; ``bounds`` says which of it a holder may
have.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

SECRETS: Final = "secrets"
CONFIG_MAPS: Final = "config_maps"
CLAIMS: Final = "claims"
HOST_PATHS: Final = "host_paths"
VOLUME_KINDS: Final = "volume_kinds"
VOLUME_SIZE: Final = "volume_size"
PRIVILEGE: Final = "privilege"
SERVICE_ACCOUNT: Final = "service_account"
EXECUTOR_SERVICE_ACCOUNT: Final = "executor_service_account"

_FREE: Final = frozenset(
    {"labels", "annotations", "node_selector", "nodeSelector", "matchLabels", "env", "volumeAttributes"}
)
"""Maps whose keys are anybody's words."""
_CONFINED: Final = ("RuntimeDefault", "Localhost")
_APPARMOR: Final = "container.apparmor.security.beta.kubernetes.io/"


_PLAIN: Final[dict[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(
        ("privileged", "allowPrivilegeEscalation", "hostNetwork", "hostPID", "hostIPC", "hostUsers", "hostProcess",
         "shareProcessNamespace"),
        lambda value: value is False,
    ),
    "runAsNonRoot": lambda value: value is True,
    "runAsUser": lambda value: type(value) is int and value > 0,
    "procMount": lambda value: value == "Default",
    "hostPort": lambda value: type(value) is int and value == 0,
    "sysctls": lambda value: value == [],
    "runtimeClassName": lambda _: False,
    "capabilities": lambda value: not _object(value).get("add") and "ALL" in _list(_object(value).get("drop")),
    "seccompProfile": lambda value: _object(value).get("type") in _CONFINED,
    "appArmorProfile": lambda value: _object(value).get("type") in _CONFINED,
    "seLinuxOptions": lambda value: isinstance(value, Mapping) and not value.keys() & {"user", "role", "type"},
}  # fmt: skip
"""What gives a pod more than others have, and with which values it doesn't. Null isn't one of them: it takes away what is the
broker's or the profile's."""
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
_CONF_ACCOUNT: Final = re.compile(r"spark\.kubernetes\.authenticate\.(?:driver|executor)\.serviceAccountName")
_CONF_PULL_SECRETS: Final = "spark.kubernetes.container.image.pullSecrets"
_ON_DEMAND: Final = "OnDemand"


class Reference(msgspec.Struct, frozen=True):
    """``where`` it stands, which bound is about it, and its name. A size is named by its limit; empty: it has none."""

    where: str
    kind: str
    name: str


def references(value: Any, where: str) -> Iterator[Reference]:
    """All of an object in Kubernetes' words, however deep they stand."""
    for key, item, place in entries(value, where):
        if name := _privilege(key, item):
            yield Reference(place, PRIVILEGE, name)
        else:
            yield from _of_entry(key, item, place)


def entries(value: Any, where: str) -> Iterator[tuple[str, Any, str]]:
    """Every key of an object in Kubernetes' words with its value and its place, however deep; those of free maps aren't keys."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            place = f"{where}.{key}"
            yield str(key), item, place
            if key in _FREE and isinstance(item, Mapping):
                for name, inner in item.items():
                    yield from entries(inner, f"{place}.{name}")
            else:
                yield from entries(item, place)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from entries(item, f"{where}[{index}]")


def _of_entry(key: str, item: Any, where: str) -> Iterator[Reference]:
    if key == "volumes":
        for index, volume in enumerate(_list(item)):
            yield from _of_volume(_object(volume), f"{where}[{index}]")
    elif key == "imagePullSecrets":
        for secret in _list(item):
            yield Reference(where, SECRETS, str(_object(secret).get("name", "")))
    elif isinstance(item, Mapping) and key.lower().endswith(("secretref", "secretkeyref")):
        # Also those of volumes' drivers, such as nodePublishSecretRef.
        yield Reference(where, SECRETS, str(item.get("name", "")))
    elif isinstance(item, Mapping) and key in ("configMapRef", "configMapKeyRef"):
        yield Reference(where, CONFIG_MAPS, str(item.get("name", "")))


def _privilege(key: str, item: Any) -> str:
    """What gives one, in a few words; empty: nothing."""
    if key == "annotations":
        unconfined = (name for name, text in _object(item).items() if text == "unconfined")
        return next((name for name in unconfined if str(name).startswith(_APPARMOR)), "")
    if key not in _PLAIN or _PLAIN[key](item):
        return ""
    if key == "capabilities":
        return "capabilities.add" if _object(item).get("add") else "capabilities without drop: [ALL]"
    if key == "seLinuxOptions":
        return "seLinuxOptions with user, role or type"
    if isinstance(item, Mapping):
        return f"{key} {item.get('type') or 'without a type'}"[:80]
    return key if item is True or not isinstance(item, int | str) else f"{key} {item}"[:80]


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
        for index, part in enumerate(_list(source.get("sources"))):
            # What can't be mounted plainly can't be projected.
            yield from _of_volume(_object(part), f"{where}.sources[{index}]")
    elif "secretName" in source:
        yield Reference(where, SECRETS, str(source["secretName"]))


def references_of_conf(conf: Mapping[str, str]) -> Iterator[Reference]:
    """Those of Spark's properties for volumes, Secrets and the account of executors, as if they stood in pod settings."""
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
        elif _CONF_ACCOUNT.fullmatch(key):
            # Executors have their driver's where none is named for them.
            yield Reference(where, EXECUTOR_SERVICE_ACCOUNT, value)
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


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()
