"""What a driver's objects are called, and the labels by which they are found. Pure, and the same after any restart."""

import re
from typing import Final

from sparkbroker.broker.domain.asking.pod_sizing import Role
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.lease.lease import LeaseSpec
from sparkbroker.broker.domain.pods.settings import LABEL_PREFIX, NAME_PREFIX
from sparkbroker.broker.domain.units import DriverId
from sparkbroker.broker.ports.provisioner import DriverRequest

OWNER: Final = f"{LABEL_PREFIX}owner"
"""Label: which broker's it is."""
DRIVER: Final = f"{LABEL_PREFIX}driver"
"""Label: the driver's id."""
ROLE: Final = f"{LABEL_PREFIX}role"
"""Label: driver or executor."""
FINGERPRINT: Final = f"{LABEL_PREFIX}profile-fingerprint"
"""Annotation of the driver's pod."""
POOL: Final = f"{LABEL_PREFIX}pool"
"""Annotation of the driver's pod: the capacity that it is charged to."""
TARGET: Final = f"{LABEL_PREFIX}charge"
"""Annotation of the driver's pod: what it is charged for, as ``cpu=1000,memory=…``."""
EXECUTORS: Final = f"{LABEL_PREFIX}executors"
"""Annotation of the driver's pod: how many executors it wants at least."""
HOLDER: Final = f"{LABEL_PREFIX}holder"
"""Label: a pod that is its holder's own, and a driver only as long as its lease lives. Never deleted by the broker."""
PRINCIPAL: Final = f"{LABEL_PREFIX}principal"
"""Annotation of a holder's own pod, by whoever made it: the principal that may use it as a driver."""
PYTHON: Final = f"{LABEL_PREFIX}python-version"
"""Annotation of the driver's pod: its image's Python, as "3.11", where that is known."""
SAFE_TO_EVICT: Final = "cluster-autoscaler.kubernetes.io/safe-to-evict"
DO_NOT_DISRUPT: Final = "karpenter.sh/do-not-disrupt"
"""Karpenter's word for the same; it knows no other."""

_DRIVER_ID: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")


def is_driver_id(text: str) -> bool:
    """Whether names of Kubernetes can hold it, as they can all of ours."""
    return _DRIVER_ID.fullmatch(text) is not None


def check_driver_id(driver_id: DriverId) -> DriverId:
    """The id. Raise ProvisionerFailed if it can't be one."""
    if not is_driver_id(driver_id):
        raise ProvisionerFailed(f"{driver_id!r} is no driver id of ours", retryable=False)
    return driver_id


def object_name(driver_id: DriverId) -> str:
    """Of the driver's pod and its Secret, and the prefix of its executors' names. A label's value, too."""
    return f"{NAME_PREFIX}{check_driver_id(driver_id)}"


def account_name(driver_id: DriverId) -> str:
    """Of the service account of a lease in mode CLIENT, and of its binding; the chart's admission policy knows it."""
    return f"{NAME_PREFIX}client-{check_driver_id(driver_id)}"


def labels(owner: str, driver_id: DriverId, role: Role) -> dict[str, str]:
    """What every pod of a driver carries, whatever else its settings say."""
    return {
        "app.kubernetes.io/name": "spark",
        "app.kubernetes.io/component": str(role),
        "app.kubernetes.io/managed-by": "sparkbroker",
        OWNER: owner,
        DRIVER: driver_id,
        ROLE: str(role),
    }


def marks(request: DriverRequest) -> dict[str, str]:
    """Annotations of a driver's pod: how it is charged, and how many executors it wants."""
    quantities = sorted(request.target.quantities.items())
    return {
        POOL: request.profile.pool,
        TARGET: ",".join(f"{key}={amount}" for key, amount in quantities),
        EXECUTORS: str(wanted(request.spec)),
    }


def wanted(spec: LeaseSpec) -> int:
    """How many executors a driver is to have at least."""
    return spec.executors.min_count if spec.executors is not None else 0


def owned(owner: str) -> str:
    """The selector of everything of this broker: nothing else is ever looked at or ended (promise 6)."""
    return f"{OWNER}={owner}"


def of_driver(owner: str, driver_id: DriverId) -> str:
    """The selector of everything of one driver."""
    return f"{OWNER}={owner},{DRIVER}={check_driver_id(driver_id)}"


def deletable(owner: str, driver_id: DriverId) -> str:
    """The selector of what of one driver is the broker's to delete: everything but a holder's own pod."""
    return f"{of_driver(owner, driver_id)},!{HOLDER}"
