"""Tells the log which calls are refused and which connections closed: each of a few, and of a crowd only how many, so that
nobody can fill it."""

from collections import Counter
from typing import Final

import structlog

FEW: Final = 10
"""Of each reason, in each period."""
PERIOD: Final = 10.0
"""Seconds."""
MOST: Final = 3
"""Peers that are named of a crowd."""
MAX_PEERS: Final = 1000
"""Addresses that are counted apart; the rest is counted together."""
OTHERS: Final = "others"

log = structlog.get_logger()


class Refusals:
    """``note`` each; ``tell`` now and then what ``note`` left out. Times are seconds of any steady clock.

    ``event`` names the log's line for one, with ``_more`` after it the line for many; ``key`` is the field of the reason.
    Reasons are few: the names of codes or of limits.
    """

    def __init__(self, event: str, key: str) -> None:
        self._event = event
        self._more = f"{event}_more"
        self._key = key
        self._began = 0.0
        self._told: Counter[str] = Counter()
        self._untold: Counter[tuple[str, str]] = Counter()

    def note(self, now: float, reason: str, peer: str, **fields: object) -> None:
        """One was refused, or closed."""
        if now - self._began >= PERIOD:
            self.tell(now)
        if self._told[reason] < FEW:
            self._told[reason] += 1
            log.info(self._event, **{self._key: reason}, peer=peer, **fields)
            return
        key = (reason, peer.rpartition(":")[0])
        if key not in self._untold and len(self._untold) >= MAX_PEERS:
            key = (reason, OTHERS)
        self._untold[key] += 1

    def tell(self, now: float) -> None:
        """Sum up, at the earliest a period after the last time."""
        if now - self._began < PERIOD:
            return
        self._began, self._told = now, Counter()
        untold, self._untold = self._untold, Counter()
        for reason in sorted({reason for reason, _ in untold}):
            peers = Counter({peer: count for (each, peer), count in untold.items() if each == reason})
            more = {self._key: reason, "count": peers.total(), "peers": dict(peers.most_common(MOST))}
            log.info(self._more, **more)
