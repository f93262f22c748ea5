"""Tells the log who is refused: each of a few, and of a crowd only how many, so that nobody can fill it."""

from collections import Counter
from typing import Final

import structlog

FEW: Final = 10
"""In each period."""
PERIOD: Final = 10.0
"""Seconds."""
MOST: Final = 3
"""Peers that are named of a crowd."""
MAX_PEERS: Final = 1000
"""Addresses that are counted apart; the rest is counted together."""
OTHERS: Final = "others"

log = structlog.get_logger()


class Refusals:
    """``note`` each; ``tell`` now and then what ``note`` left out. Times are seconds of any steady clock."""

    def __init__(self) -> None:
        self._began = 0.0
        self._told = 0
        self._untold: Counter[tuple[str, str]] = Counter()

    def note(self, now: float, *, rpc: str, code: str, message: str, peer: str) -> None:
        if now - self._began >= PERIOD:
            self.tell(now)
        if self._told < FEW:
            self._told += 1
            log.info("rpc.refused", rpc=rpc, code=code, message=message, peer=peer)
            return
        key = (code, peer.rpartition(":")[0])
        if key not in self._untold and len(self._untold) >= MAX_PEERS:
            key = (code, OTHERS)
        self._untold[key] += 1

    def tell(self, now: float) -> None:
        """Sum up, at the earliest a period after the last time."""
        if now - self._began < PERIOD:
            return
        self._began, self._told = now, 0
        untold, self._untold = self._untold, Counter()
        for code in sorted({code for code, _ in untold}):
            of_code = Counter({peer: count for (each, peer), count in untold.items() if each == code})
            log.info("rpc.refused_more", code=code, count=of_code.total(), peers=dict(of_code.most_common(MOST)))
