"""The shapes of what the broker itself reads of an object in Kubernetes' words. Pure; the rest is the API server's to check."""

from collections.abc import Mapping
from typing import Any, Final

from sparkbroker.broker.domain.errors import InvalidField
from sparkbroker.broker.domain.pods.references import entries

_OBJECTS: Final = frozenset({"securityContext", "resources", "requests", "limits", "affinity"})
_SECONDS: Final = "terminationGracePeriodSeconds"
_EXPECTED: Final = "write it as in a Pod, or leave it out"


def check_shapes(value: Any, field: str) -> None:
    """Raise InvalidField for the first that has another, null among them."""
    for key, item, where in entries(value, field):
        if key in _OBJECTS and not isinstance(item, Mapping):
            raise InvalidField(where, "is no object", _EXPECTED)
        if key == _SECONDS and (type(item) is not int or item < 0):
            raise InvalidField(where, "is no whole number of seconds", _EXPECTED)
