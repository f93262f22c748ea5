"""The values of a statement's markers, as Spark is to take them. No instant passes through the worker's local time.

pyspark reads a ``datetime`` without a zone in the worker's time zone, in which some times come twice and others never. A
classic session takes all dates and times through ``java.sql``'s, whose calendar is another before 1582, and which know no
first of January of the year 1. So they are made literals here.
"""

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

from sparkbroker.airflow_provider.artifacts import is_connect
from sparkbroker.airflow_provider.request import InvalidArgument

_EPOCH: Final = dt.datetime(1970, 1, 1)  # noqa: DTZ001  what has a zone is counted from here by its offset
_MICRO: Final = dt.timedelta(microseconds=1)
_SECOND: Final = 1_000_000
_DAY: Final = 86_400 * _SECOND
_INT: Final = range(-(2**31), 2**31)
_SKIPPED: Final = range(*(dt.date(1582, 10, day).toordinal() - _EPOCH.toordinal() for day in (5, 15)))
"""Days that were left out when the calendar changed. Spark has them; the ``java.sql`` types of a Connect server don't."""


class Literals(Protocol):
    """Makes columns of one session's kind. Microseconds since 1970, days since 1970."""

    def timestamp(self, micros: int) -> Any: ...
    def timestamp_ntz(self, micros: int) -> Any: ...
    def date(self, days: int) -> Any: ...
    def interval(self, micros: int) -> Any: ...


def arguments(spark: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What ``spark.sql`` takes as ``args``.

    A ``datetime`` with a zone is a TIMESTAMP, the instant that it says; one without is a TIMESTAMP_NTZ, which Spark, where
    it has to, reads in the session's time zone. Raise InvalidArgument for one that Spark can't be told.
    """
    literals: Literals = _ConnectLiterals() if is_connect(spark) else _ClassicLiterals(spark)
    return {name: as_literal(value, literals) for name, value in parameters.items()}


def as_literal(value: Any, literals: Literals) -> Any:
    """Dates, times, intervals and lists as columns; all else as it is."""
    match value:
        case dt.datetime():
            offset = value.utcoffset()
            # Of the fields alone: subclasses such as pendulum's have an arithmetic of their own.
            fields = dt.datetime(*value.timetuple()[:6], value.microsecond)  # noqa: DTZ001  as above
            wall = (fields - _EPOCH) // _MICRO
            return literals.timestamp_ntz(wall) if offset is None else literals.timestamp(wall - offset // _MICRO)
        case dt.date():
            return literals.date(value.toordinal() - _EPOCH.toordinal())
        case dt.timedelta():
            return literals.interval((value.days * 86_400 + value.seconds) * _SECOND + value.microseconds)
        case list() if value:
            return _array(value, literals, wide=any(item not in _INT for item in _integers(value)))
        case _:
            return value


def _array(value: list[Any], literals: Literals, *, wide: bool) -> Any:
    """``wide``: its integers are BIGINTs. Spark wants literals of one type here, and casts none."""
    from pyspark.sql import functions as F  # noqa: N812, PLC0415  its usual name; parsing a DAG doesn't load it

    def column(item: Any) -> Any:
        if isinstance(item, list) and item:
            return _array(item, literals, wide=wide)
        if wide and isinstance(item, int):
            return F.expr(f"{int(item)}L")
        literal = as_literal(item, literals)
        return literal if _is_column(literal) else F.lit(literal)

    return F.array(*map(column, value))


def _integers(value: list[Any]) -> Iterator[int]:
    """Those in the list, at any depth."""
    for item in value:
        if isinstance(item, list):
            yield from _integers(item)
        elif isinstance(item, int):
            yield item


def _is_column(value: Any) -> bool:
    from pyspark.sql import Column  # noqa: PLC0415  as above

    return isinstance(value, Column)


class _ConnectLiterals:
    def timestamp(self, micros: int) -> Any:
        if micros // _DAY in range(_SKIPPED.start - 1, _SKIPPED.stop + 1):  # in some time zone
            raise _skipped()
        return self._literal("TimestampType", micros)

    def timestamp_ntz(self, micros: int) -> Any:
        return self._literal("TimestampNTZType", micros)

    def date(self, days: int) -> Any:
        if days in _SKIPPED:
            raise _skipped()
        return self._literal("DateType", days)

    def interval(self, micros: int) -> Any:
        return self._literal("DayTimeIntervalType", micros)

    def _literal(self, kind: str, value: int) -> Any:
        from pyspark.sql import types  # noqa: PLC0415  as above
        from pyspark.sql.connect.column import Column  # noqa: PLC0415  as above
        from pyspark.sql.connect.expressions import LiteralExpression  # noqa: PLC0415  as above

        expression = LiteralExpression(None, getattr(types, kind)())
        expression._value = value  # noqa: SLF001  the number that the protocol has; its own conversions lose some
        return Column(expression)


def _skipped() -> InvalidArgument:
    problem = "a time in the days from 5 to 14 October 1582, which a Connect server would take for another"
    return InvalidArgument("parameters", problem, "give it as text, and cast it in the SQL (CAST(:name AS DATE))")


class _ClassicLiterals:
    def __init__(self, spark: Any) -> None:
        self._time = spark._jvm.java.time  # noqa: SLF001  py4j's view of java.time, whose calendar is Spark's own

    def timestamp(self, micros: int) -> Any:
        return self._literal(self._time.Instant.ofEpochSecond(micros // _SECOND, micros % _SECOND * 1000))

    def timestamp_ntz(self, micros: int) -> Any:
        utc = self._time.ZoneOffset.UTC
        return self._literal(self._time.LocalDateTime.ofEpochSecond(micros // _SECOND, micros % _SECOND * 1000, utc))

    def date(self, days: int) -> Any:
        return self._literal(self._time.LocalDate.ofEpochDay(days))

    def interval(self, micros: int) -> Any:
        return self._literal(self._time.Duration.ofSeconds(micros // _SECOND, micros % _SECOND * 1000))

    def _literal(self, value: Any) -> Any:
        from pyspark.sql import functions as F  # noqa: N812, PLC0415  as above

        return F.lit(value)
