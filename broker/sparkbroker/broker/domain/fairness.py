"""A bound that many share: who has most gives way first."""

from collections.abc import Iterable


def fair_share(held: Iterable[int], limit: int) -> int | None:
    """The largest share such that what all hold, each cut to the share, is at most ``limit``. None: nothing is cut.

    Whoever holds no more than the share gives nothing; nobody's share is less than ``limit`` by the number of holders.
    """
    ascending = sorted(held)
    left = limit
    for index, amount in enumerate(ascending):
        share = max(left, 0) // (len(ascending) - index)
        if amount > share:
            return share
        left -= amount
    return None
