"""Quantities of capacity, how people write them, and how much a driver of a given size takes.

Sizes follow Spark's documented rule for containers (``spark.driver.memoryOverhead``,
https://spark.apache.org/docs/latest/configuration.html): overhead = as given, else max(trunc(0.1 * memory), 384 MiB).
"""

import re
from collections.abc import Mapping
from typing import Final, Self

import msgspec

from sparkbroker.broker.domain.errors import InvalidField
from sparkbroker.broker.domain.text import shown

CPU: Final = "cpu"
"""Thousandths of a core."""
MEMORY: Final = "memory"
"""Bytes."""

MIB: Final = 1 << 20
MAX_MEMORY: Final = 1 << 50
MAX_CORES: Final = 100_000
MIN_OVERHEAD_MIB: Final = 384
OVERHEAD_FACTOR: Final = 0.1

_MEMORY: Final = re.compile(r"(?P<number>[0-9]{1,18})(?P<unit>[kmgt]?)(?:(?<=[kmgt])(?:i?b|i))?", re.IGNORECASE)
_UNIT: Final = {"k": 1 << 10, "m": MIB, "": MIB, "g": 1 << 30, "t": 1 << 40}
_MEMORY_EXPECTED: Final = 'write a whole number with k, m, g or t, such as "2g" or "1536m", at most 1024t'
_CPU: Final = re.compile(r"(?P<whole>[0-9]{1,9})(?:\.(?P<part>[0-9]{1,3}))?|(?P<milli>[0-9]{1,12})m")


class Resources(msgspec.Struct, frozen=True, gc=False):
    """An immutable, open map of quantities; a name that is absent is 0. Quantities are never negative."""

    quantities: dict[str, int] = {}

    @classmethod
    def of(cls, *, cores: float = 0, memory: int = 0) -> Self:
        """From whole or fractional cores, and bytes."""
        return cls({CPU: round(cores * 1000), MEMORY: memory})

    def __getitem__(self, name: str) -> int:
        return self.quantities.get(name, 0)

    def __add__(self, other: "Resources") -> "Resources":
        names = self.quantities.keys() | other.quantities.keys()
        return Resources({name: self[name] + other[name] for name in names})

    def __sub__(self, other: "Resources") -> "Resources":
        """Raise ValueError if a quantity would be negative."""
        names = self.quantities.keys() | other.quantities.keys()
        result = {name: self[name] - other[name] for name in names}
        if any(amount < 0 for amount in result.values()):
            raise ValueError(f"{other} does not fit into {self}")
        return Resources(result)

    def __mul__(self, count: int) -> "Resources":
        return Resources({name: amount * count for name, amount in self.quantities.items()})

    def maximum(self, other: "Resources") -> "Resources":
        """Quantity by quantity, the larger."""
        names = self.quantities.keys() | other.quantities.keys()
        return Resources({name: max(self[name], other[name]) for name in names})

    def minimum(self, other: "Resources") -> "Resources":
        """Quantity by quantity, the smaller; of those that the other names."""
        return Resources({name: min(amount, other[name]) for name, amount in self.quantities.items()})

    def lacking(self, free: "Resources") -> tuple[str, ...]:
        """The names of which this asks more than is free, sorted. Empty: it fits."""
        return tuple(sorted(name for name, amount in self.quantities.items() if amount > free[name]))

    def fits(self, free: "Resources") -> bool:
        """Whether no quantity exceeds what is free."""
        return all(amount <= free[name] for name, amount in self.quantities.items())

    def describe(self, name: str) -> str:
        """One quantity for people: ``6 cores``, ``1.5 GiB of memory``."""
        return describe_quantity(name, self[name])

    def __str__(self) -> str:
        return ", ".join(self.describe(name) for name in sorted(self.quantities)) or "nothing"


def describe_quantity(name: str, amount: int) -> str:
    """A quantity for people, exact to three digits."""
    if name == CPU:
        return f"{amount / 1000:g} core{'' if amount == 1000 else 's'}"
    if name == MEMORY:
        return f"{_short_memory(amount)} of memory"
    return f"{amount} {name}"


def _short_memory(amount: int) -> str:
    for size, unit in ((1 << 40, "TiB"), (1 << 30, "GiB"), (MIB, "MiB")):
        if amount >= size:
            return f"{amount / size:.4g} {unit}"
    return f"{amount} B"


def parse_memory(text: str, field: str) -> int:
    """Bytes from Spark's notation (``2g``, ``1536m``, a bare number is MiB; ``Gi`` and ``gb`` are the same as ``g``).

    Raise InvalidField, naming ``field``, unless it is a whole number from 1 MiB to 1024 TiB.
    """
    match = _MEMORY.fullmatch(text.strip())
    if match is None:
        raise InvalidField(field, f"{shown(text)} is not a memory size", _MEMORY_EXPECTED)
    amount = int(match["number"]) * _UNIT[match["unit"].lower()]
    if not MIB <= amount <= MAX_MEMORY:
        raise InvalidField(field, f"{shown(text)} is out of range", "it must be from 1m to 1024t")
    return amount


def parse_cpu(text: str, field: str) -> int:
    """Thousandths of a core from Kubernetes' notation: ``8``, ``0.5``, ``500m``. Raise InvalidField otherwise."""
    match = _CPU.fullmatch(text.strip())
    if match is None:
        raise InvalidField(field, f"{shown(text)} is not a number of cores", 'write it as "8", "0.5" or "500m"')
    milli = match["milli"]
    amount = int(milli) if milli else int(match["whole"]) * 1000 + int((match["part"] or "0").ljust(3, "0"))
    if not 1 <= amount <= MAX_CORES * 1000:
        raise InvalidField(field, f"{shown(text)} is out of range", f"it must be from 1m to {MAX_CORES} cores")
    return amount


def check_cores(cores: int, field: str) -> int:
    """Whole cores, as Spark's task slots. Raise InvalidField unless from 1 to 100000."""
    if not 1 <= cores <= MAX_CORES:
        raise InvalidField(
            field, f"{cores} is not a number of cores", f"it must be a whole number from 1 to {MAX_CORES}"
        )
    return cores


def format_memory(amount: int) -> str:
    """Spark's notation, exact: the largest unit that divides it, from bytes that are whole KiB."""
    for unit, size in (("t", 1 << 40), ("g", 1 << 30), ("m", MIB)):
        if amount % size == 0:
            return f"{amount // size}{unit}"
    return f"{amount >> 10}k"


def overhead(memory: int, factor: float = OVERHEAD_FACTOR, minimum_mib: int = MIN_OVERHEAD_MIB) -> int:
    """Bytes of non-heap memory for a heap of ``memory`` bytes, by Spark's formula, truncated to MiB as Spark does."""
    return max(int(factor * (memory // MIB)), minimum_mib) * MIB


def total(parts: Mapping[str, Resources]) -> Resources:
    """The sum of the values."""
    result = Resources()
    for part in parts.values():
        result += part
    return result
