"""Finding a task's lease: a new one, one that a trigger has waited for, one that is shared; and what kind it is."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sparkbroker.airflow_provider import identity, request
from sparkbroker.client import Broker, LeaseKeyInUse

if TYPE_CHECKING:
    from sparkbroker.client import Lease


def mode_of(lease: "Lease") -> str:
    """Such as LOCAL."""
    return lease.info.spec.mode


def is_here(lease: "Lease") -> bool:
    """Whether the driver is a JVM of this process, so that what it logs is in the task's log already."""
    return mode_of(lease) in ("LOCAL", "CLIENT")


def open_shared(broker: Broker, name: str) -> "Lease":
    """A lease that was acquired elsewhere. Raise InvalidArgument for one whose driver is the pod that did."""
    lease = broker.open(name)
    if mode_of(lease) == "CLIENT":
        problem = f"{name} is of mode CLIENT, whose driver is the pod that asked for it"
        raise request.InvalidArgument("lease", problem, "share one of mode CONNECT")
    return lease


class LeaseSpent(Exception):
    """A lease that was used has ended."""


def unspent(broker: Broker, name: str) -> "Lease":
    """The lease that a trigger has waited for. Raise LeaseSpent if an earlier run of the task has used it.

    Airflow 3 runs a task that is cleared while it runs with the event of the earlier run, unless it began in the triggerer.
    """
    lease = broker.open(name)
    if lease.info.generation and not lease.live:
        raise LeaseSpent(f"{name} was used by an earlier run of this task, and is {lease.state}")
    return lease


def lease_name(value: Any) -> str:
    """The name of a lease, of the XCom of a task that has acquired it. Raise InvalidArgument."""
    if value is None:
        problem = "the task that acquires it has given none: it was skipped, or marked as a success"
        raise request.InvalidArgument("lease", problem, "run that task, then this one")
    name = value.get("lease") if isinstance(value, Mapping) else value
    if not isinstance(name, str) or not name.startswith("leases/"):
        raise request.InvalidArgument(
            "lease", f"{request.shown(value)} is not a lease's name", "give one such as 'leases/abc'"
        )
    return name


def named_lease(value: Any, _argument: str) -> str | None:
    """Likewise, of an argument that may be left out."""
    return None if value is None else lease_name(value)


def acquire(broker: Broker, ask: Mapping[str, Any]) -> "Lease":
    """A lease for ``ask``; an earlier try's is replaced or reattached to. Errors as of the client."""
    try:
        return broker.acquire(**request.client_ask(ask))
    except LeaseKeyInUse as error:
        another = identity.after_conflict(ask, broker.get(error.metadata["lease"]).spec.labels)
        if another is None:
            raise
    return acquire(broker, another)
