"""The pod that this program runs in, for leases of mode CLIENT: by the downward API, as environment variables."""

import os
from collections.abc import Mapping
from typing import Final

from sparkbroker.client._errors import InvalidRequest
from sparkbroker.v1 import broker_pb2 as pb

VARIABLES: Final = {
    "namespace": "SPARKBROKER_POD_NAMESPACE",
    "name": "SPARKBROKER_POD_NAME",
    "uid": "SPARKBROKER_POD_UID",
}
"""Part of the pod's identity -> the variable that holds it, from ``metadata.namespace``, ``.name`` and ``.uid``."""


def own_pod(given: Mapping[str, object] | None, environ: Mapping[str, str] = os.environ) -> pb.HolderPod:
    """What was given, else what the variables say. Raise InvalidRequest, which names what is missing."""
    if given is not None:
        return _given(given)
    missing = [name for name in VARIABLES.values() if not environ.get(name)]
    if missing:
        fields = ", ".join(f"metadata.{part}" for part, name in VARIABLES.items() if name in missing)
        raise InvalidRequest(
            "holder_pod: in mode CLIENT this program's own pod is the driver, and the environment doesn't tell which it is: "
            f"{', '.join(missing)} not set. Set them in the pod by valueFrom.fieldRef ({fields}), or give holder_pod",
            field="holder_pod",
        )
    return pb.HolderPod(**{part: environ[name] for part, name in VARIABLES.items()})


def _given(given: Mapping[str, object]) -> pb.HolderPod:
    if not isinstance(given, Mapping) or set(given) != set(VARIABLES):
        raise InvalidRequest("holder_pod: give a mapping with namespace, name and uid", field="holder_pod")
    for part, value in given.items():
        if not isinstance(value, str) or not value:
            raise InvalidRequest(f"holder_pod: {part} is {value!r}; give a text", field="holder_pod")
    return pb.HolderPod(**{part: str(value) for part, value in given.items()})
