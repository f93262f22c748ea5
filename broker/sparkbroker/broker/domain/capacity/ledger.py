"""The one place where capacity is taken.

Promises: what is charged without ``force`` never exceeds what is configured, for its queue and for its pool at once;
the sums are exact at every moment. Not promised: that what is charged with ``force``, or grows by ``resize``, fits: it
runs already, and the ledger tells the truth about it. Until it fits again, nothing is admitted.

Every operation is O(1) in the number of charges. A limit lists names and quantities: a *queue* limits only the names
that it lists; a *pool* has only the names that it lists, and nothing of others.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Final

import msgspec

from sparkbroker.broker.domain.capacity.floors import NOTHING, UNLIMITED
from sparkbroker.broker.domain.capacity.resources import CPU, Resources, describe_quantity


class LimitKind(StrEnum):
    """Whose limit: the queue's quota, or the pool's capacity."""

    QUEUE = "QUEUE"
    POOL = "POOL"


class Lacking(msgspec.Struct, frozen=True):
    """The limit that an amount doesn't fit in, and the names of which there is too little; no names: the queue or
    pool is not configured."""

    kind: LimitKind
    name: str
    names: tuple[str, ...]


class Charge(msgspec.Struct, frozen=True, gc=False):
    """What one owner holds."""

    queue: str
    pool: str
    amount: Resources


class _Account:
    """One queue's or pool's limit and use."""

    __slots__ = ("holders", "kind", "known", "left", "limit", "name", "unlisted", "used")

    def __init__(self, kind: LimitKind, name: str) -> None:
        self.kind = kind
        self.name = name
        self.unlisted = NOTHING if kind is LimitKind.POOL else UNLIMITED
        self.known = False
        self.limit: Mapping[str, int] = {}
        self.used: dict[str, int] = {}
        self.left: dict[str, int] = {}
        """The limit less the use, of the names that are limited."""
        self.holders = 0

    def lacking(self, amount: Resources, left: Mapping[str, int]) -> tuple[str, ...]:
        names = []
        for name, asked in amount.quantities.items():
            # Asking nothing of a name always fits, also where more than all of it is in use.
            if asked and asked > left.get(name, self.unlisted):
                names.append(name)
        return tuple(names)

    def add(self, amount: Resources, sign: int) -> None:
        for name, quantity in amount.quantities.items():
            self.used[name] = self.used.get(name, 0) + sign * quantity
            if name in self.left:
                self.left[name] -= sign * quantity
        self.holders += sign

    def configure(self, limit: Resources | None) -> None:
        self.known = limit is not None
        self.limit = {} if limit is None else limit.quantities
        self.left = {name: most - self.used.get(name, 0) for name, most in self.limit.items()}


class Ledger:
    """See the module. Owners are drivers' ids (or, for leases without a driver of ours, the leases')."""

    def __init__(self, queues: Mapping[str, Resources], pools: Mapping[str, Resources]) -> None:
        self._charges: dict[str, Charge] = {}
        self._queues: dict[str, _Account] = {}
        self._pools: dict[str, _Account] = {}
        self._changed: dict[tuple[LimitKind, str], int] = {}
        """Each queue and pool, with the version of its last change; the last one last."""
        self.version = 0
        """Grows with each change that could let something fit, or that was not asked for (force, resize)."""
        self.configuration = 0
        """Grows with every ``reconfigure``."""
        self._on_freed: list[Callable[[], None]] = []
        self.reconfigure(queues, pools)

    def __repr__(self) -> str:
        parts = [f"{len(self._charges)} charged"]
        for name, account in sorted(self._queues.items()):
            shown = (describe_use(n, account.used.get(n, 0), limit, "/") for n, limit in sorted(account.limit.items()))
            parts.append(" ".join((name, *shown)))
        return f"<Ledger [{', '.join(parts)}]>"

    def __len__(self) -> int:
        return len(self._charges)

    def __contains__(self, owner: object) -> bool:
        return owner in self._charges

    def on_freed(self, tell: Callable[[], None]) -> None:
        """Have ``tell`` called whenever capacity may have become free. Others are changed in the same breath: it only takes
        note, and looks at the ledger later."""
        self._on_freed.append(tell)

    def get(self, owner: str) -> Charge | None:
        """What the owner holds."""
        return self._charges.get(owner)

    def charge(self, owner: str, queue: str, pool: str, amount: Resources, *, force: bool = False) -> bool:
        """Take capacity: the only way to do so (promise 1). False, and nothing is changed, if it doesn't fit or the queue or pool is not configured.

        With ``force``, for what runs already, it is always recorded (also over an earlier charge of the same owner).
        Without it, raise ValueError if the owner has a charge: that would be counted twice.
        """
        charge = Charge(queue, pool, amount)
        if force:
            if self._charges.get(owner) == charge:
                return True
            self.release(owner)
        elif owner in self._charges:
            raise ValueError(f"{owner} is charged already; resize or release it")
        elif not self.fits(queue, pool, amount):
            return False
        self._charges[owner] = charge
        accounts = self._open(queue, pool)
        for account in accounts:
            account.add(amount, 1)
        if force:
            self._note(accounts)
        return True

    def resize(self, owner: str, amount: Resources) -> bool:
        """Record what the owner was seen to hold, whether it fits or not. False, and nothing is recorded, only if the
        owner has no charge."""
        charge = self._charges.get(owner)
        if charge is None:
            return False
        if charge.amount == amount:
            return True
        self._charges[owner] = Charge(charge.queue, charge.pool, amount)
        accounts = self._accounts(charge.queue, charge.pool)
        for account in accounts:
            account.add(charge.amount, -1)
            account.add(amount, 1)
        self._note(accounts)
        if not charge.amount.fits(amount):
            self._freed()
        return True

    def release(self, owner: str) -> None:
        """Give back what the owner holds. Idempotent."""
        charge = self._charges.pop(owner, None)
        if charge is None:
            return
        accounts = self._accounts(charge.queue, charge.pool)
        for account in accounts:
            account.add(charge.amount, -1)
        self._note(accounts)
        self._freed()

    def fits(self, queue: str, pool: str, amount: Resources) -> bool:
        """Whether ``charge`` would take it now."""
        return self.lacking(queue, pool, amount) is None

    def lacking(self, queue: str, pool: str, amount: Resources, *, reserved: Resources | None = None) -> Lacking | None:
        """What it doesn't fit in now: the queue's limit before the pool's. None: it fits.

        ``reserved`` is counted as in use in the pool.
        """
        quota, capacity = self._accounts(queue, pool)
        left = capacity.left
        if reserved is not None:
            left = {name: most - reserved[name] for name, most in left.items()}
        return _lacking(queue, quota, quota.left, pool, capacity, left, amount)

    def never_fits(self, queue: str, pool: str, amount: Resources) -> Lacking | None:
        """What it would not fit in even if nothing were in use. None: it can fit some time."""
        quota, capacity = self._accounts(queue, pool)
        return _lacking(queue, quota, quota.limit, pool, capacity, capacity.limit, amount)

    def used(self, queue: str) -> Resources:
        """The sum of the queue's charges."""
        return _sum(self._queues.get(queue))

    def pool_used(self, pool: str) -> Resources:
        """The sum of the pool's charges."""
        return _sum(self._pools.get(pool))

    def limit(self, kind: LimitKind, name: str) -> Resources:
        """What is configured; nothing if it isn't."""
        account = (self._queues if kind is LimitKind.QUEUE else self._pools).get(name)
        return Resources() if account is None else Resources(dict(account.limit))

    def holders(self, queue: str) -> int:
        """How many owners the queue's charges have."""
        account = self._queues.get(queue)
        return 0 if account is None else account.holders

    def pool_holders(self, pool: str) -> int:
        """How many owners the pool's charges have."""
        account = self._pools.get(pool)
        return 0 if account is None else account.holders

    def room(self, kind: LimitKind, name: str) -> Mapping[str, int] | None:
        """What is left of each name that is limited, negative where more is in use; None: it is not configured.

        Of other names a queue leaves as much as is asked, a pool nothing. What is returned changes with every charge, up
        to the next ``reconfigure``.
        """
        account = (self._queues if kind is LimitKind.QUEUE else self._pools).get(name)
        if account is None or not account.known:
            return None
        return account.left

    def changed_since(self, version: int) -> Iterator[tuple[LimitKind, str]]:
        """The queues and pools that a change after this version was in, the last one first."""
        for account, changed in reversed(self._changed.items()):
            if changed <= version:
                return
            yield account

    def reconfigure(self, queues: Mapping[str, Resources], pools: Mapping[str, Resources]) -> None:
        """New limits. Those below what is in use stop admission there until it fits; nothing is taken away."""
        self.configuration += 1
        for accounts, limits, kind in (
            (self._queues, queues, LimitKind.QUEUE),
            (self._pools, pools, LimitKind.POOL),
        ):
            for name in accounts.keys() | limits.keys():
                if name not in accounts:
                    accounts[name] = _Account(kind, name)
                accounts[name].configure(limits.get(name))
        self._note((*self._queues.values(), *self._pools.values()))
        self._freed()

    def check(self) -> None:
        """Raise AssertionError unless every sum is that of the charges."""
        for accounts, of_queue in ((self._queues, True), (self._pools, False)):
            for name, account in accounts.items():
                charges = [c for c in self._charges.values() if (c.queue if of_queue else c.pool) == name]
                expected = Resources()
                for charge in charges:
                    expected += charge.amount
                if _sum(account) != _without_zeros(expected) or account.holders != len(charges):
                    raise AssertionError(f"{name}: {_sum(account)} by {account.holders}, charged are {charges}")
                if account.left != {what: most - expected[what] for what, most in account.limit.items()}:
                    raise AssertionError(f"{name}: {account.left} is left, charged are {charges}")

    def _freed(self) -> None:
        for tell in self._on_freed:
            tell()

    def _note(self, accounts: Iterable[_Account]) -> None:
        """These have changed, at once."""
        self.version += 1
        for account in accounts:
            key = (account.kind, account.name)
            self._changed.pop(key, None)
            self._changed[key] = self.version

    def _accounts(self, queue: str, pool: str) -> tuple[_Account, _Account]:
        return self._queues.get(queue, _NO_QUEUE), self._pools.get(pool, _NO_POOL)

    def _open(self, queue: str, pool: str) -> tuple[_Account, _Account]:
        """The accounts, made if they are not configured: what runs is charged all the same."""
        if queue not in self._queues:
            self._queues[queue] = _Account(LimitKind.QUEUE, queue)
        if pool not in self._pools:
            self._pools[pool] = _Account(LimitKind.POOL, pool)
        return self._accounts(queue, pool)


_NO_QUEUE: Final = _Account(LimitKind.QUEUE, "")
_NO_POOL: Final = _Account(LimitKind.POOL, "")


def _lacking(
    queue: str,
    quota: _Account,
    quota_left: Mapping[str, int],
    pool: str,
    capacity: _Account,
    capacity_left: Mapping[str, int],
    amount: Resources,
) -> Lacking | None:
    if not quota.known or (names := quota.lacking(amount, quota_left)):
        return Lacking(LimitKind.QUEUE, queue, names if quota.known else ())
    if not capacity.known or (names := capacity.lacking(amount, capacity_left)):
        return Lacking(LimitKind.POOL, pool, names if capacity.known else ())
    return None


def _sum(account: _Account | None) -> Resources:
    return Resources() if account is None else _without_zeros(Resources(account.used))


def _without_zeros(amount: Resources) -> Resources:
    return Resources({name: quantity for name, quantity in amount.quantities.items() if quantity})


def describe_use(name: str, used: int, limit: int, joint: str = " of ") -> str:
    """How much of a limit is in use, for people: ``6 of 8 cores``, ``1.5 GiB of 4 GiB of memory``."""
    left = f"{used / 1000:g}" if name == CPU else describe_quantity(name, used).removesuffix(" of memory")
    return f"{left}{joint}{describe_quantity(name, limit)}"
