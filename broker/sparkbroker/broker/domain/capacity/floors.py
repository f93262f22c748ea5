"""What leases ask, and bounds from below to it: whether there is room for any of many is told without asking each."""

import math
from collections.abc import Collection, Mapping
from operator import attrgetter, lt
from typing import Final
from weakref import WeakValueDictionary

from sparkbroker.broker.domain.capacity.resources import Resources

Asks = tuple[tuple[str, int], ...]
"""What is asked of each name, without zeros: asking nothing always fits. Sorted, so that equal ones are equal."""

NOTHING: Final = 0
"""What is left of a name that a pool doesn't list."""
UNLIMITED: Final = math.inf
"""What is left of a name that a queue doesn't list."""


class Size:
    """What a lease asks, and of which pool. ``Sizes`` makes equal ones identical: to compare them costs nothing then."""

    __slots__ = ("__weakref__", "amounts", "asks", "names", "pool")

    def __init__(self, pool: str, asks: Asks) -> None:
        self.pool = pool
        self.asks = asks
        self.names = tuple(name for name, _ in asks)
        self.amounts = tuple(asked for _, asked in asks)


class Sizes:
    """The sizes in use."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: WeakValueDictionary[tuple[str, Asks], Size] = WeakValueDictionary()

    def of(self, pool: str, amount: Resources) -> Size:
        asks = tuple(sorted((name, asked) for name, asked in amount.quantities.items() if asked))
        return self._known.setdefault((pool, asks), Size(pool, asks))


class Floor:
    """Name by name, the least that any of those added asks, of the names that all of them ask."""

    __slots__ = ("least",)

    def __init__(self) -> None:
        self.least: dict[str, int] | None = None
        """None: nothing was added."""

    def add(self, asks: Collection[tuple[str, int]]) -> None:
        if self.least is None:
            self.least = dict(asks)
            return
        least, shared = self.least, 0
        for name, asked in asks:
            known = least.get(name)
            if known is not None:
                shared += 1
                if asked < known:
                    least[name] = asked
        if shared < len(least):
            names = {name for name, _ in asks}
            self.least = {name: known for name, known in least.items() if name in names}

    def add_floor(self, other: "Floor") -> None:
        """All that the other one is of."""
        if other.least is not None:
            self.add(other.least.items())

    def add_all(self, sizes: Collection[Size]) -> None:
        """The same, faster where all ask of the same names."""
        names = {size.names for size in sizes}
        if len(names) == 1:
            columns = zip(*(size.amounts for size in sizes), strict=True)
            self.add(tuple(zip(names.pop(), map(min, columns), strict=True)))
        else:
            for size in sizes:
                self.add(size.asks)

    def excludes(self, room: Mapping[str, int], unlisted: float = NOTHING) -> bool:
        """There is no room for any of them."""
        if self.least is None:
            return True
        for name, asked in self.least.items():  # noqa: SIM110 - three times as fast as any()
            if asked > room.get(name, unlisted):
                return True
        return False


class Smallest:
    """Of many sizes those that no other one is smaller than in every name (and perhaps a few more)."""

    __slots__ = ("_asks", "floor")

    def __init__(self, sizes: Collection[Size]) -> None:
        self.floor = Floor()
        self.floor.add_all(sizes)
        self._asks: list[Asks] = []
        last: Size | None = None
        for size in sorted(sizes, key=_NAMES_AND_AMOUNTS):
            if last is None or size.names != last.names or any(map(lt, size.amounts, last.amounts)):
                self._asks.append(size.asks)
                last = size

    def any_fits(self, room: Mapping[str, int]) -> bool:
        return any(fits(asks, room) for asks in self._asks)


_NAMES_AND_AMOUNTS: Final = attrgetter("names", "amounts")


def fits(asks: Asks, room: Mapping[str, int], unlisted: float = NOTHING) -> bool:
    """Whether there is room for it; of names that ``room`` doesn't list there is ``unlisted``."""
    for name, asked in asks:  # noqa: SIM110 - three times as fast as all()
        if asked > room.get(name, unlisted):
            return False
    return True
