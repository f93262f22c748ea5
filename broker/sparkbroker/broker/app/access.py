"""Which lease a caller means, the refusals that several use cases share, and the answers that are stored."""

from typing import Final, Literal

from sparkbroker.broker.app.admitter import Admitter
from sparkbroker.broker.app.allowance import Allowance
from sparkbroker.broker.app.answered import fingerprint
from sparkbroker.broker.app.authority import Authority
from sparkbroker.broker.app.records import RequestResult
from sparkbroker.broker.app.views import LeaseView
from sparkbroker.broker.domain.errors import (
    Forbidden,
    InvalidField,
    LeaseEnded,
    NotFound,
    RequestIdReused,
    StaleGeneration,
    TooMany,
)
from sparkbroker.broker.domain.lease.lease import Lease, LeaseSharing, LeaseState
from sparkbroker.broker.domain.units import Generation, LeaseId, Seconds
from sparkbroker.broker.ports.authenticator import Caller
from sparkbroker.broker.ports.clock import Clock
from sparkbroker.broker.ports.metrics import Limit, Metrics

BUSY: Final = 5.0
"""Seconds after which a caller that met a limit may try again."""
SWEEP: Final = 2.0
"""Seconds within which what is over is forgotten (``app.janitor``)."""


class Access:
    """Reading one lease for a caller. A foreign lease is NotFound to a user; an operator sees all, and uses none of them."""

    def __init__(self, authority: Authority, admitter: Admitter) -> None:
        self._authority = authority
        self._admitter = admitter

    def lease(self, caller: Caller, lease_id: LeaseId) -> Lease:
        lease = self._authority.lease(lease_id)
        if lease is None or not (caller.operator or lease.principal == caller.principal):
            raise NotFound(
                f"there is no lease leases/{lease_id}: it never existed, is someone else's, or ended so long ago that "
                "it is no longer kept",
                resource=f"leases/{lease_id}",
            )
        return lease

    def own(self, caller: Caller, lease_id: LeaseId) -> Lease:
        """A lease of the caller's own, to use it. Raise NotFound, and Forbidden to an operator, who sees that it is there."""
        lease = self.lease(caller, lease_id)
        if lease.principal != caller.principal:
            raise Forbidden(
                f"lease leases/{lease_id} is {lease.principal}'s: an operator may see and release it, and not attach to "
                "it, renew it or get its connection"
            )
        return lease

    async def view(self, lease: Lease) -> LeaseView:
        """A lease as it is now, once that is committed."""
        lease = self._authority.leases.get(lease.id, lease)
        await self._authority.commits.settle(lease.revision)
        progress = self._admitter.progress(lease) if lease.state is LeaseState.QUEUED else None
        return LeaseView(lease, progress, self._authority.executors_of(lease))


class Answers:
    """The stored result of each (principal, request_id): a repetition gets the first answer (promise 8)."""

    def __init__(
        self, authority: Authority, clock: Clock, metrics: Metrics, allowance: Allowance, request_age: Seconds
    ) -> None:
        self._authority = authority
        self._clock = clock
        self._metrics = metrics
        self._allowance = allowance
        self._request_age = request_age

    def find(self, caller: Caller, request_id: str, kind: str, asked: str) -> RequestResult | None:
        """The first answer, if there was one (promise 8). Raise RequestIdReused if it was to another request."""
        if not request_id:
            return None
        result = self._authority.requests.find(caller.principal, request_id)
        if result is not None and (result.kind != kind or result.fingerprint != fingerprint(asked)):
            raise RequestIdReused(
                f"request_id: {request_id} was used before for a different request; make a new UUID for each request",
                field="request_id",
            )
        return result

    def too_many(self, limit: Limit, message: str) -> TooMany:
        """The refusal of a caller that met a limit, counted."""
        self._metrics.limited(limit)
        return TooMany(message, retry_after=BUSY)

    def check_room(self, caller: Caller, request_id: str) -> None:
        """Raise TooMany, before anything is done, if the answer couldn't be remembered for as long as is promised."""
        requests = self._authority.requests
        if not request_id or requests.count(caller.principal) < self._allowance.requests:
            return
        oldest = requests.oldest(caller.principal) or 0.0
        wait = max(0.0, oldest + self._request_age - self._authority.serving.now()) + SWEEP
        self._metrics.limited("requests_per_principal")
        raise TooMany(
            f"{caller.principal} has reached the limit of {self._allowance.requests} remembered requests "
            f"(store.requests_per_principal): try again in {wait:.0f} s",
            retry_after=wait,
            limit=str(self._allowance.requests),
        )

    def remember(
        self,
        caller: Caller,
        request_id: str,
        kind: Literal["acquire", "attach"],
        asked: str,
        lease: Lease,
        generation: int = 0,
        *,
        existing: bool = False,
    ) -> None:
        """Store the answer in the transaction of what it tells (promise 8)."""
        if request_id:
            result = RequestResult(
                kind=kind,
                fingerprint=asked,
                lease_id=lease.id,
                generation=Generation(generation),
                created=self._clock.wall(),
                existing=existing,
                served=self._authority.serving.now(),
            )
            self._authority.put_request(caller.principal, request_id, result)


def fenced(lease: Lease, generation: Generation) -> StaleGeneration | LeaseEnded | InvalidField:
    """Why this generation of a lease can't be used."""
    if not lease.live:
        return ended(lease)
    if generation > lease.generation:
        return InvalidField(
            "generation",
            f"leases/{lease.id} has no generation {generation}; its newest is {lease.generation}",
            "attach, and use the generation that is returned",
        )
    if lease.spec.sharing is LeaseSharing.EXCLUSIVE and generation < lease.generation:
        newest = lease.attachment(lease.generation)
        who = f" ({newest.holder})" if newest is not None and newest.holder else ""
        cause, why = "SUPERSEDED", f"generation {lease.generation}{who} has superseded it: the lease is theirs now"
    else:
        cause, why = "ENDED", "it was detached, or its heartbeat ran out: attach again if you still need it"
    return StaleGeneration(
        f"generation {generation} of lease leases/{lease.id} is over: {why}",
        lease=f"leases/{lease.id}",
        generation=str(lease.generation),
        cause=cause,
    )


def ended(lease: Lease) -> LeaseEnded:
    """The lease is RELEASING or terminal, and why."""
    outcome = lease.outcome or lease.state
    return LeaseEnded(
        f"lease leases/{lease.id} is {lease.state} ({lease.reason}): {lease.full_message}",
        lease=f"leases/{lease.id}",
        state=str(lease.state),
        outcome=str(outcome),
        lease_reason=str(lease.reason),
    )
