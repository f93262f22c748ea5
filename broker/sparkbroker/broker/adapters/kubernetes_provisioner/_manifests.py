"""The objects of a driver: its pod, its Secret, and the template from which Spark makes its executors. Pure.

A role's template lies below everything; the settings go over it, and what the broker relies on (names, labels, affinity,
sizes, the driver's program) over both. Pods meet the Pod Security standard ``restricted`` unless a template says
otherwise. The Secret holds the token, and the conf with it, which often has credentials in it.
"""

from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from sparkbroker.broker.adapters.kubernetes_provisioner import _launch
from sparkbroker.broker.adapters.kubernetes_provisioner._affinity import executor_affinity
from sparkbroker.broker.adapters.kubernetes_provisioner._conf import (
    BLOCK_MANAGER_PORT,
    CONNECT_PORT,
    DRIVER_PORT,
    UI_PORT,
    properties,
)
from sparkbroker.broker.adapters.kubernetes_provisioner._names import (
    DO_NOT_DISRUPT,
    FINGERPRINT,
    PYTHON,
    SAFE_TO_EVICT,
    labels,
    marks,
    object_name,
)
from sparkbroker.broker.adapters.local_provisioner._conf import CLASS_PATH, LIBRARY_PATH, argument_file, java_options
from sparkbroker.broker.domain.asking.pod_sizing import Role, conf_of, init_containers, main_resources, settings_of
from sparkbroker.broker.domain.capacity.resources import MIB
from sparkbroker.broker.domain.errors import InvalidField, ProvisionerFailed
from sparkbroker.broker.domain.pods.settings import NAME_PREFIX, PodSettings, deep_merge
from sparkbroker.broker.ports.provisioner import DriverRequest

Manifest = dict[str, Any]
DRIVER_GRACE: Final = 10
"""Seconds that a driver's pod has from SIGTERM to SIGKILL."""
USER: Final = 185
_FILES_VOLUME: Final = f"{NAME_PREFIX}files"
_LOCAL_VOLUME: Final = f"{NAME_PREFIX}local"
_EVICTION: Final = {
    Role.DRIVER: {SAFE_TO_EVICT: "false", DO_NOT_DISRUPT: "true"},
    Role.EXECUTOR: {SAFE_TO_EVICT: "true"},
}
"""What autoscalers of nodes are told of each."""


class Manifests(msgspec.Struct, frozen=True, kw_only=True):
    """What is made for a driver. The Secret's owner is added when the pod's uid is known."""

    namespace: str
    pod: Manifest
    secret: Manifest


def render(request: DriverRequest, *, owner: str, token: str) -> Manifests:
    """Everything of one driver. Raise ProvisionerFailed (misconfigured) for what can't be run."""
    try:
        settings = settings_of(request.spec, request.profile)
        namespace = settings.namespace or request.profile.namespaces[0]
        if not settings.image:
            message = f"profile {request.profile.name!r} names no image; set pod.image"
            raise ProvisionerFailed(message, retryable=False, misconfigured=True)
        conf = properties(request, settings, namespace)
        files = {_launch.PROPERTIES: properties_file(conf).encode(), _launch.ARGUMENTS: argument_file(_arguments(conf))}
        if request.spec.executors is not None:
            template = executor_template(request, settings, owner=owner)
            files[_launch.TEMPLATE] = msgspec.json.encode(template)
        pod = driver_pod(request, settings, namespace, owner=owner)
    except InvalidField as error:
        raise ProvisionerFailed(error.message, retryable=False, misconfigured=True) from error
    files[_launch.TOKEN] = token.encode()
    return Manifests(namespace=namespace, pod=pod, secret=_secret(request, namespace, files, owner=owner))


def _arguments(conf: dict[str, str]) -> tuple[str, ...]:
    """Java's, but for what only the pod knows."""
    heap = f"-Xmx{conf['spark.driver.memory']}"
    given = (f"-D{key}={value}" for key, value in conf.items())
    return (heap, *_launch.java_options(), *given, *java_options(conf))


def properties_file(conf: dict[str, str]) -> str:
    """As ``java.util.Properties`` reads it."""
    return "".join(f"{_escaped(key)}={_escaped(value)}\n" for key, value in conf.items())


def _escaped(text: str) -> str:
    for plain, written in (("\\", "\\\\"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"), ("=", "\\="), (":", "\\:"), ("#", "\\#"), ("!", "\\!"), (" ", "\\ ")):  # fmt: skip
        text = text.replace(plain, written)
    return text


def driver_pod(request: DriverRequest, settings: PodSettings, namespace: str, *, owner: str) -> Manifest:
    """The driver's pod: a Connect server, under the profile's service account."""
    name = object_name(request.driver_id)
    resolves = bool(request.spec.packages or request.spec.jars)
    program = _launch.script(resolves=resolves, on_cluster=request.spec.executors is not None)
    conf = conf_of(request.spec, request.profile)
    size = main_resources(Role.DRIVER, request.spec.driver, conf, settings)
    container = {
        "name": Role.DRIVER.container,
        "command": ["/bin/bash", "-c", program],
        "ports": _ports(ui=request.profile.ui),
        "env": [
            *_environment(settings),
            *_paths(conf),
            {"name": _launch.POD_IP, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {
                "name": _launch.TOKEN_VARIABLE,
                "valueFrom": {"secretKeyRef": {"name": name, "key": _launch.TOKEN}},
            },
        ],
        "volumeMounts": [
            {"name": _FILES_VOLUME, "mountPath": _launch.FILES, "readOnly": True},
            {"name": _LOCAL_VOLUME, "mountPath": _launch.LOCAL_DIR},
        ],
    }
    shown = [_launch.PROPERTIES, _launch.ARGUMENTS, *([_launch.TEMPLATE] if request.spec.executors else [])]
    items = [{"key": key, "path": key} for key in shown]
    pod = _pod(Role.DRIVER, request, settings, container, size, owner=owner)
    pod["metadata"] |= {"name": name, "namespace": namespace}
    pod["metadata"]["annotations"] |= {
        FINGERPRINT: request.profile_fingerprint,
        **marks(request),
        **({PYTHON: settings.python_version} if settings.python_version else {}),
    }
    spec = pod["spec"]
    spec["volumes"] = [
        *spec.get("volumes", ()),
        {"name": _FILES_VOLUME, "secret": {"secretName": name, "items": items}},
        {"name": _LOCAL_VOLUME, "emptyDir": {}},
    ]
    spec |= {"restartPolicy": "Never", "enableServiceLinks": False}
    spec.setdefault("terminationGracePeriodSeconds", DRIVER_GRACE)
    if settings.affinity:
        spec["affinity"] = deep_merge(spec.get("affinity", {}), settings.affinity)
    if settings.service_account:
        spec["serviceAccountName"] = settings.service_account
    return pod


def _paths(conf: Mapping[str, str]) -> list[Manifest]:
    """What Spark's launcher, which isn't asked, would make of two properties."""
    names = ((_launch.MORE_CLASSES, CLASS_PATH), (_launch.LIBRARIES, LIBRARY_PATH))
    return [{"name": name, "value": conf[key]} for name, key in names if conf.get(key)]


def executor_template(request: DriverRequest, settings: PodSettings, *, owner: str) -> Manifest:
    """From which Spark makes every executor's pod: it adds names, the program, sizes and its own labels."""
    container: Manifest = {"name": Role.EXECUTOR.container, "env": _environment(settings)}
    pod = _pod(Role.EXECUTOR, request, settings, container, None, owner=owner)
    spec = pod["spec"]
    spec |= {"automountServiceAccountToken": False, "enableServiceLinks": False}
    asked = deep_merge(spec.get("affinity", {}), settings.affinity)
    spec["affinity"] = executor_affinity(request.driver_id, asked, one_zone=settings.one_zone)
    return pod


def _pod(
    role: Role,
    request: DriverRequest,
    settings: PodSettings,
    container: Manifest,
    size: Manifest | None,
    *,
    owner: str,
) -> Manifest:
    """What driver and executors have in common. ``size``: of Spark's container; None: Spark writes it."""
    template = getattr(settings, f"{role}_template")
    metadata, below = template.get("metadata", {}), template.get("spec", {})
    spec: Manifest = deep_merge({"securityContext": _pod_security()}, below)
    spec["containers"] = [
        _main(below, container, settings, size),
        *_beside(below, role),
        *map(_restricted, settings.sidecars),
    ]
    if init := init_containers(below, map(_restricted, settings.init_containers)):
        spec["initContainers"] = init
    for key, value in (
        ("nodeSelector", settings.node_selector),
        ("tolerations", list(settings.tolerations)),
        ("topologySpreadConstraints", list(settings.topology_spread_constraints)),
        ("priorityClassName", settings.priority_class),
        ("volumes", list(settings.volumes)),
        ("imagePullSecrets", [{"name": secret} for secret in settings.image_pull_secrets]),
    ):
        if value:
            spec = deep_merge(spec, {key: value})
    own = labels(owner, request.driver_id, role)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "labels": {**metadata.get("labels", {}), **settings.labels, **own},
            "annotations": {**_EVICTION[role], **metadata.get("annotations", {}), **settings.annotations},
        },
        "spec": spec,
    }


def _main(below: Manifest, container: Manifest, settings: PodSettings, size: Manifest | None) -> Manifest:
    """Spark's own container: the template's of that name, with ours over it."""
    given: Manifest = next((item for item in below.get("containers", ()) if item.get("name") == container["name"]), {})
    result = deep_merge(_restricted(given), container)
    result["image"] = settings.image
    if settings.image_pull_policy:
        result["imagePullPolicy"] = settings.image_pull_policy
    if settings.volume_mounts:
        result = deep_merge(result, {"volumeMounts": list(settings.volume_mounts)})
    if size is not None:
        result = deep_merge(result, {"resources": size})
    return result


def _beside(below: Manifest, role: Role) -> list[Manifest]:
    return [_restricted(item) for item in below.get("containers", ()) if item.get("name") != role.container]


def _restricted(container: Manifest) -> Manifest:
    """A container that gains no rights, unless it says otherwise."""
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {**container, "securityContext": {**security, **container.get("securityContext", {})}}


def _pod_security() -> Manifest:
    return {"runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "seccompProfile": {"type": "RuntimeDefault"}}


def _environment(settings: PodSettings) -> list[Manifest]:
    return [
        {"name": name, "value": value} if isinstance(value, str) else {"name": name, "valueFrom": value}
        for name, value in settings.env.items()
    ]


def _ports(*, ui: bool) -> list[Manifest]:
    ports = {"connect": CONNECT_PORT, "driver": DRIVER_PORT, "blockmanager": BLOCK_MANAGER_PORT}
    if ui:
        ports["ui"] = UI_PORT
    return [{"name": name, "containerPort": port} for name, port in ports.items()]


def _secret(request: DriverRequest, namespace: str, files: dict[str, bytes], *, owner: str) -> Manifest:
    if (size := sum(map(len, files.values()))) > MIB - 64 * 1024:
        raise ProvisionerFailed(
            f"the driver's conf and template take {size} bytes, more than a Secret holds; use a shorter conf",
            retryable=False,
            misconfigured=True,
        )
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {
            "name": object_name(request.driver_id),
            "namespace": namespace,
            "labels": labels(owner, request.driver_id, Role.DRIVER),
        },
        "data": {name: b64encode(content).decode() for name, content in files.items()},
    }


def with_owner(secret: Manifest, pod_uid: str) -> Manifest:
    """The Secret, to be removed by the cluster with its pod."""
    name = secret["metadata"]["name"]
    reference = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": pod_uid}
    return {**secret, "metadata": {**secret["metadata"], "ownerReferences": [reference]}}
