"""What a provisioner has seen of a driver."""

from enum import StrEnum

import msgspec
from msgspec.structs import force_setattr

from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.lease.driver import DriverExit, Handle
from sparkbroker.broker.domain.text import escaped
from sparkbroker.broker.domain.units import DriverId, WallTime

__all__ = ["Executors", "Handle", "Observation", "Phase"]


class Phase(StrEnum):
    """What the world shows of a driver."""

    ABSENT = "ABSENT"
    """Confirmed: nothing of it exists (never on a guess: promises 5 and 7)."""
    STARTING = "STARTING"
    """Its process exists; its port does not answer yet."""
    PORT_OPEN = "PORT_OPEN"
    """Its port accepts connections; a Connect call with its token has not succeeded yet."""
    READY = "READY"
    """A Connect call with its token has succeeded."""
    STOPPING = "STOPPING"
    """It was asked to end, or has partly ended; something of it still exists. With an ``exit``: it will never serve
    again, and that is how it ended."""
    EXITED = "EXITED"
    """It has ended by itself and nothing of it runs; its exit is known as far as it can be."""


class Executors(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Those of a driver that are processes of their own. ``pending``: they exist and don't run yet.

    ``wanted`` is what it is to have at least, or what exists if that is more. ``message`` says why some don't run, and how
    the last one failed; empty: all that are wanted run.
    """

    wanted: int
    running: int
    pending: int
    message: str = ""

    def __post_init__(self) -> None:
        force_setattr(self, "message", escaped(self.message))

    def describe(self) -> str:
        """For people; empty: all that are wanted run."""
        if self.running >= self.wanted and not self.pending and not self.message:
            return ""
        text = f"{self.running} of {self.wanted} executors run"
        if self.pending:
            text += f", {self.pending} {'is' if self.pending == 1 else 'are'} pending"
        return f"{text} ({self.message})" if self.message else text


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """What is seen of one driver now. Times are None until they have happened."""

    driver_id: DriverId
    phase: Phase
    handle: Handle = {}
    resources: Resources = Resources()
    """What all that exists of it takes. A look that may have missed some of it is a doubt, and no observation."""
    profile_fingerprint: str = ""
    pool: str = ""
    """What an unrecorded driver is to be charged to, if it is known."""
    pod_scheduled: WallTime | None = None
    sandbox_ready: WallTime | None = None
    """Of a pod of the broker's: a node was found for it, and has set up all that its containers need but their images."""
    process_started: WallTime | None = None
    port_open: WallTime | None = None
    ready: WallTime | None = None
    executors: Executors | None = None
    """Of a READY driver that has them."""
    exit: DriverExit | None = None
    message: str = ""

    def __post_init__(self) -> None:
        # Both become part of what is stored and shown.
        force_setattr(self, "message", escaped(self.message))
        force_setattr(self, "handle", {escaped(name): _storable(value) for name, value in self.handle.items()})


def _storable(value: str | float) -> str | float:
    return escaped(value) if isinstance(value, str) else value
