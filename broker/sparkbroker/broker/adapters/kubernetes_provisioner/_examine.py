"""What a cluster would refuse of a profile, found out without making anything: rights by access reviews, pods by dry runs.

Asked with the credentials of whoever runs it. Not promised: what only a real run shows (images, nodes, quotas that fill
up), and what admission says to a driver's own account, in whose name Spark makes the executors.
"""

import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from sparkbroker.broker.adapters.kubernetes_provisioner._api import Api, missing_extra
from sparkbroker.broker.adapters.kubernetes_provisioner._cluster import Cluster
from sparkbroker.broker.adapters.kubernetes_provisioner._errors import ApiFailed, Call
from sparkbroker.broker.adapters.kubernetes_provisioner._manifests import Manifest, executor_template, render
from sparkbroker.broker.adapters.kubernetes_provisioner._names import object_name
from sparkbroker.broker.domain.asking.pod_sizing import Role, conf_of, main_resources, settings_of
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.asking.sizing import charge
from sparkbroker.broker.domain.errors import BrokerError, ProvisionerFailed
from sparkbroker.broker.domain.lease.lease import LeaseMode
from sparkbroker.broker.domain.units import DriverId
from sparkbroker.broker.ports.clock import Clock
from sparkbroker.broker.ports.provisioner import DriverRequest

RIGHTS: Final[Mapping[str, Sequence[str]]] = {
    "pods": ("create", "get", "list", "watch", "delete", "deletecollection"),
    "pods/log": ("get",),
    "secrets": ("create", "delete"),
    "events": ("list",),
}
"""What the broker's account needs in each namespace of its profiles."""
CLIENT_RIGHTS: Final[Mapping[str, Sequence[str]]] = {
    "pods": ("patch",),
    "serviceaccounts": ("create", "list", "delete"),
    "serviceaccounts/token": ("create",),
    "rolebindings.rbac.authorization.k8s.io": ("create", "list", "delete"),
    "roles.rbac.authorization.k8s.io": ("bind",),
}
"""What it needs besides for profiles that offer the mode CLIENT; ``bind``: on the profile's ``client_role`` alone."""
_REVIEWS: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """What the cluster said of one profile in one namespace. ``troubles`` empty: it would accept everything."""

    profile: str
    namespace: str
    troubles: tuple[str, ...] = ()


async def examine(profiles: Iterable[Profile], clock: Clock) -> list[Refusal]:
    """All profiles of this provisioner. Raise ProvisionerFailed if the cluster can't be asked at all."""
    asked = [profile for profile in profiles if profile.provisioner == "kubernetes"]
    if asked and (missing := missing_extra()):
        raise ProvisionerFailed(missing, retryable=False, misconfigured=True)
    if not asked:
        return []
    cluster = Cluster(await Api.connect(clock))
    try:
        rights: dict[tuple[str, str], tuple[str, ...]] = {}
        found = []
        for profile in asked:
            for namespace in profile.namespaces:
                role = profile.client_role if LeaseMode.CLIENT in profile.modes else ""
                if (namespace, role) not in rights:
                    rights[namespace, role] = tuple([text async for text in _lacking(cluster, namespace, role)])
                troubles = (*rights[namespace, role], *await _refused(cluster, profile, namespace))
                found.append(Refusal(profile=profile.name, namespace=namespace, troubles=troubles))
        return found
    finally:
        await cluster.close()


async def _lacking(cluster: Cluster, namespace: str, client_role: str) -> AsyncIterator[str]:
    call = Call(verb="create", resource="selfsubjectaccessreviews", namespace=namespace)
    for name, verbs in (*RIGHTS.items(), *(CLIENT_RIGHTS.items() if client_role else ())):
        full, _, part = name.partition("/")
        resource, _, group = full.partition(".")
        object = {"name": client_role} if resource == "roles" else {}
        for verb in verbs:
            kind = {"group": group, "resource": resource, "subresource": part}
            attributes = {"namespace": namespace, "verb": verb, **kind, **object}
            review = {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": attributes},
            }
            answer = msgspec.json.decode(await cluster.api.call(call, "POST", _REVIEWS, body=review))
            if not answer.get("status", {}).get("allowed"):
                yield f"may not {verb} {name}: give its account this verb by a Role in the namespace"


async def _refused(cluster: Cluster, profile: Profile, namespace: str) -> list[str]:
    troubles = []
    try:
        for role, pod in _pods(profile, namespace).items():
            try:
                await cluster.create_pod(namespace, pod, dry_run=True)
            except ApiFailed as error:
                if not error.code:
                    raise
                troubles.append(f"the {role}'s pod: {error.message}")
    except ApiFailed:
        raise
    except BrokerError as error:  # it can't even be rendered
        troubles.append(error.message)
    return troubles


def _pods(profile: Profile, namespace: str) -> dict[Role, Manifest]:
    """A driver's pod and, where there are executors, one of theirs, of what a request with the profile's name alone gets."""
    spec = msgspec.structs.replace(
        profile.defaults, mode=LeaseMode.CONNECT, pod={**profile.defaults.pod, "namespace": namespace}
    )
    request = DriverRequest(
        driver_id=DriverId(f"doctor-{uuid.uuid4().hex[:12]}"),
        attempt=1,
        spec=spec,
        profile=profile,
        profile_fingerprint="doctor",
        target=charge(spec, profile),
    )
    pods = {Role.DRIVER: render(request, owner="doctor", token="none").pod}  # noqa: S106 (no token)
    if spec.executors is not None:
        pods[Role.EXECUTOR] = _executor(request, namespace)
    return pods


def _executor(request: DriverRequest, namespace: str) -> Manifest:
    """As Spark makes one from our template: it adds a name, its account, sizes and a restart policy."""
    settings = settings_of(request.spec, request.profile)
    pod = executor_template(request, settings, owner="doctor")
    pod["metadata"] |= {"name": f"{object_name(request.driver_id)}-exec-1", "namespace": namespace}
    executors = request.spec.executors
    assert executors is not None  # noqa: S101 (the caller's)
    size = main_resources(Role.EXECUTOR, executors.size, conf_of(request.spec, request.profile), settings)
    main = next(item for item in pod["spec"]["containers"] if item["name"] == Role.EXECUTOR.container)
    main |= {"resources": size, "args": ["executor"]}
    pod["spec"]["restartPolicy"] = "Never"
    if settings.executor_service_account:
        pod["spec"]["serviceAccountName"] = settings.executor_service_account
    return pod
