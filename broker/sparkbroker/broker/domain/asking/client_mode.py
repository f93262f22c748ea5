"""Mode CLIENT as it is asked for: the holder's own pod, by namespace, name and uid.

Promised: a spec of mode CLIENT names a pod in one of the profile's namespaces, and its executors are in the same one.
Not promised: that it exists, or is the caller's; who can see pods finds that out.
"""

import re
from typing import Any, Final

from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.errors import InvalidField
from sparkbroker.broker.domain.lease.lease import HolderPod, LeaseMode
from sparkbroker.broker.domain.text import shown

FIELD: Final = "spec.holder_pod"
_UID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")


def check_holder_pod(
    pod: HolderPod | None, settings: dict[str, Any], mode: LeaseMode, profile: Profile
) -> HolderPod | None:
    """The pod, unchanged; None in the other modes. ``settings``: the holder's own of its pods. Raise InvalidField."""
    if mode is not LeaseMode.CLIENT:
        if pod is not None:
            raise InvalidField(FIELD, f"is set, and the mode is {mode}", "leave it unset, or use the mode CLIENT")
        return None
    if pod is None:
        expected = "give namespace, name and uid of the pod that asks: the downward API has them"
        raise InvalidField(FIELD, "is missing: in mode CLIENT the holder's own pod is the driver", expected)
    if pod.namespace not in profile.namespaces:
        allowed = ", ".join(profile.namespaces)
        problem = f"{shown(pod.namespace, 60)} is not a namespace of profile `{profile.name}`"
        raise InvalidField(f"{FIELD}.namespace", problem, f"its drivers may be in: {allowed}")
    asked = settings.get("namespace") or pod.namespace
    if asked != pod.namespace:
        problem = f"{shown(pod.namespace, 60)} is not the executors' namespace, {shown(str(asked), 60)}"
        raise InvalidField(f"{FIELD}.namespace", problem, "leave spec.pod.namespace unset")
    if _NAME.fullmatch(pod.name) is None:
        raise InvalidField(f"{FIELD}.name", f"{shown(pod.name, 60)} is no pod's name", "give metadata.name")
    if _UID.fullmatch(pod.uid) is None:
        raise InvalidField(f"{FIELD}.uid", f"{shown(pod.uid, 60)} is no pod's uid", "give metadata.uid, a UUID")
    return pod
