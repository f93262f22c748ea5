"""Where the pods of a driver want to be: beside each other, else in one zone. By the driver's own id, so that two drivers
never attract each other, and added when the pod is rendered, so that no setting can drop it.

====== ============================ ===========================
weight selects pods of              topologyKey
====== ============================ ===========================
100    this driver                  kubernetes.io/hostname
75     this driver's executors      kubernetes.io/hostname
50     this driver                  topology.kubernetes.io/zone
25     this driver's executors      topology.kubernetes.io/zone
====== ============================ ===========================
"""

from collections.abc import Mapping
from typing import Any, Final

from sparkbroker.broker.adapters.kubernetes_provisioner._names import DRIVER, ROLE
from sparkbroker.broker.domain.asking.pod_sizing import Role
from sparkbroker.broker.domain.pods.settings import deep_merge
from sparkbroker.broker.domain.units import DriverId

HOST: Final = "kubernetes.io/hostname"
ZONE: Final = "topology.kubernetes.io/zone"
TIERS: Final = ((100, Role.DRIVER, HOST), (75, Role.EXECUTOR, HOST), (50, Role.DRIVER, ZONE), (25, Role.EXECUTOR, ZONE))


def _term(driver_id: DriverId, role: Role, topology_key: str) -> dict[str, Any]:
    expressions = [
        {"key": DRIVER, "operator": "In", "values": [driver_id]},
        {"key": ROLE, "operator": "In", "values": [str(role)]},
    ]
    return {"labelSelector": {"matchExpressions": expressions}, "topologyKey": topology_key}


def executor_affinity(driver_id: DriverId, settings: Mapping[str, Any], *, one_zone: bool) -> dict[str, Any]:
    """The settings' affinity and the four tiers; with ``one_zone`` the driver's zone is a condition."""
    tiers = [{"weight": weight, "podAffinityTerm": _term(driver_id, role, key)} for weight, role, key in TIERS]
    pod_affinity: dict[str, Any] = {"preferredDuringSchedulingIgnoredDuringExecution": tiers}
    if one_zone:
        zone = [_term(driver_id, Role.DRIVER, ZONE)]
        pod_affinity["requiredDuringSchedulingIgnoredDuringExecution"] = zone
    return deep_merge(settings, {"podAffinity": pod_affinity})
