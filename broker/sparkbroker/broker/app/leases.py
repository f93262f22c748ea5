"""The use cases: what a caller may do with leases.

Each method authorises, decides with ``domain``, and returns only what is committed. A foreign lease is NotFound to a
user; an operator sees all.
"""

from collections.abc import AsyncIterator

from sparkbroker.broker.app.views import (
    Acquired,
    Attached,
    Connection,
    LeasePage,
    LeaseView,
    OnExisting,
    ProfileView,
    QueueView,
    Renewed,
    WatchUpdate,
)
from sparkbroker.broker.domain.filter import LeaseFilter
from sparkbroker.broker.domain.request import SpecRequest
from sparkbroker.broker.domain.units import Generation, LeaseId, Revision
from sparkbroker.broker.ports.authenticator import Caller
from sparkbroker.broker.ports.provisioner import LogChunk


class Leases:
    """See the module. All methods raise the errors of ``domain.errors``."""

    async def acquire(
        self, caller: Caller, *, request_id: str, key: str, on_existing: OnExisting, request: SpecRequest
    ) -> Acquired: ...
    async def get(self, caller: Caller, lease_id: LeaseId) -> LeaseView: ...
    async def list(
        self, caller: Caller, selection: LeaseFilter, *, descending: bool, after: tuple[float, str] | None, limit: int
    ) -> LeasePage: ...
    def watch(self, caller: Caller, lease_id: LeaseId, after: Revision) -> AsyncIterator[WatchUpdate]: ...
    def watch_all(self, caller: Caller, selection: LeaseFilter, after: Revision) -> AsyncIterator[WatchUpdate]: ...
    async def attach(self, caller: Caller, lease_id: LeaseId, *, request_id: str, holder: str) -> Attached: ...
    async def renew(self, caller: Caller, lease_id: LeaseId, generation: Generation) -> Renewed: ...
    async def release(
        self, caller: Caller, lease_id: LeaseId, generation: Generation, message: str
    ) -> LeaseView: ...
    async def connection(self, caller: Caller, lease_id: LeaseId, generation: Generation) -> Connection: ...
    def logs(
        self, caller: Caller, lease_id: LeaseId, *, offset: int, tail_lines: int, follow: bool, attempt: int
    ) -> AsyncIterator[LogChunk]: ...
    def queues(self, caller: Caller) -> list[QueueView]: ...
    def profiles(self, caller: Caller) -> list[ProfileView]: ...
