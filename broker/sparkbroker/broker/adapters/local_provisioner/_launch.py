"""What a driver is started as. The seam between the process control, which is the same for all, and Spark."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import msgspec

from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.ports.provisioner import DriverRequest

TOKEN_VARIABLE: Final = "SPARK_CONNECT_AUTHENTICATE_TOKEN"  # noqa: S105 (a name)
"""Carries the token to the driver, whatever is launched."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a driver may write: ``arguments`` is the path of its argument file, ``scratch`` of its own folder."""

    arguments: Path
    scratch: Path


class LaunchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The driver's argv, its whole environment but for the token and the marks, and its argument file's content."""

    argv: tuple[str, ...]
    environment: dict[str, str]
    arguments: bytes = b""


class Versions(msgspec.Struct, frozen=True, kw_only=True):
    """Of what a profile's drivers run: "major.minor" of Python, and Spark's."""

    python: str = ""
    spark: str = ""


class Launcher(Protocol):
    """Makes plans. Errors: ProvisionerFailed."""

    async def start(self) -> None:
        """Get ready to plan."""
        ...

    def unusable(self, profile: Profile) -> str:
        """As the provisioner's."""
        ...

    def versions(self, profile: Profile) -> Versions:
        """For the connection's details; of a usable profile."""
        ...

    async def plan(self, request: DriverRequest, place: Place, done: Callable[[], None]) -> LaunchPlan:
        """What to start, with everything that it needs already on this machine. While that is being brought it is refused as
        retryable, soon, and ``done`` is called when asking again may help."""
        ...

    def driver_ready(self) -> None:
        """A driver of a plan became READY: the moment for work in the background."""
        ...

    async def close(self) -> None:
        """End what runs in the background."""
        ...
