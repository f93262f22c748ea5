"""Where drivers run. Level-triggered: every call can be repeated, and the world decides what it finds.

Identity: everything a provisioner makes is named after the driver's id. A provisioner touches nothing that it can't
prove to be this broker's.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Protocol, Self

import msgspec

from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.lease.driver import Driver
from sparkbroker.broker.domain.lease.lease import Lease, LeaseSpec
from sparkbroker.broker.domain.lease.observation import Handle, Observation, Phase
from sparkbroker.broker.domain.units import DriverId, Principal, WallTime

__all__ = [
    "ClientAccess",
    "ConnectEndpoint",
    "DriverRequest",
    "Handle",
    "LogChunk",
    "Observation",
    "Phase",
    "Provisioner",
]


class DriverRequest(msgspec.Struct, frozen=True, kw_only=True):
    """All that is needed to create a driver."""

    driver_id: DriverId
    attempt: int
    spec: LeaseSpec
    profile: Profile
    profile_fingerprint: str
    target: Resources
    principal: Principal = Principal("")
    """Whose lease it is."""

    @classmethod
    def of(cls, driver: Driver, lease: Lease, profile: Profile) -> Self:
        """As the lease was granted."""
        return cls(
            driver_id=driver.id,
            attempt=driver.attempt,
            spec=lease.spec,
            profile=profile,
            profile_fingerprint=driver.profile_fingerprint,
            target=driver.target,
            principal=lease.principal,
        )


class ConnectEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """How to connect to a READY driver. ``headers`` are secret; ``ui_url`` is host:port of the Spark UI, empty: none."""

    endpoint: str
    headers: dict[str, str]
    user_id: str
    use_tls: bool = False
    ca_certificate: str = ""
    ui_url: str = ""
    python_version: str = ""
    spark_version: str = ""


class ClientAccess(msgspec.Struct, frozen=True, kw_only=True):
    """What a session in the holder's own pod (mode CLIENT) is built with. ``token`` is secret, and ends at ``expires``."""

    conf: dict[str, str]
    executor_pod_template: str
    token: str
    ca_certificate: str
    expires: WallTime
    python_version: str = ""


class LogChunk(msgspec.Struct, frozen=True):
    """Bytes of a log, and the offset of the byte after them. ``source``: the executor whose it is; empty: the driver."""

    data: bytes
    next_offset: int
    source: str = ""


class Provisioner(Protocol):
    """Errors: ProvisionerFailed, which says whether another attempt may succeed. Any call may be cancelled at any
    await and repeated."""

    name: str
    always_confirms: str
    """Why its drivers' ends can always be confirmed, so that it abandons none; empty: they can't."""

    async def start(self) -> None:
        """Get ready to work: folders, credentials, caches. Nothing is created or ended yet."""
        ...

    def capacity(self) -> dict[str, Resources]:
        """What it has by itself, by pool (``local`` -> the machine). Configuration may set less."""
        ...

    def unusable(self, profile: Profile) -> str:
        """Why a profile can't be used now, and what would help, in a sentence. Empty: it can."""
        ...

    async def inventory(self) -> list[Observation]:
        """Everything of this broker's that exists or has left a record, also what nobody recorded."""
        ...

    async def create(self, request: DriverRequest) -> Observation:
        """Make it, or adopt what already exists under its id (same fingerprint). Its intent is already committed."""
        ...

    async def observe(self, driver_id: DriverId, handle: Handle, profile: Profile) -> Observation:
        """Look now; bounded in time. Doubt is not ABSENT (promise 7): raise ProvisionerFailed(retryable=True)."""
        ...

    async def delete(self, driver_id: DriverId, handle: Handle, *, force: bool) -> None:
        """Ask it to end; with ``force`` at once and without mercy, or, where it was asked before, after the grace that began
        when that arrived. Returns when asked, not when gone."""
        ...

    async def abandon(self, driver_id: DriverId, handle: Handle) -> str:
        """On an operator's word: remove what of it can't be confirmed gone from what ``observe`` looks at, and ask the rest
        to end. Return what was done, for people. Raise ProvisionerFailed if it fails, and where it ``always_confirms``."""
        ...

    async def forget(self, driver_id: DriverId) -> None:
        """Remove its logs and records. Only of a driver that is gone."""
        ...

    async def endpoint(self, driver_id: DriverId, handle: Handle, profile: Profile) -> ConnectEndpoint:
        """How to connect to a READY driver."""
        ...

    async def client_access(self, request: DriverRequest, handle: Handle) -> ClientAccess:
        """The conf and a new credential for the READY driver of a lease in mode CLIENT."""
        ...

    async def end_session(self, driver_id: DriverId, handle: Handle, profile: Profile, session_id: str) -> None:
        """Interrupt and release one Spark session of it. A session that doesn't exist is ended."""
        ...

    def logs(
        self,
        driver_id: DriverId,
        handle: Handle,
        *,
        offset: int,
        tail_lines: int,
        follow: bool,
        executors: Mapping[str, int] | None = None,
    ) -> AsyncIterator[LogChunk]:
        """The driver's log from ``offset``, or (offset 0) from ``tail_lines`` lines before its end; with ``follow`` until
        it has ended. A log that is gone or not ours to read is empty.

        ``executors`` not None: also those of its executors, where these are processes of their own, in any order among
        each other; it says from which offset on, by source, what isn't in it begins as the driver's would.
        """
        ...

    async def wait_for_change(self) -> set[DriverId]:
        """Wait until drivers may have changed and return which: a hint that saves polling, never the only way."""
        ...

    async def close(self) -> None:
        """Let go. Leased drivers go on running, unless the broker is embedded: then they end with it."""
        ...
