"""The pod that this program runs in, for leases of mode CLIENT: by the downward API, as environment variables.

Imports nothing heavy: a DAG that is parsed names the variables.
"""

import os
from collections.abc import Mapping
from typing import Final

from sparkbroker.client._errors import InvalidRequest

VARIABLES: Final = {
    "namespace": "SPARKBROKER_POD_NAMESPACE",
    "name": "SPARKBROKER_POD_NAME",
    "uid": "SPARKBROKER_POD_UID",
}
"""Part of the pod's identity -> the variable that holds it, from ``metadata.namespace``, ``.name`` and ``.uid``."""


def missing_variables(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Those that don't tell which pod this is; none: the environment does."""
    return [name for name in VARIABLES.values() if not environ.get(name)]


def own_pod(given: Mapping[str, object] | None, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What was given, else what the variables say. Raise InvalidRequest, which names what is missing."""
    if given is not None:
        return _given(given)
    missing = missing_variables(environ)
    if missing:
        fields = ", ".join(f"metadata.{part}" for part, name in VARIABLES.items() if name in missing)
        raise InvalidRequest(
            "holder_pod: in mode CLIENT this program's own pod is the driver, and the environment doesn't tell which it is: "
            f"{', '.join(missing)} not set. Set them in the pod by valueFrom.fieldRef ({fields}), or give holder_pod",
            field="holder_pod",
        )
    return {part: environ[name] for part, name in VARIABLES.items()}


def _given(given: Mapping[str, object]) -> dict[str, str]:
    if not isinstance(given, Mapping) or set(given) != set(VARIABLES):
        raise InvalidRequest("holder_pod: give a mapping with namespace, name and uid", field="holder_pod")
    for part, value in given.items():
        if not isinstance(value, str) or not value:
            raise InvalidRequest(f"holder_pod: {part} is {value!r}; give a text", field="holder_pod")
    return {part: str(value) for part, value in given.items()}
