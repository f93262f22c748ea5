"""How many bytes of events are kept, and up to which revision they are too many."""

from collections import deque
from collections.abc import Iterable
from typing import Final

from sparkbroker.broker.domain.units import Revision

STRETCH: Final = 1 << 20
"""Bytes of events that are counted as one."""


class EventLog:
    """``<EventLog [12345 bytes]>``. Stretches of revisions, each with its last one and its bytes."""

    def __init__(self) -> None:
        self._stretches: deque[tuple[Revision, int]] = deque()
        self.size = 0

    def __repr__(self) -> str:
        return f"<EventLog [{self.size} bytes]>"

    def add(self, revision: Revision, size: int) -> None:
        """Events up to this revision are written."""
        if self._stretches and self._stretches[-1][1] < STRETCH:
            self._stretches[-1] = (revision, self._stretches[-1][1] + size)
        else:
            self._stretches.append((revision, size))
        self.size += size

    def stored(self, stretches: Iterable[tuple[Revision, int]], before: Revision) -> None:
        """What was there before a revision, when this began to count."""
        earlier = [(revision, size) for revision, size in stretches if revision <= before]
        self._stretches.extendleft(reversed(earlier))
        self.size += sum(size for _, size in earlier)

    def compacted(self, through: Revision) -> None:
        """Events up to this revision are forgotten; a stretch is counted until its last one is."""
        while self._stretches and self._stretches[0][0] <= through:
            self.size -= self._stretches.popleft()[1]

    def excess(self, limit: int) -> Revision | None:
        """The revision up to which to forget; in steps of a tenth, so that a steady load doesn't delete at each sweep."""
        if self.size <= limit:
            return None
        left = self.size - (limit - limit // 10)
        for revision, size in self._stretches:
            left -= size
            if left <= 0:
                return revision
        return None
