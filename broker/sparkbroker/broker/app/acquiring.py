"""Asking for leases."""

from sparkbroker.broker.app.access import Access, Answers
from sparkbroker.broker.app.admitter import Admitter
from sparkbroker.broker.app.allowance import Allowance
from sparkbroker.broker.app.authority import Authority
from sparkbroker.broker.app.catalogue import Catalogue, Resolved
from sparkbroker.broker.app.ending import Ending
from sparkbroker.broker.app.ids import Ids
from sparkbroker.broker.app.views import Acquired, OnExisting
from sparkbroker.broker.domain.asking.request import SpecRequest, check_key, check_request_id
from sparkbroker.broker.domain.errors import InvalidField, KeyInUse, LeaseEnded
from sparkbroker.broker.domain.lease.event import EventType
from sparkbroker.broker.domain.lease.lease import Lease, LeaseReason, LeaseState, want
from sparkbroker.broker.domain.lease.timings import Timings
from sparkbroker.broker.domain.units import Generation, ServingTime
from sparkbroker.broker.ports.authenticator import Caller
from sparkbroker.broker.ports.clock import Clock
from sparkbroker.broker.ports.metrics import Metrics


class Acquiring:
    """Everything of one request is decided without an await, and so commits together: the replaced lease's end, the
    new lease, and the stored answer."""

    def __init__(
        self,
        *,
        authority: Authority,
        catalogue: Catalogue,
        admitter: Admitter,
        ending: Ending,
        access: Access,
        answers: Answers,
        ids: Ids,
        clock: Clock,
        metrics: Metrics,
        allowance: Allowance,
    ) -> None:
        self._authority = authority
        self._catalogue = catalogue
        self._admitter = admitter
        self._ending = ending
        self._access = access
        self._answers = answers
        self._ids = ids
        self._clock = clock
        self._metrics = metrics
        self._allowance = allowance

    async def acquire(
        self, caller: Caller, *, request_id: str, key: str, on_existing: OnExisting, request: SpecRequest
    ) -> Acquired:
        """Ask for a lease; it is QUEUED, or further, when this returns."""
        await self._authority.complete()
        no_room = await self._authority.commits.room()
        no_room_to_use = await self._authority.commits.room(to_use=True)
        if request_id:
            request_id = check_request_id(request_id)
        if key:
            key = check_key(key)
        asked = f"{on_existing}/{self._catalogue.digest(request)}/{key}"
        replayed = self._answers.find(caller, request_id, "acquire", asked)
        if replayed is not None:
            lease = self._authority.leases.get(replayed.lease_id)
            if lease is None:
                raise LeaseEnded("this request was answered before, and its lease has ended and is no longer kept")
            return await self._acquired(self._wanted(lease), existing=replayed.existing)
        resolved = self._catalogue.resolve(caller, request)
        if resolved.size > self._allowance.spec_bytes:
            self._metrics.limited("spec_bytes")
            raise InvalidField(
                "spec",
                f"takes {resolved.size} bytes with what its profile gives",
                f"it may take {self._allowance.spec_bytes} (leases.max_spec_bytes): put large settings into files",
            )
        existing = self._existing(caller, key)
        if existing is not None and on_existing is not OnExisting.REPLACE:
            if on_existing is OnExisting.FAIL or existing.spec != resolved.spec:
                await self._authority.commits.settle(existing.revision)
                raise _key_in_use(existing, on_existing)
            return await self._reattach(caller, request_id, asked, existing, no_room_to_use)
        if no_room:
            raise self._answers.too_many("disk", no_room)
        self._check_limits(caller, resolved, existing)
        self._answers.check_room(caller, request_id)
        if existing is not None:
            self._ending.end(
                existing, LeaseState.RELEASED, LeaseReason.REPLACED, "its key was acquired again with REPLACE"
            )
        lease = self._insert(caller, key, resolved)
        self._answers.remember(caller, request_id, "acquire", asked, lease)
        return await self._acquired(lease, existing=False)

    async def _reattach(self, caller: Caller, request_id: str, asked: str, existing: Lease, no_room: str) -> Acquired:
        if no_room and request_id:
            raise self._answers.too_many("disk", no_room)
        self._answers.check_room(caller, request_id)
        self._answers.remember(caller, request_id, "acquire", asked, existing, existing=True)
        return await self._acquired(self._wanted(existing), existing=True)

    def _insert(self, caller: Caller, key: str, resolved: Resolved) -> Lease:
        now, wall, spec = self._authority.serving.now(), self._clock.wall(), resolved.spec
        lease = Lease(
            id=self._ids.lease(),
            principal=caller.principal,
            key=key,
            spec=self._authority.specs.share(resolved.spec_id, spec, resolved.size),
            spec_id=resolved.spec_id,
            profile_fingerprint=self._authority.put_profile(resolved.profile, resolved.profile_fingerprint),
            pool=resolved.pool,
            charge=resolved.charge,
            timings=Timings(queued=wall),
            enqueued=now,
            wait_deadline=ServingTime(now + spec.wait_ttl),
            acquire_deadline=None if spec.acquire_timeout is None else ServingTime(now + spec.acquire_timeout),
            renewed_epoch=self._authority.epoch,
        )
        return self._authority.put_lease(lease, (EventType.STATE, Generation(0)))

    def _wanted(self, lease: Lease) -> Lease:
        """Somebody asks for it: it waits for them as long as a new one would."""
        if not lease.live:
            return lease
        now, epoch = self._authority.serving.now(), self._authority.epoch
        return self._authority.touch_lease(want(lease, now, epoch), store=True)

    async def _acquired(self, lease: Lease, *, existing: bool) -> Acquired:
        await self._authority.commits.settle(lease.revision)
        return Acquired(await self._access.view(lease), existing)

    def _existing(self, caller: Caller, key: str) -> Lease | None:
        lease_id = self._authority.keys.get((caller.principal, key)) if key else None
        return self._authority.leases[lease_id] if lease_id is not None else None

    def _check_limits(self, caller: Caller, resolved: Resolved, replaced: Lease | None) -> None:
        live = self._authority.live_of.get(caller.principal, 0)
        if live >= self._allowance.live and replaced is None:
            raise self._answers.too_many(
                "live_leases_per_principal",
                f"{caller.principal} has {live} live leases, the most that are allowed: release some",
            )
        size = self._authority.specs.live_bytes(caller.principal, resolved.spec_id, resolved.size)
        if replaced is not None:
            size -= self._authority.specs.size(replaced.spec_id)
        if size > self._allowance.live_spec_bytes:
            raise self._answers.too_many(
                "live_spec_bytes_per_principal",
                f"the specs of {caller.principal}'s live leases would take {size} bytes with this one, and at most "
                f"{self._allowance.live_spec_bytes} are allowed (leases.max_live_spec_bytes_per_principal): release some, or "
                "ask for smaller or equal ones",
            )
        queue = self._catalogue.queues[resolved.spec.queue]
        waiting = self._admitter.queue_length(queue.name)
        if replaced is not None and replaced.state is LeaseState.QUEUED and replaced.spec.queue == queue.name:
            waiting -= 1
        if waiting >= queue.max_queued:
            raise self._answers.too_many(
                "queued_leases", f"{waiting} leases wait in queue {queue.name}, the most that may: ask again later"
            )


def _key_in_use(lease: Lease, on_existing: OnExisting) -> KeyInUse:
    if on_existing is OnExisting.REATTACH:
        why = "has another spec: ask for the same, or use REPLACE"
    else:
        why = "is live: release it, or use REATTACH or REPLACE"
    return KeyInUse(
        f"lease_key: lease leases/{lease.id} of this key {why}", lease=f"leases/{lease.id}", field="lease_key"
    )
