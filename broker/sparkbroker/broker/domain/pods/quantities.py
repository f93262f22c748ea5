"""What a pod takes of its node, by Kubernetes' own rule: https://kubernetes.io/docs/concepts/workloads/pods/init-containers/

The sum of what its containers request (a limit without a request counts as one), or what its largest init container
does, whichever is more; restartable init containers (sidecars) count with the containers, and with the init containers
after them. What the pod asks for as a whole (``spec.resources``) is no less than that; a limit there counts for what nobody
requests. A runtime class's overhead comes on top.
"""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from sparkbroker.broker.domain.capacity.resources import CPU, MEMORY, Resources
from sparkbroker.broker.domain.errors import InvalidField

_QUANTITY: Final = re.compile(
    r"(?P<number>[0-9]{1,20}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})(?:(?P<unit>[numkMGTPE]|[KMGTPE]i)|[eE](?P<exponent>[+-]?[0-9]{1,2}))?"
)
_UNIT: Final = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15),
    "E": Decimal(10**18),
    **{unit: Decimal(1 << shift) for unit, shift in zip(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), range(10, 70, 10), strict=True)},
}  # fmt: skip
_SCALE: Final = {CPU: 1000}


def parse_quantity(text: object, field: str) -> Decimal:
    """A quantity in Kubernetes' notation: ``500m``, ``1.5``, ``128Mi``, ``1e3``. Raise InvalidField otherwise."""
    match = _QUANTITY.fullmatch(str(text).strip())
    if match is None:
        raise InvalidField(field, f"{str(text)[:40]!r} is not a quantity", 'write it as "500m", "2" or "1Gi"')
    return Decimal(match["number"]) * _UNIT[match["unit"] or ""] * Decimal(10) ** int(match["exponent"] or 0)


def pod_request(spec: Mapping[str, Any], field: str = "spec") -> Resources:
    """Thousandths of cores and bytes of one pod, each rounded up; other resources aren't counted. Raise InvalidField."""
    running = _sum(_container(item, f"{field}.containers") for item in _items(spec, "containers"))
    starting = Resources()
    beside = Resources()
    for item in _items(spec, "initContainers"):
        own = _container(item, f"{field}.initContainers")
        if item.get("restartPolicy") == "Always":
            beside += own
            starting = starting.maximum(beside)
        else:
            starting = starting.maximum(own + beside)
    overhead = _quantities(spec.get("overhead") or {}, f"{field}.overhead")
    containers = (running + beside).maximum(starting)
    return containers.maximum(_whole(spec, containers, f"{field}.resources")) + overhead


def _whole(spec: Mapping[str, Any], containers: Resources, field: str) -> Resources:
    """https://kubernetes.io/docs/tasks/configure-pod-container/assign-pod-level-resources/"""
    given = spec.get("resources") or {}
    limits = _quantities(given.get("limits") or {}, field)
    unrequested = {name: amount for name, amount in limits.quantities.items() if not containers[name]}
    return Resources({**unrequested, **_quantities(given.get("requests") or {}, field).quantities})


def _items(spec: Mapping[str, Any], key: str) -> Iterable[Mapping[str, Any]]:
    return spec.get(key) or ()


def _container(container: Mapping[str, Any], field: str) -> Resources:
    resources = container.get("resources") or {}
    return _quantities({**(resources.get("limits") or {}), **(resources.get("requests") or {})}, field)


def _quantities(given: Mapping[str, Any], field: str) -> Resources:
    amounts = {}
    for name, text in given.items():
        amount = parse_quantity(text, f"{field}.{name}") * _SCALE.get(name, 1)
        if name in (CPU, MEMORY):
            amounts[name] = int(amount.to_integral_value(rounding="ROUND_CEILING"))
    return Resources(amounts)


def _sum(parts: Iterable[Resources]) -> Resources:
    result = Resources()
    for part in parts:
        result += part
    return result
