"""The sentences that say why a lease waits, with the numbers: to act on at three in the morning."""

from collections.abc import Mapping
from typing import Final

from sparkbroker.broker.domain.admission.contention import Contention, passes
from sparkbroker.broker.domain.admission.line import Entry, Line
from sparkbroker.broker.domain.capacity.ledger import Lacking, Ledger, LimitKind, describe_use
from sparkbroker.broker.domain.capacity.resources import Resources, describe_quantity, total
from sparkbroker.broker.domain.lease.lease import LeaseReason

INVENTORY = "the broker has not yet seen all that runs since its start"


_REASON: Final = {LimitKind.QUEUE: LeaseReason.QUEUE_QUOTA, LimitKind.POOL: LeaseReason.CAPACITY}


def why(
    line: Line, entry: Entry, before: int, ledger: Ledger, pools: Mapping[str, Contention]
) -> tuple[LeaseReason, str]:
    """The reason and its sentence, as of the last look at every line."""
    waiting = entry.waiting
    name = line.queue.name
    ahead = behind(before, name) if before else ""
    never = ledger.never_fits(name, waiting.pool, waiting.amount)
    if never is not None:
        return _REASON[never.kind], too_large(never, waiting.amount, ledger)
    lacking = ledger.lacking(name, waiting.pool, waiting.amount)
    if lacking is not None:
        message = in_use(lacking, waiting.amount, ledger)
        return _REASON[lacking.kind], f"{message}; {ahead}" if ahead else message
    if kept := _kept_for_another(line, entry, ledger, pools):
        return LeaseReason.RESERVED_FOR_ANOTHER, f"{kept}; {ahead}" if ahead else kept
    if before:
        return LeaseReason.BEHIND_OTHERS, ahead
    return LeaseReason.UNSPECIFIED, f"it is the next of queue `{name}`, and what it asks is free"


def _kept_for_another(line: Line, entry: Entry, ledger: Ledger, pools: Mapping[str, Contention]) -> str:
    """For whom capacity is kept that this lease, which fits, could else have. Empty: for nobody."""
    head = line.head
    if head is not None and head.reservation is not None and head.place < entry.place:
        return _kept(LimitKind.QUEUE, line.queue.name, head, line, pools)
    pool = pools.get(entry.pool)
    older = [] if pool is None else list(pool.kept_before(entry, line))
    amounts = total({str(number): kept.waiting.amount for number, (kept, _) in enumerate(older)})
    if older and ledger.lacking(line.queue.name, entry.pool, entry.waiting.amount, reserved=amounts) is not None:
        return _kept(LimitKind.POOL, entry.pool, *older[0], pools)
    return ""


def behind(before: int, queue: str) -> str:
    """As ``2 leases stand before it in queue `etl```."""
    return f"{before} lease{' stands' if before == 1 else 's stand'} before it in queue `{queue}`"


def _kept(limit: LimitKind, name: str, entry: Entry, line: Line, pools: Mapping[str, Contention]) -> str:
    """As ``pool `local` keeps 8 cores for a lease of queue `etl` that 16 others have passed``. Names no lease: it may
    be somebody else's."""
    asked, queue = Resources(dict(entry.asks)), line.queue.name
    return f"{_named(limit, name)} keeps {asked} for a lease of queue `{queue}` that {passes(line, entry, pools)} others have passed"


def in_use(lacking: Lacking, amount: Resources, ledger: Ledger) -> str:
    """As ``queue `etl` has 6 of 8 cores in use by 3 leases; this asks 4 cores``."""
    of_queue = lacking.kind is LimitKind.QUEUE
    used = ledger.used(lacking.name) if of_queue else ledger.pool_used(lacking.name)
    holders = ledger.holders(lacking.name) if of_queue else ledger.pool_holders(lacking.name)
    limit = ledger.limit(lacking.kind, lacking.name)
    parts = " and ".join(describe_use(name, used[name], limit[name]) for name in lacking.names)
    by = f"{holders} lease{'' if holders == 1 else 's'}"
    return f"{_named(lacking.kind, lacking.name)} has {parts} in use by {by}; this asks {_some(amount, lacking)}"


def too_large(lacking: Lacking, amount: Resources, ledger: Ledger) -> str:
    """As ``queue `etl` has 8 cores in all; this asks 64 cores: release it and ask for less``."""
    where = _named(lacking.kind, lacking.name)
    if not lacking.names:
        return f"{where} is no longer configured: release it and ask again with another queue or profile"
    has = _some(ledger.limit(lacking.kind, lacking.name), lacking)
    return f"{where} has {has} in all; this asks {_some(amount, lacking)}: release it and ask for less"


def _named(limit: LimitKind, name: str) -> str:
    return f"{'queue' if limit is LimitKind.QUEUE else 'pool'} `{name}`"


def _some(amount: Resources, lacking: Lacking) -> str:
    return " and ".join(describe_quantity(name, amount[name]) for name in lacking.names)
