"""Which connections are closed: pure. ``connections`` finds them, and closes them.

A connection on which an authenticated caller has a call under way, as a holder's keepalive is, is never closed for what
comes on other principals' connections. Connections without a caller go first: the oldest of the address that has most.
Beyond its own limit a principal loses connections of its own, those without a call first. Beyond the limit of all
together connections without a call go, whoever's they are: a client opens another when it needs one.

Refused calls close a connection only until a call on it has had a known token. Behind a proxy one connection carries
the calls of many, and a mistyped or withdrawn token among them ends nothing of the others.
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
ARRIVAL: Final = 2.0
"""Seconds that a connection has for its first call before it counts among those without a token, as long as there is room:
all holders come at once when the broker comes back."""
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
    """Calls without a known token, before the first one with one."""
    cancelled: float = 0.0
    """Calls that the peer took back before they were answered, less RECOVERY for each second since ``cancelled_at``."""
    cancelled_at: float = 0.0
    closing: bool = False
    """It is about to be closed: what still comes on it isn't answered."""

    @property
    def known(self) -> bool:
        """Whether an authenticated call has been made on it."""
        return self.principal != NOBODY

    def refuse(self) -> int:
        """A call on it had no known token; ``refused`` now."""
        if not self.known:
            self.refused += 1
        return self.refused

    def authenticate(self, principal: Principal) -> None:
        """A call on it had this principal's token."""
        self.principal = principal
        self.refused = 0

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
        if each.known:
            known.append(each)
        elif each.refused >= limits.refusals_per_connection:
            closed.append(Surplus(each.name, "refusals_per_connection"))
        elif not each.calls and now - each.used > limits.unauthenticated_seconds:
            closed.append(Surplus(each.name, "unauthenticated_seconds"))
        else:
            strangers.append(each)
    crowded = len(strangers) + len(known) > limits.connections // 2
    settled = [each for each in strangers if crowded or now - each.since >= ARRIVAL]
    excess = _of_the_largest(settled, len(settled) - limits.unauthenticated_connections)
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
