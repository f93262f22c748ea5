"""What ops have configured: profiles, queues and capacity, and what becomes of a request under them."""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from sparkbroker.broker.app.records import measured, prove_spec
from sparkbroker.broker.domain.asking import sizing
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.asking.request import SpecRequest, ensure_can_ever_fit, resolve
from sparkbroker.broker.domain.capacity.queue import Queue, check_priority
from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.errors import InvalidField, NotFound
from sparkbroker.broker.domain.lease.lease import LeaseSpec
from sparkbroker.broker.domain.units import SpecId
from sparkbroker.broker.ports.authenticator import Caller

REMEMBERED: Final = 1024
"""Resolved requests that are remembered: the same few are asked for again and again."""
REMEMBERED_BYTES: Final = 16 << 10
"""The largest of them."""


class Resolved(msgspec.Struct, frozen=True):
    """A request that could be granted: its complete spec, its profile, and what it is charged for."""

    spec: LeaseSpec
    profile: Profile
    profile_fingerprint: str
    pool: str
    charge: Resources
    spec_id: SpecId
    size: int
    """See ``records.spec_size``."""


class Catalogue:
    """``<Catalogue [2 profiles, 3 queues]>``. Pure of I/O; fixed for the life of a broker."""

    def __init__(
        self,
        *,
        profiles: Mapping[str, Profile],
        queues: Mapping[str, Queue],
        pools: Mapping[str, Resources],
        default_profile: str,
        default_queue: str,
        show: Callable[[LeaseSpec, Resources], None] = lambda *_: None,
    ) -> None:
        """``show`` raises ValueError for a spec that the transport can't show: such a request is refused."""
        self.profiles = profiles
        self.queues = queues
        self.pools = pools
        self._default_profile = default_profile
        self._default_queue = default_queue
        self._show = show
        self._fingerprints = {name: profile.fingerprint() for name, profile in profiles.items()}
        self._remembered: dict[tuple[str, bool, str], Resolved] = {}
        self._digests: dict[int, tuple[SpecRequest, str]] = {}
        self._large: tuple[SpecRequest, str] | None = None
        """The last that was too large to be remembered: its digest is asked for twice."""

    def __repr__(self) -> str:
        return f"<Catalogue [{len(self.profiles)} profiles, {len(self.queues)} queues]>"

    def usable_queues(self, caller: Caller) -> list[Queue]:
        """Those that the caller may use; an operator, all."""
        return [queue for queue in self.queues.values() if caller.operator or queue.may_use(caller.principal)]

    def usable_profiles(self, caller: Caller) -> dict[str, Profile]:
        """Those that the caller has a queue for, by name. The others are unknown to it, as its queues are."""
        usable = {queue.name for queue in self.usable_queues(caller)}
        return {
            name: profile
            for name, profile in self.profiles.items()
            if not usable.isdisjoint(profile.queues or self.queues)
        }

    def resolve(self, caller: Caller, request: SpecRequest) -> Resolved:
        """Raise InvalidField, NotFound or NeverFits: what is returned fits into an empty queue."""
        key = (caller.principal, caller.operator, self.digest(request))
        remembered = self._remembered.get(key)
        if remembered is None:
            remembered = self._resolve(caller, request)
            if remembered.size > REMEMBERED_BYTES:
                return remembered
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = remembered
        return remembered

    def digest(self, request: SpecRequest) -> str:
        """``records.digest`` of it, remembered for the very same value: ``rpc`` gives the same one for equal bytes."""
        remembered = self._digests.get(id(request))
        if remembered is not None and remembered[0] is request:
            return remembered[1]
        if self._large is not None and self._large[0] is request:
            return self._large[1]
        name, size = measured(request)
        if size > REMEMBERED_BYTES:
            self._large = (request, name)
            return name
        if len(self._digests) >= REMEMBERED:
            self._digests.clear()
        # Holding the request keeps its id from being another's.
        self._digests[id(request)] = (request, name)
        return name

    def _resolve(self, caller: Caller, request: SpecRequest) -> Resolved:
        name = request.profile or self._default_profile
        profiles = self.usable_profiles(caller)
        profile = profiles.get(name)
        if profile is None:
            raise NotFound(
                f"spec.profile: there is no profile {_short(name)} that you may use; you may use {_listed(profiles)}",
                field="spec.profile",
            )
        usable = [queue.name for queue in self.usable_queues(caller)]
        if request.queue and request.queue not in usable:
            raise NotFound(
                f"spec.queue: there is no queue {_short(request.queue)} that you may use; you may use {_listed(usable)}",
                field="spec.queue",
            )
        spec = resolve(request, profile, queues=usable, default_queue=self._default_queue)
        queue = self.queues[spec.queue]
        check_priority(request.priority, profile.defaults.priority, queue, operator=caller.operator)
        charge = sizing.charge(spec, profile)
        pool = profile.pool
        if pool not in self.pools:
            raise InvalidField("spec.profile", f"its pool {pool} has no capacity here", f"configure [capacity.{pool}]")
        ensure_can_ever_fit(spec, charge, queue, self.pools[pool], pool=pool)
        spec_id, size = self._proven(spec, charge)
        return Resolved(spec, profile, self._fingerprints[name], pool, charge, spec_id, size)

    def _proven(self, spec: LeaseSpec, charge: Resources) -> tuple[SpecId, int]:
        """Whatever is accepted can be stored, loaded and shown: tried before anything is done for it."""
        try:
            proven = prove_spec(spec)
            self._show(spec, charge)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            problem = f"can't be stored and shown ({error})"[:300]
            raise InvalidField("spec", problem, "leave out what isn't plain text, numbers, lists and maps") from error
        return proven


def _listed(names: Mapping[str, object] | list[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:20]) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "") or "none"


def _short(name: str) -> str:
    return repr(name if len(name) <= 60 else name[:57] + "…")
