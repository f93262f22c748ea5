"""The use cases: what a caller may do with leases.

Each method authorises, decides with ``domain``, and returns only what is committed; so do its errors. A foreign lease
is NotFound to a user; an operator sees all. Any call may be cancelled at any await: what was decided is then committed
all the same, and a repetition with the same request_id gets its answer (promise 8).
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import cast

from sparkbroker.broker.app.access import Access
from sparkbroker.broker.app.acquiring import Acquiring
from sparkbroker.broker.app.admitter import Admitter
from sparkbroker.broker.app.attaching import Attaching
from sparkbroker.broker.app.authority import Authority
from sparkbroker.broker.app.catalogue import Catalogue
from sparkbroker.broker.app.events import Interest
from sparkbroker.broker.app.forcing import Forcing
from sparkbroker.broker.app.log_readers import LogReaders
from sparkbroker.broker.app.views import LeasePage, LeaseView, ProfileView, QueueView, WatchUpdate
from sparkbroker.broker.app.watching import Watching
from sparkbroker.broker.domain.errors import InvalidField
from sparkbroker.broker.domain.lease.filter import LeaseFilter
from sparkbroker.broker.domain.lease.lease import Lease
from sparkbroker.broker.domain.units import LeaseId, Revision
from sparkbroker.broker.ports.authenticator import Caller
from sparkbroker.broker.ports.provisioner import LogChunk, Provisioner


class Leases:
    """See the module. All methods raise the errors of ``domain.errors``."""

    def __init__(
        self,
        *,
        authority: Authority,
        catalogue: Catalogue,
        admitter: Admitter,
        access: Access,
        acquiring: Acquiring,
        attaching: Attaching,
        forcing: Forcing,
        watching: Watching,
        log_readers: LogReaders,
        provisioners: Mapping[str, Provisioner],
    ) -> None:
        self._authority = authority
        self._catalogue = catalogue
        self._admitter = admitter
        self._watching = watching
        self._provisioners = provisioners
        self._access = access
        self._log_readers = log_readers
        self.acquire = acquiring.acquire
        self.attach = attaching.attach
        self.renew = attaching.renew
        self.renew_all = attaching.renew_all
        self.release = attaching.release
        self.connection = attaching.connection
        self.force_release = forcing.force_release

    async def get(self, caller: Caller, lease_id: LeaseId) -> LeaseView:
        """One lease."""
        await self._authority.complete()
        return await self._access.view(self._access.lease(caller, lease_id))

    async def list(
        self, caller: Caller, selection: LeaseFilter, *, descending: bool, after: tuple[float, str] | None, limit: int
    ) -> LeasePage:
        """A page of the leases that the caller may see, by time of creation."""
        await self._authority.complete()
        found = [
            lease
            for lease in self._authority.leases.values()
            if (caller.operator or lease.principal == caller.principal) and selection.matches(lease)
        ]
        revision = self._authority.commits.revision
        found.sort(key=sort_key, reverse=descending)
        if after is not None:
            found = [lease for lease in found if (sort_key(lease) < after if descending else sort_key(lease) > after)]
        page = found[:limit]
        await self._authority.commits.settle(revision)
        views = [
            LeaseView(lease, self._admitter.progress(lease), self._authority.executors_of(lease)) for lease in page
        ]
        return LeasePage(views, sort_key(page[-1]) if len(found) > limit else None, revision)

    def watch(self, caller: Caller, lease_id: LeaseId, after: Revision) -> AsyncIterator[WatchUpdate]:
        """Follow one lease."""
        return self._watching.one(caller.principal, self._access.lease(caller, lease_id).id, after)

    def watch_all(self, caller: Caller, selection: LeaseFilter, after: Revision) -> AsyncIterator[WatchUpdate]:
        """Follow all that the caller may see and the filter matches."""
        interest = Interest(principal=None if caller.operator else caller.principal, selection=selection)
        return self._watching.all(caller.principal, interest, after)

    async def logs(
        self,
        caller: Caller,
        lease_id: LeaseId,
        *,
        offset: int,
        tail_lines: int,
        follow: bool,
        attempt: int,
        executors: Mapping[str, int] | None = None,
    ) -> AsyncIterator[LogChunk]:
        """The log of the driver of one attempt (0: the newest); ``executors`` not None: also theirs, as in the port.
        Raise TooMany where the caller's principal reads as many as it may."""
        await self._authority.complete()
        lease = self._access.lease(caller, lease_id)
        drivers = [self._authority.drivers[d] for d in self._authority.drivers_of.get(lease.id, ())]
        if attempt:
            drivers = [driver for driver in drivers if driver.attempt == attempt]
            if not drivers:
                raise InvalidField("attempt", f"attempt {attempt} has no driver", f"this lease is at {lease.attempt}")
        if not drivers:
            return
        driver = max(drivers, key=lambda each: each.attempt)
        provisioner = self._provisioners[driver.provisioner]
        chunks = provisioner.logs(
            driver.id, driver.handle, offset=offset, tail_lines=tail_lines, follow=follow, executors=executors
        )
        with self._log_readers.one(caller.principal) as reader:
            async with aclosing(cast("AsyncGenerator[LogChunk, None]", chunks)):
                async for chunk in chunks:
                    yield chunk
                    await reader.told(len(chunk.data))

    def queues(self, caller: Caller) -> Sequence[QueueView]:
        """The queues that the caller may use, by name."""
        self._authority.require_complete()
        ledger = self._authority.ledger
        return [
            QueueView(
                name=queue.name,
                nominal=queue.nominal,
                used=ledger.used(queue.name),
                queued=self._admitter.queue_length(queue.name),
                admitted=ledger.holders(queue.name),
                priority_step=queue.priority_step,
                priorities=queue.priority.of(operator=caller.operator),
                blocking_message=self._admitter.blocking_message(queue.name),
            )
            for queue in sorted(self._catalogue.usable_queues(caller), key=lambda each: each.name)
        ]

    def profiles(self, caller: Caller) -> Sequence[ProfileView]:
        """The profiles that the caller may use, by name."""
        return [
            ProfileView(profile, self._provisioners[profile.provisioner].unusable(profile))
            for _, profile in sorted(self._catalogue.usable_profiles(caller).items())
        ]


def sort_key(lease: Lease) -> tuple[float, str]:
    """The order of ``list``, by which a page is continued."""
    return (lease.timings.queued, lease.id)
