"""``CPU`` and ``Memory``: amounts that can be written as Kubernetes or as the JVM writes them."""

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar, Final, Self

_NUMBER: Final = r"(?P<value>\d+(?:\.\d*)?|\.\d+)"
_CPU: Final = re.compile(_NUMBER + r"(?P<unit>m?)")


class K8sUnit(IntEnum):
    """Kubernetes' units of memory, in bytes."""

    Ei = 2**60
    Pi = 2**50
    Ti = 2**40
    Gi = 2**30
    Mi = 2**20
    Ki = 2**10
    E = 10**18
    P = 10**15
    T = 10**12
    G = 10**9
    M = 10**6
    k = 10**3


class JvmUnit(IntEnum):
    """The JVM's units of memory, in bytes: powers of two."""

    t = 2**40
    g = 2**30
    m = 2**20
    k = 2**10


@dataclass(frozen=True, order=True)
class CPU:
    """Thousandths of a core."""

    m_cores: int
    __version__: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if isinstance(self.m_cores, bool) or not isinstance(self.m_cores, int):
            raise TypeError(f"m_cores: {self.m_cores!r} is no whole number; give thousandths of a core, such as 1500")
        if self.m_cores <= 0:
            raise ValueError(f"m_cores: {self.m_cores} is out of range; give more than 0")

    def __add__(self, other: "CPU") -> "CPU":
        return CPU(self.m_cores + other.m_cores) if isinstance(other, CPU) else NotImplemented

    def __mul__(self, factor: float) -> "CPU":
        return CPU(int(self.m_cores * factor)) if isinstance(factor, int | float) else NotImplemented

    @classmethod
    def cores(cls, cores: float) -> Self:
        """So many cores; parts are allowed."""
        return cls(int(cores * 1000))

    @classmethod
    def milli_cores(cls, m_cores: int) -> Self:
        """So many thousandths of a core."""
        return cls(m_cores)

    @classmethod
    def from_k8s_spec(cls, quantity: float | str) -> Self:
        """A Kubernetes quantity: "500m", "1.5", 2. Raise ValueError or TypeError."""
        if isinstance(quantity, int | float) and not isinstance(quantity, bool):
            return cls.cores(quantity)
        if not isinstance(quantity, str):
            raise TypeError(f"quantity: {quantity!r} is neither text nor a number; write one such as '500m' or 2")
        match = _CPU.fullmatch(quantity)
        if match is None:
            raise ValueError(f"quantity: {quantity!r} is no amount of CPU; write one such as '500m' or '1.5'")
        value = float(match["value"])
        return cls(int(value) if match["unit"] else int(value * 1000))

    @classmethod
    def from_jvm_spec(cls, quantity: int | str) -> Self:
        """A whole number of cores. Raise ValueError or TypeError."""
        if isinstance(quantity, bool) or not isinstance(quantity, int | str):
            raise TypeError(f"quantity: {quantity!r} is no whole number of cores")
        return cls(int(quantity) * 1000)

    def to_k8s_spec(self) -> str:
        """Such as "1500m"."""
        return f"{self.m_cores}m"

    def to_jvm_spec(self) -> str:
        """Whole cores, rounded down."""
        return str(self.m_cores // 1000)

    def __str__(self) -> str:
        return self.to_k8s_spec()

    def serialize(self) -> dict[str, Any]:
        """For Airflow."""
        return {"m_cores": self.m_cores}

    @staticmethod
    def deserialize(data: dict[str, Any], _version: int) -> "CPU":
        """For Airflow."""
        return CPU(data["m_cores"])


@dataclass(frozen=True, order=True, init=False)
class Memory:
    """Bytes."""

    size_in_bytes: int
    __version__: ClassVar[int] = 1

    def __init__(self, value: float, unit: K8sUnit | JvmUnit | None = None) -> None:
        """So many of the unit (of bytes, without one). Raise ValueError or TypeError."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"value: {value!r} is no number")
        if unit is not None and not isinstance(unit, K8sUnit | JvmUnit):
            raise TypeError(f"unit: {unit!r} is no unit; give one of K8sUnit or JvmUnit, or none for bytes")
        size = int(value * (1 if unit is None else unit.value))
        if size <= 0:
            raise ValueError(f"value: {value} is less than a byte; give more than 0")
        object.__setattr__(self, "size_in_bytes", size)

    def __add__(self, other: "Memory") -> "Memory":
        return Memory(self.size_in_bytes + other.size_in_bytes) if isinstance(other, Memory) else NotImplemented

    def __mul__(self, factor: float) -> "Memory":
        return Memory(self.size_in_bytes * factor) if isinstance(factor, int | float) else NotImplemented

    @classmethod
    def gibibytes(cls, value: float) -> Self:
        """2**30 bytes each."""
        return cls(value, K8sUnit.Gi)

    @classmethod
    def gigabytes(cls, value: float) -> Self:
        """10**9 bytes each."""
        return cls(value, K8sUnit.G)

    @classmethod
    def mebibytes(cls, value: float) -> Self:
        """2**20 bytes each."""
        return cls(value, K8sUnit.Mi)

    @classmethod
    def megabytes(cls, value: float) -> Self:
        """10**6 bytes each."""
        return cls(value, K8sUnit.M)

    @classmethod
    def from_k8s_spec(cls, quantity: str) -> Self:
        """A Kubernetes quantity: "2Gi", "512M", "1073741824". Raise ValueError or TypeError."""
        return cls._read(quantity, K8sUnit, "'2Gi' or '512M'")

    @classmethod
    def from_jvm_spec(cls, quantity: str) -> Self:
        """As Spark and the JVM write it: "2g", "512m". Raise ValueError or TypeError."""
        return cls._read(quantity, JvmUnit, "'2g' or '512m'")

    @classmethod
    def _read(cls, quantity: str, units: type[K8sUnit] | type[JvmUnit], example: str) -> Self:
        if not isinstance(quantity, str):
            raise TypeError(f"quantity: {quantity!r} is not text; write one such as {example}")
        names = "|".join(unit.name for unit in units)
        match = re.fullmatch(rf"{_NUMBER}(?P<unit>{names})?", quantity)
        if match is None:
            raise ValueError(f"quantity: {quantity!r} is no amount of memory; write one such as {example}")
        return cls(float(match["value"]), units[match["unit"]] if match["unit"] else None)

    def to_k8s_spec(self, unit: K8sUnit | None = K8sUnit.Mi) -> str:
        """Such as "512Mi", rounded down; without a unit in bytes."""
        return str(self.size_in_bytes) if unit is None else f"{self.size_in_bytes // unit.value}{unit.name}"

    def to_jvm_spec(self, unit: JvmUnit = JvmUnit.m) -> str:
        """Such as "512m", rounded down."""
        return f"{self.size_in_bytes // unit.value}{unit.name}"

    def __str__(self) -> str:
        return self.to_k8s_spec(unit=None)

    def serialize(self) -> dict[str, Any]:
        """For Airflow."""
        return {"size_in_bytes": self.size_in_bytes}

    @staticmethod
    def deserialize(data: dict[str, Any], _version: int) -> "Memory":
        """For Airflow."""
        return Memory(data["size_in_bytes"])
