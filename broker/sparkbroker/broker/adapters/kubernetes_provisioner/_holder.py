"""The holder's own pod as the driver of its lease (mode CLIENT): whether it is the one, how it is marked, and the account
and rights that its lease gets. Pure.

The pod is never ours to delete: what makes it findable (labels, by which executors are placed beside it, too) is put on
it, and taken off at the end. Account and binding belong to it, so that the cluster removes them with it.
"""

from typing import Any, Final

from sparkbroker.broker.adapters.kubernetes_provisioner._conf import client_properties
from sparkbroker.broker.adapters.kubernetes_provisioner._manifests import Manifest, executor_template
from sparkbroker.broker.adapters.kubernetes_provisioner._names import (
    DRIVER,
    EXECUTORS,
    FINGERPRINT,
    HOLDER,
    OWNER,
    POOL,
    PRINCIPAL,
    ROLE,
    TARGET,
    account_name,
    marks,
)
from sparkbroker.broker.adapters.kubernetes_provisioner._pods import Pod
from sparkbroker.broker.domain.asking.pod_sizing import Role, conf_of, holder_request, pod_memory, settings_of
from sparkbroker.broker.domain.capacity.resources import MAX_MEMORY, MEMORY, MIB, Resources, describe_quantity
from sparkbroker.broker.domain.errors import InvalidField, ProvisionerFailed
from sparkbroker.broker.domain.lease.lease import HolderPod
from sparkbroker.broker.domain.pods.quantities import parse_quantity
from sparkbroker.broker.domain.units import DriverId
from sparkbroker.broker.ports.provisioner import DriverRequest

RBAC: Final = "rbac.authorization.k8s.io"
_LABELS: Final = (OWNER, DRIVER, ROLE, HOLDER)
_ANNOTATIONS: Final = (FINGERPRINT, POOL, TARGET, EXECUTORS)


def holder_of(request: DriverRequest) -> HolderPod:
    """The pod that is asked for. Raise ProvisionerFailed if the spec names none."""
    if request.spec.holder_pod is None:
        raise ProvisionerFailed(f"driver {request.driver_id} has no holder's pod on record", retryable=False)
    return request.spec.holder_pod


def missing(asked: HolderPod) -> ProvisionerFailed:
    """There is no pod of that name."""
    return _refused(f"there is no pod {asked.name!r} in namespace {asked.namespace!r}: the holder's pod is gone")


def check(pod: Pod, request: DriverRequest, owner: str) -> None:
    """Raise ProvisionerFailed unless this pod, as it is now, may be the driver of this lease."""
    asked = holder_of(request)
    name = f"pod {asked.name!r} in namespace {asked.namespace!r}"
    if pod.metadata.uid != asked.uid:
        raise _refused(f"{name} has another uid than {asked.uid}: it is not the pod that asked")
    if not pod.principal:
        raise _refused(
            f"{name} does not say who may use it as a driver: give it the annotation {PRINCIPAL}, with the principal "
            f"{request.principal!r}"
        )
    if pod.principal != request.principal:
        raise _refused(f"{name} is another principal's: its annotation {PRINCIPAL} is not {request.principal!r}")
    _check_free(pod, request, owner, name)
    if pod.leaving or pod.ended:
        raise _refused(f"{name} {'is being deleted' if pod.leaving else 'has ended'}")
    _check_size(pod, request, name)
    if not pod.status.pod_ip:
        raise ProvisionerFailed(f"{name} has no address yet", retryable=True)


def _check_free(pod: Pod, request: DriverRequest, owner: str, name: str) -> None:
    labels = pod.metadata.labels
    if ROLE not in labels and OWNER not in labels:
        return
    if not pod.is_holder:
        raise _refused(f"{name} is a driver or an executor that a broker has made: ask from a pod of your own")
    if labels.get(OWNER) != owner:
        raise _refused(
            f"{name} is the driver of another broker's lease; if that broker is gone, remove its label {OWNER}"
        )
    if labels.get(DRIVER) != request.driver_id:
        # Often its own last lease, whose executors are still going.
        raise ProvisionerFailed(
            f"{name} is still the driver of another lease (driver {labels.get(DRIVER)}): one at a time; release that one",
            retryable=True,
        )
    if pod.fingerprint != request.profile_fingerprint:
        raise ProvisionerFailed(f"{name} is marked for another profile than the lease's", retryable=False)


def _check_size(pod: Pod, request: DriverRequest, name: str) -> None:
    """It takes no more than its lease is charged for it, and its JVM fits into it."""
    settings = settings_of(request.spec, request.profile)
    charged = holder_request(request.spec, request.profile, settings)
    if not pod.takes.fits(charged):
        raise _refused(
            f"{name} requests {_told(pod.takes)}, and its lease is charged {_told(charged)} for it: ask for a driver of the "
            "pod's size (cores, memory and memory_overhead)"
        )
    needed = pod_memory(Role.DRIVER, request.spec.driver, conf_of(request.spec, request.profile)).total * MIB
    largest = _largest(pod)
    if largest is not None and largest < needed:
        raise _refused(
            f"{name} is limited to {describe_quantity(MEMORY, largest)} of memory, and a driver of this size needs "
            f"{describe_quantity(MEMORY, needed)}: ask for less (memory, memory_overhead), or give the pod more"
        )


def _largest(pod: Pod) -> int | None:
    """Bytes of memory that one of its containers may use; None: one has no limit."""
    limits = [container.resources.limits.get(MEMORY) for container in pod.spec.containers]
    bounded = bool(limits) and None not in limits
    known = [max(map(_bytes, limits))] if bounded else []
    whole = pod.spec.resources.limits.get(MEMORY)
    return min((*known, *([_bytes(whole)] if whole is not None else [])), default=None)


def _bytes(limit: Any) -> int:
    try:
        return int(parse_quantity(limit, "holder_pod"))
    except InvalidField:
        return MAX_MEMORY  # not of the API server's making


def _told(size: Resources) -> str:
    return ", ".join(f"{name} {describe_quantity(name, amount)}" for name, amount in sorted(size.quantities.items()))


def claim(pod: Pod, request: DriverRequest, owner: str) -> Manifest:
    """The merge patch that marks it as this driver; of this very pod as it was looked at, and no other."""
    known = {**marks(request), FINGERPRINT: request.profile_fingerprint}
    return {
        "metadata": {
            "uid": pod.metadata.uid,
            "resourceVersion": pod.metadata.resource_version,
            "labels": {OWNER: owner, DRIVER: request.driver_id, ROLE: str(Role.DRIVER), HOLDER: "true"},
            "annotations": known,
        }
    }


def unclaim(pod: Pod) -> Manifest:
    """The merge patch that takes the marks off, as it was looked at: those of a later lease stay."""
    return {
        "metadata": {
            "uid": pod.metadata.uid,
            "resourceVersion": pod.metadata.resource_version,
            "labels": dict.fromkeys(_LABELS),
            "annotations": dict.fromkeys(_ANNOTATIONS),
        }
    }


def account(pod: Pod, driver_id: DriverId, owner: str) -> Manifest:
    """The service account of one lease."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _of_pod(pod, driver_id, owner),
        "automountServiceAccountToken": False,
    }


def binding(pod: Pod, driver_id: DriverId, owner: str, role: str) -> Manifest:
    """What gives that account its rights."""
    name = account_name(driver_id)
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": _of_pod(pod, driver_id, owner),
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": pod.metadata.namespace}],
    }


def _of_pod(pod: Pod, driver_id: DriverId, owner: str) -> Manifest:
    reference = {"apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid}
    return {
        "name": account_name(driver_id),
        "namespace": pod.metadata.namespace,
        "labels": {"app.kubernetes.io/managed-by": "sparkbroker", OWNER: owner, DRIVER: driver_id},
        "ownerReferences": [reference],
    }


def session(request: DriverRequest, pod: Pod, owner: str) -> tuple[dict[str, str], Manifest]:
    """The conf of a classic session in it, and the template of its executors. Raise ProvisionerFailed (misconfigured)."""
    try:
        settings = settings_of(request.spec, request.profile)
        conf = client_properties(request, settings, pod.metadata.namespace, pod.metadata.name, pod.status.pod_ip)
        return conf, executor_template(request, settings, owner=owner)
    except InvalidField as error:
        raise _refused(error.message) from error


def _refused(message: str) -> ProvisionerFailed:
    return ProvisionerFailed(message, retryable=False, misconfigured=True)
