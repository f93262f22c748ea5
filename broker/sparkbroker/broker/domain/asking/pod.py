"""The pod settings that a holder may bring: names that the profile allows, with values of a bounded size.

A profile that runs no pods ignores them all, so that one program runs on a laptop and in a cluster by its profile alone;
one that does checks what ``pods.settings`` can, and the profile's bounds.
"""

import re
from typing import Any, Final

import msgspec

from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.errors import InvalidField
from sparkbroker.broker.domain.json_values import check_values
from sparkbroker.broker.domain.pods.bounds import check_within
from sparkbroker.broker.domain.pods.settings import merge, parse_pod

MAX_POD_BYTES: Final = 64 * 1024
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")


def check_pod(pod: dict[str, Any], profile: Profile) -> dict[str, Any]:
    """The settings, unchanged. Raise InvalidField naming ``spec.pod`` and the setting."""
    for name in pod:
        field = f"spec.pod[{name[:64]!r}]"
        if _NAME.fullmatch(name) is None:
            raise InvalidField(field, "is not the name of a setting", 'write a name such as "image" or "tolerations"')
        if name not in profile.allowed_pod and "*" not in profile.allowed_pod:
            allowed = ", ".join(profile.allowed_pod) or "none"
            raise InvalidField(field, f"is not allowed by profile `{profile.name}`", f"allowed are: {allowed}")
    check_values(pod, "spec.pod")
    if pod and (size := len(msgspec.json.encode(pod))) > MAX_POD_BYTES:
        raise InvalidField("spec.pod", f"{size} bytes of JSON", f"at most {MAX_POD_BYTES} are taken")
    if pod and profile.provisioner == "kubernetes":
        settings = parse_pod(pod, "spec.pod")
        check_within(settings, profile.pod_bounds, "spec.pod", own=profile.pod)
        if settings.namespace and settings.namespace not in profile.namespaces:
            allowed = ", ".join(profile.namespaces)
            raise InvalidField(
                "spec.pod.namespace", f"{settings.namespace!r} is not allowed", f"allowed are: {allowed}"
            )
        merge(profile.pod, settings)
    return pod
