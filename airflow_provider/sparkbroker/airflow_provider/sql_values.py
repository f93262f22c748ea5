"""Values of Spark's, brought here and made JSON. No instant passes through the worker's local time.

pyspark makes a TIMESTAMP a ``datetime`` of the worker's time zone without its offset: two instants of the hour at which
summer time ends are one, and the ends of the calendar overflow. So such values aren't left to it: Spark itself makes a
number or text of them first, at any depth.
"""

import datetime as dt
import decimal
import math
from collections.abc import Callable
from typing import Any, Final

from sparkbroker.airflow_provider.request import InvalidArgument

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_AS_TEXT: Final = ("DateType", "TimestampNTZType", "CalendarIntervalType", "YearMonthIntervalType")
"""Types that are brought as text: the intervals since pyspark can't bring them at all."""


def brought(column: Any, kind: Any) -> Any:
    """The column in a form that pyspark leaves as it is, and ``plain`` reads."""
    from pyspark.sql import functions as F  # noqa: N812, PLC0415  its usual name; parsing a DAG doesn't load it

    if not _is_changed(kind):
        return column
    match type(kind).__name__:
        case "TimestampType":
            return F.unix_micros(column)
        case "ArrayType":
            return F.transform(column, lambda item: brought(item, kind.elementType))
        case "MapType":  # as its entries: a key needn't be one that Python can hash
            return F.transform(
                F.map_entries(column),
                lambda entry: F.struct(
                    brought(entry.getField("key"), kind.keyType).alias("key"),
                    brought(entry.getField("value"), kind.valueType).alias("value"),
                ),
            )
        case "StructType":
            return F.when(column.isNotNull(), F.struct(*_fields(column, kind)))
        case _:
            return column.cast("string")


def _fields(column: Any, kind: Any) -> list[Any]:
    """Under names of ours: for Spark ``a`` and ``A`` are the same."""
    from pyspark.sql import types as T  # noqa: N812, PLC0415  as above

    names = [f"f{place}" for place in range(len(kind.fields))]
    pairs = list(zip(names, kind.fields, strict=True))
    named = column.cast(T.StructType([T.StructField(name, field.dataType) for name, field in pairs]))
    return [brought(named.getField(name), field.dataType).alias(name) for name, field in pairs]


def _is_changed(kind: Any) -> bool:
    match type(kind).__name__:
        case "TimestampType" | "MapType":
            return True
        case "ArrayType":
            return _is_changed(kind.elementType)
        case "StructType":
            return any(_is_changed(field.dataType) for field in kind.fields)
        case name:
            return name in _AS_TEXT


def plain(value: Any, kind: Any, column: str) -> Any:
    """A value that was ``brought``, as JSON has it, by its type. Raise InvalidArgument, naming the column.

    A TIMESTAMP is an instant: it is written in UTC, with the offset.
    """
    if value is None:
        return None
    if read := _READ.get(type(kind).__name__):
        try:
            return read(value)
        except (ValueError, OverflowError) as error:
            raise _unheld(column, "a time outside of the years 1 to 9999") from error
    match value:
        case bool() | int() | str():
            return value
        case float() if math.isfinite(value):
            return value
        case float() | decimal.Decimal() | dt.timedelta():
            return str(value)
        case dt.time():
            return value.isoformat()
        case bytes() | bytearray():
            return value.hex()
        case _:
            return _plain_nested(value, kind, column)


def instant(micros: int) -> str:
    """Microseconds since 1970 as text in UTC. OverflowError outside of the years 1 to 9999."""
    return (_EPOCH + dt.timedelta(microseconds=micros)).isoformat()


_READ: Final[dict[str, Callable[[Any], str]]] = {
    "TimestampType": instant,
    "TimestampNTZType": lambda text: dt.datetime.fromisoformat(text).isoformat(),
    "DateType": lambda text: dt.date.fromisoformat(text).isoformat(),
    "VariantType": lambda value: str(value.toJson()),
}


def _plain_nested(value: Any, kind: Any, column: str) -> Any:
    match type(kind).__name__:
        case "MapType":
            return _plain_map(value, kind, column)
        case "StructType":
            names = [field.name for field in kind.fields]
            if len(set(names)) < len(names):
                raise _unheld(column, f"a struct with the same name twice ({', '.join(names)})")
            pairs = zip(kind.fields, value, strict=True)
            return {field.name: plain(item, field.dataType, column) for field, item in pairs}
        case "ArrayType":
            return [plain(item, kind.elementType, column) for item in value]
    raise _unheld(column, f"values of the type {type(value).__name__}")


def _plain_map(entries: Any, kind: Any, column: str) -> dict[str, Any]:
    found = {}
    for key, item in entries:
        name = plain(key, kind.keyType, column)
        if isinstance(name, dict | list):
            raise _unheld(column, f"keys of the type {kind.keyType.simpleString()}")
        found[str(name)] = plain(item, kind.valueType, column)
    if len(found) < len(entries):
        raise _unheld(column, "a map with keys that are the same as text")
    return found


def _unheld(column: str, what: str) -> InvalidArgument:
    problem = f"the column {column!r} has {what}, which XCom can't hold"
    return InvalidArgument("result", problem, "cast it in the SQL (CAST(… AS STRING))")
