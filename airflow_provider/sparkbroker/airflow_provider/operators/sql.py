"""SQL statements on the task's lease."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

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
from sparkbroker.airflow_provider.sql_parameters import arguments
from sparkbroker.airflow_provider.sql_values import brought, plain

if TYPE_CHECKING:
    from sparkbroker.client import Lease


class SparkSqlOperator(SparkLeaseOperator):
    """Runs one or more statements, in order, in one Spark session; the first that fails fails the task.

    ``sql`` is text, a path that ends in ``.sql`` (as Airflow looks for templates), or a list of them; each may hold several
    statements. ``parameters`` are for the statements' named markers (``:name``); a ``datetime`` without a time zone is a
    TIMESTAMP_NTZ, never a time of the worker's. Every statement is run to its end, queries
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

        from sparkbroker.airflow_provider.failures import LeaseRefused  # noqa: PLC0415  as above

        environment = self.get_template_env()
        if environment.loader is None:
            return True
        try:
            environment.loader.get_source(environment, name)
        except (TemplateNotFound, LeaseRefused):
            return True  # which the worker tells
        return False

    def run_with_lease(self, context: Any, lease: "Lease") -> int | list[dict[str, Any]] | None:
        """Run the statements; see the class for the result."""
        statements = read_statements(self.sql)
        output, most = read_result(self.result), read_most(self.max_rows)
        parameters = read_parameters(self.parameters)
        with self.session(context, lease) as spark:
            for place, statement in enumerate(statements, 1):
                self.log.info("Statement %d of %d:\n%s", place, len(statements), statement)
                args = arguments(spark, parameters) if parameters else None
                frame = spark.sql(statement, args=args) if args else spark.sql(statement)
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
    writable = _select(frame, _as_text)
    counted = writable.observe(observation, F.count(F.lit(1)).alias("rows"))
    counted.write.format("noop").mode("overwrite").save()
    return int(observation.get["rows"])


def _as_text(column: Any, kind: Any) -> Any:
    return column.cast("string") if "interval" in kind.simpleString() else column


def _select(frame: Any, change: Callable[[Any, Any], Any]) -> Any:
    """The frame with columns c0, c1, … (a query may give two columns one name), changed by their types."""
    from pyspark.sql import functions as F  # noqa: N812, PLC0415  as above

    kinds = [field.dataType for field in frame.schema.fields]
    if not kinds:
        return frame
    names = [f"c{place}" for place in range(len(kinds))]
    named = frame.toDF(*names)
    return named.select(*(change(F.col(name), kind).alias(name) for name, kind in zip(names, kinds, strict=True)))


def rows(frame: Any, most: int) -> list[dict[str, Any]]:
    """The rows as JSON; raise InvalidArgument for more than ``most``, or for values that JSON can't hold."""
    names, kinds = frame.columns, [field.dataType for field in frame.schema.fields]
    if len(set(names)) < len(names):
        raise InvalidArgument("sql", f"the columns {names} have the same name twice", "name them apart (AS)")
    found = _select(frame, brought).limit(most + 1).collect()
    if len(found) > most:
        problem = f"the last statement gives more than {most} rows"
        raise InvalidArgument("max_rows", problem, "add a LIMIT, write them to a table, or allow more")
    return [
        {name: plain(value, kind, name) for name, kind, value in zip(names, kinds, row, strict=True)} for row in found
    ]
