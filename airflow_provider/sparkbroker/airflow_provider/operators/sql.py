"""SQL statements on the task's lease."""

import datetime as dt
import decimal
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from sparkbroker.airflow_provider import checks
from sparkbroker.airflow_provider.operators.base import SparkLeaseOperator
from sparkbroker.airflow_provider.request import InvalidArgument
from sparkbroker.airflow_provider.sql_arguments import (
    are_sure,
    read_most,
    read_parameters,
    read_result,
    read_statements,
)

if TYPE_CHECKING:
    from sparkbroker.client import Lease

_UNREAD: Final = ("CalendarIntervalType", "YearMonthIntervalType")
"""Types of intervals whose values pyspark can't bring here, but as text."""


class SparkSqlOperator(SparkLeaseOperator):
    """Runs one or more statements, in order, in one Spark session; the first that fails fails the task.

    ``sql`` is text, a path that ends in ``.sql`` (as Airflow looks for templates), or a list of them; each may hold several
    statements. ``parameters`` are for the statements' named markers (``:name``). Every statement is run to its end, queries
    too. What the last one gives becomes the XCom: ``result="count"`` the number of its rows, ``"rows"`` the rows as
    dictionaries (JSON: decimals, times and intervals as text, TIMESTAMP in UTC, bytes as hex), None nothing. More than ``max_rows`` rows are an error and
    not a part of them.
    """

    template_fields: Sequence[str] = ("sql", "parameters", "result", "max_rows", *SparkLeaseOperator.template_fields)
    template_ext: Sequence[str] = (".sql",)
    file_fields = ("sql",)
    runs_python = False
    argument_readers: ClassVar[checks.Readers] = {
        **SparkLeaseOperator.argument_readers,
        "sql": read_statements,
        "parameters": read_parameters,
        "result": read_result,
        "max_rows": read_most,
    }
    late_arguments = (*SparkLeaseOperator.late_arguments, "parameters", "result", "max_rows")
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **SparkLeaseOperator.template_fields_renderers,
        "sql": "sql",
        "parameters": "json",
    }

    def __init__(
        self,
        *,
        sql: str | Sequence[str],
        parameters: Mapping[str, Any] | str | None = None,
        result: Literal["count", "rows"] | None = "count",
        max_rows: int | str = 1000,
        **kwargs: Any,
    ) -> None:
        self.sql = sql
        self.parameters = parameters
        self.result = result
        self.max_rows = max_rows
        super().__init__(**kwargs)  # last: see AskingOperator.files_are_here

    def files_are_here(self) -> bool:
        """See AskingOperator. What Airflow has found is the file's text by now."""
        items = self.sql if isinstance(self.sql, list | tuple) else [self.sql]
        names = [item for item in items if isinstance(item, str) and item.endswith(tuple(self.template_ext))]
        return super().files_are_here() and not any(self._is_missing(name) for name in names)

    def _begins_in_a_worker(self) -> bool:
        return super()._begins_in_a_worker() or not are_sure(self.sql)

    def _is_missing(self, name: str) -> bool:
        from jinja2 import TemplateNotFound  # noqa: PLC0415  only where there are files

        environment = self.get_template_env()
        if environment.loader is None:
            return True
        try:
            environment.loader.get_source(environment, name)
        except TemplateNotFound:
            return True
        return False

    def run_with_lease(self, context: Any, lease: "Lease") -> int | list[dict[str, Any]] | None:
        """Run the statements; see the class for the result."""
        statements = read_statements(self.sql)
        output, most = read_result(self.result), read_most(self.max_rows)
        parameters = read_parameters(self.parameters)
        with self.session(context, lease) as spark:
            for place, statement in enumerate(statements, 1):
                self.log.info("Statement %d of %d:\n%s", place, len(statements), statement)
                frame = spark.sql(statement, args=parameters) if parameters else spark.sql(statement)
                if place < len(statements):
                    count_rows(frame)
            if output == "rows":
                return rows(frame, most)
            count = count_rows(frame)
            self.log.info("Its rows: %d", count)
            return count if output == "count" else None


def count_rows(frame: Any) -> int:
    """Compute all of the frame and bring none of it here. ``frame.count()`` would leave out columns, and their errors."""
    if not frame.columns:  # what a statement such as CREATE TABLE gives
        return 0
    from pyspark.sql import Observation  # noqa: PLC0415  parsing a DAG doesn't load it
    from pyspark.sql import functions as F  # noqa: N812, PLC0415  its usual name

    observation = Observation()
    # Spark writes INTERVAL nowhere, not even to nowhere; its text takes computing it as well.
    writable = _with_texts(frame, lambda kind: "interval" in kind.simpleString())
    counted = writable.observe(observation, F.count(F.lit(1)).alias("rows"))
    counted.write.format("noop").mode("overwrite").save()
    return int(observation.get["rows"])


def _with_texts(frame: Any, as_text: Callable[[Any], bool]) -> Any:
    """The frame with columns c0, c1, … (a query may give two columns one name), those of some types as text."""
    from pyspark.sql import functions as F  # noqa: N812, PLC0415  as above

    kinds = [field.dataType for field in frame.schema.fields]
    if not kinds:
        return frame
    named = frame.toDF(*(f"c{place}" for place in range(len(kinds))))
    columns = [(F.col(f"c{place}"), kind) for place, kind in enumerate(kinds)]
    return named.select(*(column.cast("string") if as_text(kind) else column for column, kind in columns))


def rows(frame: Any, most: int) -> list[dict[str, Any]]:
    """The rows as JSON; raise InvalidArgument for more than ``most``, or for values that JSON can't hold."""
    names = frame.columns
    if len(set(names)) < len(names):
        raise InvalidArgument("sql", f"the columns {names} have the same name twice", "name them apart (AS)")
    for field in frame.schema.fields:
        if _holds_unread(field.dataType) and type(field.dataType).__name__ not in _UNREAD:
            raise _unheld(field.name, "intervals within other values")
    frame = _with_texts(frame, lambda kind: type(kind).__name__ in _UNREAD)
    found = frame.limit(most + 1).collect()
    if len(found) > most:
        problem = f"the last statement gives more than {most} rows"
        raise InvalidArgument("max_rows", problem, "add a LIMIT, write them to a table, or allow more")
    kinds = [field.dataType for field in frame.schema.fields]
    return [
        {name: plain(value, kind, name) for name, kind, value in zip(names, kinds, row, strict=True)} for row in found
    ]


def plain(value: Any, kind: Any, column: str) -> Any:
    """A value of Spark's as JSON has it, by its type. Raise InvalidArgument, naming the column.

    A TIMESTAMP is an instant, which Spark gives as the worker's local time: it is written in UTC, with the offset.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float() if math.isfinite(value):
            return value
        case float() | decimal.Decimal() | dt.timedelta():
            return str(value)
        case dt.datetime() if kind.typeName() == "timestamp":
            return value.astimezone(dt.UTC).isoformat()
        case dt.date() | dt.time():
            return value.isoformat()
        case bytes() | bytearray():
            return value.hex()
        case _:
            return _plain_nested(value, kind, column)


def _plain_nested(value: Any, kind: Any, column: str) -> Any:
    match kind.typeName():
        case "variant":
            return value.toJson()
        case "map":
            plain_items = {
                str(plain(key, kind.keyType, column)): plain(item, kind.valueType, column)
                for key, item in value.items()
            }
            if len(plain_items) == len(value):
                return plain_items
        case "struct":
            pairs = zip(kind.fields, value, strict=True)
            return {field.name: plain(item, field.dataType, column) for field, item in pairs}
        case "array":
            return [plain(item, kind.elementType, column) for item in value]
    raise _unheld(column, f"values of the type {type(value).__name__}")


def _holds_unread(kind: Any) -> bool:
    return any(name in repr(kind) for name in _UNREAD)


def _unheld(column: str, what: str) -> InvalidArgument:
    problem = f"the column {column!r} has {what}, which XCom can't hold"
    return InvalidArgument("result", problem, "cast it in the SQL (CAST(… AS STRING))")
