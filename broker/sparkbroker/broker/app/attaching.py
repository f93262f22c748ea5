"""Using leases: attach, renew, release, connect."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Final, TypeVar

import structlog

from sparkbroker.broker.app.access import Access, Answers, ended, fenced
from sparkbroker.broker.app.authority import Authority
from sparkbroker.broker.app.ending import Ending
from sparkbroker.broker.app.ids import Ids
from sparkbroker.broker.app.records import digest
from sparkbroker.broker.app.session_ends import SessionEnds
from sparkbroker.broker.app.shares import EVERYBODY, Shares
from sparkbroker.broker.app.views import Attached, Connection, LeaseView, LocalSession, Renewed
from sparkbroker.broker.domain.asking.local_session import local_conf, local_master
from sparkbroker.broker.domain.asking.request import check_request_id, check_text
from sparkbroker.broker.domain.errors import (
    BrokerError,
    InvalidField,
    LeaseNotReady,
    ProvisionerFailed,
    TooMany,
    Unavailable,
)
from sparkbroker.broker.domain.lease import lease as steps
from sparkbroker.broker.domain.lease.driver import Driver, DriverState
from sparkbroker.broker.domain.lease.event import EventType
from sparkbroker.broker.domain.lease.lease import Attachment, Lease, LeaseMode, LeaseReason, LeaseSharing, LeaseState
from sparkbroker.broker.domain.units import Generation, LeaseId, Revision, Seconds, ServingTime
from sparkbroker.broker.ports.authenticator import Caller
from sparkbroker.broker.ports.clock import Clock
from sparkbroker.broker.ports.provisioner import ClientAccess, ConnectEndpoint, DriverRequest, Provisioner

log = structlog.get_logger(__name__)

SESSIONS_LIMIT: Final = Seconds(15.0)
"""How long a connection is kept back for a former attachment's sessions to end."""
ENDPOINT_LIMIT: Final = Seconds(15.0)
"""How long a provisioner may take to say how to connect."""
ATTACHMENTS: Final = 1000
"""Live attachments that a shared lease may have."""
TEXT: Final = 256
SOON: Final = 1.0

T = TypeVar("T")


class Attaching:
    """One live attachment per exclusive lease; an older generation is refused everywhere (promise 2)."""

    def __init__(
        self,
        *,
        authority: Authority,
        session_ends: SessionEnds,
        ending: Ending,
        access: Access,
        answers: Answers,
        provisioners: Mapping[str, Provisioner],
        ids: Ids,
        clock: Clock,
    ) -> None:
        self._authority = authority
        self._session_ends = session_ends
        self._ending = ending
        self._access = access
        self._answers = answers
        self._provisioners = provisioners
        self._ids = ids
        self._clock = clock
        self._turns = Shares(EVERYBODY, 1)

    async def attach(self, caller: Caller, lease_id: LeaseId, *, request_id: str, holder: str) -> Attached:
        """Become a live user; of an exclusive lease, the only one."""
        await self._authority.complete()
        no_room = await self._authority.commits.room(to_use=True)
        if request_id:
            request_id = check_request_id(request_id)
        holder = check_text("holder", holder, TEXT)
        lease = self._access.own(caller, lease_id)
        asked = digest(lease_id, holder)
        replayed = self._answers.find(caller, request_id, "attach", asked)
        if replayed is not None:
            if (attachment := lease.attachment(replayed.generation)) is None:
                await self._authority.commits.settle(lease.revision)
                raise fenced(lease, replayed.generation)
            # The answer promises a full ttl from when it was sent: so it renews (promise 3).
            await self._authority.commits.settle(self._renew(lease, replayed.generation).revision)
            return Attached(await self._access.view(lease), attachment, lease.spec.ttl)
        if not lease.live:
            await self._authority.commits.settle(lease.revision)
            raise ended(lease)
        if len(lease.attachments) >= ATTACHMENTS:
            raise TooMany(
                f"lease leases/{lease.id} has {ATTACHMENTS} attachments, the most that are allowed: detach some, or ask for another lease"
            )
        if no_room:
            raise self._answers.too_many("disk", no_room)
        self._answers.check_room(caller, request_id)
        superseded = lease.attachments if lease.spec.sharing is LeaseSharing.EXCLUSIVE else ()
        attachment = Attachment(
            id=self._ids.attachment(),
            generation=Generation(lease.generation + 1),
            session_id=self._ids.session(),
            holder=holder,
            attached_at=self._clock.wall(),
            deadline=ServingTime(self._authority.serving.now() + lease.spec.ttl),
            renewed_epoch=self._authority.epoch,
        )
        lease = self._authority.put_lease(
            steps.attach(lease, attachment),
            *((EventType.DETACHED, old.generation) for old in superseded),
            (EventType.ATTACHED, attachment.generation),
        )
        self._ending.end_sessions(lease, superseded)
        self._answers.remember(caller, request_id, "attach", asked, lease, attachment.generation)
        await self._authority.commits.settle(self._authority.commits.revision)
        return Attached(await self._access.view(lease), attachment, lease.spec.ttl)

    async def renew(self, caller: Caller, lease_id: LeaseId, generation: Generation) -> Renewed:
        """One heartbeat. The first under a leadership is stored before it is answered (see ``recover``)."""
        [outcome] = await self.renew_all(caller, [(lease_id, generation)])
        if isinstance(outcome, BrokerError):
            raise outcome
        return outcome

    async def renew_all(
        self, caller: Caller, renewals: Sequence[tuple[LeaseId, Generation]]
    ) -> list[Renewed | BrokerError]:
        """Heartbeats, each with its own outcome: a refusal ends none of the others. It waits once for all that has to be
        stored.

        In one go: send few at a time. One principal's calls are seen to one in each turn of the loop, however many streams
        they come over.
        """
        async with self._turns.place(caller.principal):
            decided = [self._decide(caller, lease_id, generation) for lease_id, generation in renewals]
            await asyncio.sleep(0)
        commits = self._authority.commits
        try:
            await commits.settle(max((revision for _, revision in decided), default=Revision(0)))
        except Unavailable as error:
            return [outcome if revision <= commits.durable else error for outcome, revision in decided]
        return [outcome for outcome, _ in decided]

    def _decide(
        self, caller: Caller, lease_id: LeaseId, generation: Generation
    ) -> tuple[Renewed | BrokerError, Revision]:
        """A heartbeat's outcome, and the revision that has to be durable before it is told."""
        try:
            lease = self._access.own(caller, lease_id)
            if not lease.live:
                return ended(lease), lease.revision
            if generation and lease.attachment(generation) is None:
                return fenced(lease, generation), lease.revision
            lease = self._renew(lease, generation)
        except BrokerError as error:
            return error, Revision(0)
        ttl = lease.spec.ttl if generation else lease.spec.wait_ttl
        return Renewed(lease.state, ttl, lease.notice), lease.revision

    def _renew(self, lease: Lease, generation: Generation) -> Lease:
        attachment = lease.attachment(generation)
        now, epoch = self._authority.serving.now(), self._authority.epoch
        known = (attachment.renewed_epoch if attachment else lease.renewed_epoch) == epoch
        return self._authority.touch_lease(steps.renew(lease, generation, now, epoch), store=not known)

    async def release(self, caller: Caller, lease_id: LeaseId, generation: Generation, message: str) -> LeaseView:
        """Give it back, or detach from it. A lease that has ended stays as it is."""
        await self._authority.complete()
        message = check_text("message", message, TEXT)
        lease = self._access.lease(caller, lease_id)
        if not lease.live:
            return await self._access.view(lease)
        if generation and lease.attachment(generation) is None:
            await self._authority.commits.settle(lease.revision)
            raise fenced(lease, generation)
        if generation and lease.spec.sharing is LeaseSharing.SHARED:
            return await self._access.view(self._ending.detach(lease, (generation,)))
        mine = lease.principal == caller.principal
        reason = LeaseReason.RELEASED_BY_HOLDER if mine else LeaseReason.RELEASED_BY_OPERATOR
        text = message or ("released by its holder" if mine else f"released by {caller.principal}")
        if not mine:
            log.info("lease.released_by_operator", lease=lease_id, holder=lease.principal, operator=caller.principal)
        return await self._access.view(self._ending.end(lease, LeaseState.RELEASED, reason, text))

    async def connection(self, caller: Caller, lease_id: LeaseId, generation: Generation) -> Connection:
        """How to connect. The secret part, and so only for a live attachment."""
        await self._authority.complete()
        lease, attachment = await self._attached(caller, lease_id, generation)
        if lease.spec.mode is LeaseMode.LOCAL:
            profile = self._authority.profiles[lease.profile_fingerprint]
            session = LocalSession(master=local_master(lease.spec), conf=local_conf(lease.spec, profile))
            return Connection(local=session, session_id=attachment.session_id)
        driver = self._driver(lease)
        try:
            async with asyncio.timeout(SESSIONS_LIMIT):
                await self._session_ends.wait(driver.id)
        except TimeoutError:
            raise Unavailable(
                "the former holder's Spark sessions have not ended yet; ask again", retry_after=SOON
            ) from None
        # Others may have attached while this waited.
        lease, attachment = await self._attached(caller, lease_id, generation)
        if lease.spec.mode is LeaseMode.CLIENT:
            access = await self._bounded(self._client_access(lease, self._driver(lease)))
            await self._attached(caller, lease_id, generation)
            return Connection(client=access, session_id=attachment.session_id, python_version=access.python_version)
        endpoint = await self._bounded(self._endpoint(lease, self._driver(lease)))
        await self._attached(caller, lease_id, generation)
        return Connection(
            connect=endpoint,
            session_id=attachment.session_id,
            python_version=endpoint.python_version,
            spark_version=endpoint.spark_version,
        )

    async def _endpoint(self, lease: Lease, driver: Driver) -> ConnectEndpoint:
        profile = self._authority.profiles[lease.profile_fingerprint]
        return await self._provisioners[driver.provisioner].endpoint(driver.id, driver.handle, profile)

    async def _client_access(self, lease: Lease, driver: Driver) -> ClientAccess:
        request = DriverRequest.of(driver, lease, self._authority.profiles[lease.profile_fingerprint])
        return await self._provisioners[driver.provisioner].client_access(request, driver.handle)

    async def _bounded(self, asked: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(ENDPOINT_LIMIT):
                return await asked
        except TimeoutError:
            raise Unavailable("the driver's endpoint could not be read in time; ask again", retry_after=SOON) from None
        except ProvisionerFailed as error:
            if not error.retryable:
                raise
            raise Unavailable(error.message, retry_after=SOON) from error

    async def _attached(self, caller: Caller, lease_id: LeaseId, generation: Generation) -> tuple[Lease, Attachment]:
        """The lease and its live attachment, or why there is none, once what that was read from is committed."""
        lease = self._access.own(caller, lease_id)
        while self._authority.commits.durable < lease.revision:
            await self._authority.commits.settle(lease.revision)
            lease = self._access.own(caller, lease_id)
        if not lease.live:
            raise ended(lease)
        if not generation:
            raise InvalidField("generation", "it is missing", "attach first, and send that attachment's generation")
        attachment = lease.attachment(generation)
        if attachment is None:
            raise fenced(lease, generation)
        if lease.state is not LeaseState.READY:
            raise LeaseNotReady(
                f"lease leases/{lease.id} is {lease.state}: watch it until it is READY", retry_after=SOON
            )
        return lease, attachment

    def _driver(self, lease: Lease) -> Driver:
        driver = self._authority.drivers.get(lease.driver_id) if lease.driver_id else None
        if driver is None or driver.state is not DriverState.READY:
            raise LeaseNotReady(f"lease leases/{lease.id} has no driver that is ready", retry_after=SOON)
        return driver
