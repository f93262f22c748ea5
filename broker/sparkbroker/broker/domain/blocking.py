"""The sentences that say why a lease waits, with the numbers: to act on at three in the morning."""

from sparkbroker.broker.domain.ledger import Lacking, Ledger, LimitKind, describe_use
from sparkbroker.broker.domain.resources import Resources, describe_quantity

INVENTORY = "the broker has not yet seen all that runs since its start"


def behind(before: int, queue: str) -> str:
    """As ``2 leases stand before it in queue `etl```."""
    return f"{before} lease{' stands' if before == 1 else 's stand'} before it in queue `{queue}`"


def kept(limit: LimitKind, name: str, amount: Resources, queue: str, passes: int) -> str:
    """As ``pool `local` keeps 8 cores for a lease of queue `etl` that 16 others have passed``. Names no lease: it may
    be somebody else's."""
    asked = Resources({what: quantity for what, quantity in amount.quantities.items() if quantity})
    return f"{_named(limit, name)} keeps {asked} for a lease of queue `{queue}` that {passes} others have passed"


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
