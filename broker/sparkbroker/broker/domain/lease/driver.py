"""The driver: what runs and what is charged. A lease points to one; a warm or unknown one has no lease.

States and who moves them on: PENDING (intent, charged) -> the reconciler creates it -> STARTING -> a Connect call with
its token succeeds -> READY; from each of these -> STOPPING (it is being ended, still charged) -> the reconciler sees it
gone -> GONE (terminal, not charged).
"""

from enum import StrEnum
from typing import Final, Literal

import msgspec
from msgspec.structs import force_setattr

from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.errors import IllegalTransition
from sparkbroker.broker.domain.text import escaped
from sparkbroker.broker.domain.units import DriverId, LeaseId, Revision, ServingTime, WallTime

Handle = dict[str, str | int | float]
"""What a provisioner needs to find a driver again. It is stored and shown: never a secret in it."""


ProvisionerName = Literal["local", "static", "kubernetes"]
"""Who runs a driver."""


class DriverState(StrEnum):
    """See the module."""

    PENDING = "PENDING"
    STARTING = "STARTING"
    READY = "READY"
    STOPPING = "STOPPING"
    GONE = "GONE"


DRIVER_TRANSITIONS: Final[dict[DriverState, frozenset[DriverState]]] = {
    DriverState.PENDING: frozenset({DriverState.STARTING, DriverState.READY, DriverState.STOPPING}),
    DriverState.STARTING: frozenset({DriverState.READY, DriverState.STOPPING}),
    DriverState.READY: frozenset({DriverState.STOPPING}),
    DriverState.STOPPING: frozenset({DriverState.GONE}),
    DriverState.GONE: frozenset(),
}


class DriverKind(StrEnum):
    """Whether it fills a lease, waits for one, or was found running without recorded intent."""

    LEASED = "LEASED"
    WARM = "WARM"
    UNKNOWN = "UNKNOWN"


class DriverExit(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How a driver ended by itself. ``signal`` is a name such as SIGKILL."""

    exit_code: int | None = None
    signal: str = ""
    out_of_memory: bool = False
    log_tail: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        force_setattr(self, "signal", escaped(self.signal))
        force_setattr(self, "log_tail", tuple(map(escaped, self.log_tail)))

    def describe(self) -> str:
        """For people: what ended it."""
        how = f"signal {self.signal}" if self.signal else f"exit status {self.exit_code}"
        if self.exit_code is None and not self.signal:
            how = "an unknown exit status"
        if not self.out_of_memory:
            return how
        return f"out of memory: the kernel killed it ({how})" if self.signal else f"out of memory ({how})"


class Driver(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One driver. ``handle`` is what its provisioner needs to find it again: names, pids, ports; never a secret.

    ``ending_sessions`` are Spark sessions of attachments that ended, to be interrupted and released before another attachment
    gets the connection.
    """

    id: DriverId
    kind: DriverKind = DriverKind.LEASED
    lease_id: LeaseId | None = None
    attempt: int = 1
    provisioner: ProvisionerName
    profile_fingerprint: str
    queue: str
    pool: str
    target: Resources
    """What was promised to it; of one that nobody recorded, what it took when it was found."""
    observed: Resources = Resources()
    """What existed of it when it was looked at, as of the last look that changed its charge."""
    state: DriverState = DriverState.PENDING
    handle: Handle = {}
    created: WallTime
    start_deadline: ServingTime
    stop_requested: ServingTime | None = None
    ending_sessions: tuple[str, ...] = ()
    exit: DriverExit | None = None
    stop_message: str = ""
    misconfigured: bool = False
    """Its failure is one that another attempt would repeat."""
    revision: Revision = Revision(0)

    @property
    def charge(self) -> Resources:
        """What it takes of its queue and its pool: quantity by quantity the larger of ``target`` and ``observed``.

        It follows what exists in both directions (an executor that leaves stands beside its successor for a while, and then
        no more), but doesn't fall below ``target`` before it is confirmed gone, however little of it is left (promise 5).
        """
        return Resources() if self.state is DriverState.GONE else self.target.maximum(self.observed)


def seen_with(driver: Driver, handle: Handle, resources: Resources) -> Driver:
    """The driver after a look at all that exists of it; the same one, if neither its handle (an empty one says nothing) nor its
    charge is another."""
    seen = msgspec.structs.replace(driver, handle=handle or driver.handle, observed=resources)
    same = seen.charge.fits(driver.charge) and driver.charge.fits(seen.charge)
    return driver if same and seen.handle == driver.handle else seen


def move(driver: Driver, state: DriverState, **changes: object) -> Driver:
    """The driver in its next state; raise IllegalTransition if the table has no such step."""
    if state not in DRIVER_TRANSITIONS[driver.state]:
        raise IllegalTransition(f"driver {driver.id}: {driver.state} -> {state} is not in the state table")
    return msgspec.structs.replace(driver, state=state, **changes)
