"""What SparkSqlOperator is told, read: statements, parameters, and which result. Pure; each raises InvalidArgument."""

import datetime as dt
import decimal
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from sparkbroker.airflow_provider.request import InvalidArgument, mapping, shown, whole
from sparkbroker.airflow_provider.sql_statements import split_statements

_RESULTS: Final = ("count", "rows", None)
_MOST_ROWS: Final = 2**31 - 1
"""More than Spark's LIMIT can ask for."""
_BIGINT: Final = range(-(2**63), 2**63)
_MOST_DIGITS: Final = 38
"""Of Spark's DECIMAL (org.apache.spark.sql.types.DecimalType.MAX_PRECISION)."""
_LATE: Final = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_LITERALS: Final = (
    bool, int, float, str, bytes, bytearray, decimal.Decimal, dt.datetime, dt.date, dt.time, dt.timedelta,
)  # fmt: skip


def read_statements(value: Any, name: str = "sql") -> list[str]:
    """The statements of a text, or of a list of them; at least one."""
    found = [statement for text in _texts(value, name) for statement in split_statements(text)]
    if not found:
        raise InvalidArgument(name, "there is no statement in it", "give at least one")
    return found


def are_sure(value: Any) -> bool:
    """Whether there will be a statement, and nothing but text, whatever the templates in it will be."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        return False
    return any(split_statements(_LATE.sub(" ", text)) for text in texts)


def read_parameters(value: Any, name: str = "parameters") -> dict[str, Any]:
    """Values by the names of their markers; text is JSON of them."""
    found = mapping(value, name)
    for key in found:
        if not key or key.startswith(":"):
            raise InvalidArgument(
                name, f"{key!r} is not a marker's name", "give it without the colon that it has in the SQL"
            )
    return {key: _literal(item, f"{name}[{key!r}]") for key, item in found.items()}


def read_result(value: Any, name: str = "result") -> str | None:
    """Which result is wanted; empty text and "None" are what a template makes of None."""
    output = None if isinstance(value, str) and value in ("", "None") else value
    if not isinstance(output, str | None) or output not in _RESULTS:
        raise InvalidArgument(name, f"{shown(value)} is unknown", "give 'count', 'rows' or None")
    return output


def read_most(value: Any, name: str = "max_rows") -> int:
    """How many rows."""
    most = whole(value, name)
    if most is None or most >= _MOST_ROWS:
        raise InvalidArgument(name, f"{shown(value)} is out of range", f"give a number from 1 to {_MOST_ROWS - 1}")
    return most


def _texts(value: Any, name: str) -> Iterator[str]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, Sequence) or isinstance(items, bytes):
        raise InvalidArgument(name, f"{shown(value)} is not text", "give a str, or a list of them")
    for place, text in enumerate(items):
        if not isinstance(text, str):
            raise InvalidArgument(f"{name}[{place}]", f"{shown(text)} is not text", "give a str")
        yield text


def _kind(value: Any) -> str:
    """Its type's name, or that of the type it is a kind of: pendulum's DateTime is a datetime. A list's and a Decimal's say what
    Spark's type does: an array's items are of one."""
    if isinstance(value, list | tuple):
        kinds = sorted({_kind(item) for item in value})
        return f"list of {' and '.join(kinds)}" if kinds else "empty list"
    if isinstance(value, decimal.Decimal):
        return "Decimal({}, {})".format(*_precision(value))
    return next((kind.__name__ for kind in _LITERALS if isinstance(value, kind)), type(value).__name__)


def _precision(value: decimal.Decimal) -> tuple[int, int]:
    """The digits of the DECIMAL that Spark makes of it, before and after the point together, and those after it."""
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):  # neither a number nor infinite
        return _MOST_DIGITS + 1, 0
    return max(len(digits) + max(exponent, 0), -exponent), max(0, -exponent)


def _literal(value: Any, name: str) -> Any:
    """What Spark takes as a literal, or a Column of its own."""
    if isinstance(value, list | tuple):
        kinds = sorted({_kind(item) for item in value})
        if len(kinds) > 1:
            problem = f"a list of {' and '.join(kinds)}, which Spark takes no array of"
            expected = "give items of one type (Decimals of the same digits, no empty list beside others, no None), or text to cast"
            raise InvalidArgument(name, problem, expected)
        return [_literal(item, f"{name}[{place}]") for place, item in enumerate(value)]
    if isinstance(value, decimal.Decimal) and _precision(value)[0] > _MOST_DIGITS:
        problem = f"{shown(value)} is not a DECIMAL of Spark's, which has at most {_MOST_DIGITS} digits"
        raise InvalidArgument(name, problem, "round it, or give text to cast")
    if isinstance(value, int) and value not in _BIGINT:
        raise InvalidArgument(name, f"{shown(value)} is more than a BIGINT holds", "give a Decimal, or text to cast")
    if (
        value is None
        or isinstance(value, _LITERALS)
        or type(value).__module__.partition(".")[0] in ("numpy", "pyspark")
    ):
        return value
    expected = "give text, a number, a bool, a date or time, None, or a list of them"
    raise InvalidArgument(name, f"{shown(value)} is not a value of SQL's", expected)
