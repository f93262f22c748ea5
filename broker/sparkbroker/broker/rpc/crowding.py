"""Which connections are closed: pure. ``connections`` finds them, and closes them.

Who holds a lease is never closed for what others do: first go those that nobody has authenticated on, and of these the
oldest of the address that has most. A principal with too many loses its own: first those that have no call under way.
"""

from collections.abc import Iterable, Mapping
from heapq import heapify, heapreplace
from itertools import groupby
from typing import Final, NamedTuple

import msgspec

from sparkbroker.broker.domain.units import Principal
from sparkbroker.broker.ports.metrics import Limit
from sparkbroker.broker.rpc.limits import Limits

NOBODY: Final = Principal("")
RECOVERY: Final = 10.0
"""Calls that a connection may cancel each second, for ever."""


class Connection(msgspec.Struct, kw_only=True):
    """What is known of a TCP connection. Times are seconds of any steady clock."""

    name: str
    """gRPC's name of the peer: one for each connection."""
    address: str
    """The peer's, without its port."""
    since: float
    used: float
    """When it last made a call that wasn't refused; ``since`` before the first."""
    principal: Principal = NOBODY
    """Of its newest authenticated call."""
    calls: int = 0
    """Under way."""
    refused: int = 0
    """Calls without a known token, so far."""
    cancelled: float = 0.0
    """Calls that the peer took back before they were answered, less RECOVERY for each second since ``cancelled_at``."""
    cancelled_at: float = 0.0
    closing: bool = False
    """It is about to be closed: what still comes on it isn't answered."""

    def cancel(self, now: float) -> float:
        """The peer has taken a call back; ``cancelled`` now."""
        since = now - self.cancelled_at
        self.cancelled = max(0.0, self.cancelled - since * RECOVERY) + 1.0
        self.cancelled_at = now
        return self.cancelled


class Surplus(NamedTuple):
    """A connection to close, and the limit that it is beyond."""

    name: str
    limit: Limit


def surplus(connections: Iterable[Connection], limits: Limits, now: float) -> list[Surplus]:
    """All that are to be closed."""
    strangers: list[Connection] = []
    known: list[Connection] = []
    closed: list[Surplus] = []
    for each in connections:
        if each.refused >= limits.refusals_per_connection:
            closed.append(Surplus(each.name, "refusals_per_connection"))
        elif each.principal != NOBODY:
            known.append(each)
        elif not each.calls and now - each.used > limits.unauthenticated_seconds:
            closed.append(Surplus(each.name, "unauthenticated_seconds"))
        else:
            strangers.append(each)
    excess = _of_the_largest(strangers, len(strangers) - limits.unauthenticated_connections)
    closed += [Surplus(each.name, "unauthenticated_connections") for each in excess]
    kept: list[Connection] = []
    for group in _grouped(known, "principal").values():
        ordered = sorted(group, key=_dispensable)
        over = max(0, len(ordered) - limits.connections_per_principal)
        closed += [Surplus(each.name, "connections_per_principal") for each in ordered[:over]]
        kept += ordered[over:]
    idle = sorted((each for each in kept if not each.calls), key=_dispensable)
    over = len(kept) - limits.connections
    return closed + [Surplus(each.name, "connections") for each in idle[: max(0, over)]]


def _dispensable(connection: Connection) -> tuple[bool, float]:
    """Idle ones first, by when they were used; then the newest."""
    return (bool(connection.calls), -connection.since if connection.calls else connection.used)


def _of_the_largest(connections: list[Connection], count: int) -> list[Connection]:
    """``count`` of them: always the oldest of the address that has most left."""
    if count <= 0:
        return []
    groups = _grouped(connections, "address")
    for group in groups.values():
        group.sort(key=lambda each: each.used, reverse=True)
    heap = [(-len(group), address) for address, group in groups.items()]
    heapify(heap)
    taken = []
    for _ in range(count):
        size, address = heap[0]
        taken.append(groups[address].pop())
        heapreplace(heap, (size + 1, address))
    return taken


def _grouped(connections: Iterable[Connection], attribute: str) -> Mapping[str, list[Connection]]:
    def key(connection: Connection) -> str:
        value: str = getattr(connection, attribute)
        return value

    return {name: list(group) for name, group in groupby(sorted(connections, key=key), key)}
