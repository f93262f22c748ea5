"""Statements are split where they end; each is run; results are whole or an error."""

import datetime as dt
import decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import types as T  # noqa: N812  its usual name

from sparkbroker.airflow_provider.operators.sql import plain
from sparkbroker.airflow_provider.request import InvalidArgument
from sparkbroker.airflow_provider.sql_arguments import read_most
from sparkbroker.airflow_provider.sql_statements import split_statements

SPLITS = {
    "two": ("select 1; select 2", ["select 1", "select 2"]),
    "quotes": ("select ';', \";\", `a;b`;x", ["select ';', \";\", `a;b`", "x"]),
    "escapes": (r"select 'a\';'; x", [r"select 'a\';'", "x"]),
    "raw": (r"select r'a\'; x", [r"select r'a\'", "x"]),
    "no_raw": (r"select bar'a\';'; x", [r"select bar'a\';'", "x"]),
    "line_comment": ("select 1 -- ; '\n; x", ["select 1 -- ; '", "x"]),
    "nested_comment": ("select /* ; /* ; */ ' */ 1; x", ["select /* ; /* ; */ ' */ 1", "x"]),
    "nothing": (" ; -- only\n ; /* */ ;", []),
    "not_closed": ("select 'a; b", ["select 'a; b"]),
    "case": ("select case when 1 then 2 end; x", ["select case when 1 then 2 end", "x"]),
    "compound": ("begin if a then b; end if; c; end; x", ["begin if a then b; end if; c; end", "x"]),
    "labels": ("l: begin m: begin a; end m; b; end l; x", ["l: begin m: begin a; end m; b; end l", "x"]),
    "compound_case": (
        "begin set a = case b when 1 then 2 end; case c when 1 then d; end case; e; end; x",
        ["begin set a = case b when 1 then 2 end; case c when 1 then d; end case; e; end", "x"],
    ),
    "loops": (
        "begin while a do b; end while; for c as d do e; end for; end; x",
        ["begin while a do b; end while; for c as d do e; end for; end", "x"],
    ),
    "begin_is_a_name": ("select begin from t; x", ["select begin from t", "x"]),
}


@pytest.mark.parametrize(("text", "statements"), SPLITS.values(), ids=SPLITS)
def test_statements_end_at_their_semicolon(text, statements):
    assert split_statements(text) == statements


PIECE = st.sampled_from(
    ["select 1", "';'", '"a;b"', "`;`", "/* ; */", "x -- ;\n", r"'\';'", "r';'", "end", "case", "(", "é"]
)


@given(st.lists(st.lists(PIECE, min_size=1).map(" ".join), max_size=5))
def test_what_is_joined_is_split_again(statements):
    wanted = [s.strip() for s in statements if s.replace("/* ; */", "").strip()]
    assert split_statements(" ;\n".join(statements)) == wanted


@given(st.text(alphabet="ab;'\"`-/* \n\\rR.19:", max_size=60))
def test_nothing_is_lost_but_semicolons_and_comments(text):
    rest = text
    for statement in split_statements(text):
        assert statement in rest
        rest = rest[rest.index(statement) + len(statement) :]


LOCAL = dt.datetime(2026, 7, 2, 3)  # noqa: DTZ001  as Spark gives it
NESTED = T.MapType(T.IntegerType(), T.ArrayType(T.StructType([T.StructField("a", T.TimestampType())])))


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (decimal.Decimal("1.50"), T.DecimalType(3, 2), "1.50"),
        (LOCAL, T.TimestampType(), LOCAL.astimezone(dt.UTC).isoformat()),
        (LOCAL, T.TimestampNTZType(), "2026-07-02T03:00:00"),
        (dt.date(2026, 1, 2), T.DateType(), "2026-01-02"),
        (b"\x01\xff", T.BinaryType(), "01ff"),
        (float("nan"), T.DoubleType(), "nan"),
        ({1: [T.Row(a=LOCAL)]}, NESTED, {"1": [{"a": LOCAL.astimezone(dt.UTC).isoformat()}]}),
        (True, T.BooleanType(), True),
        (None, T.TimestampType(), None),
    ],
)
def test_values_become_json(value, kind, expected):
    assert plain(value, kind, "c") == expected


@pytest.mark.parametrize(
    ("value", "kind"), [(object(), T.StringType()), ({"1": 0, 1: 0}, T.MapType(T.StringType(), T.IntegerType()))]
)
def test_a_value_that_json_can_not_hold_names_its_column(value, kind):
    with pytest.raises(InvalidArgument, match=rf"the column 'c' has values of the type {type(value).__name__}.*CAST"):
        plain(value, kind, "c")


@pytest.mark.parametrize("value", [0, 1.9, "many", 2**31 - 1, None])
def test_a_bound_that_is_none(value):
    with pytest.raises(InvalidArgument, match="max_rows"):
        read_most(value)


DAG_OF_ALL = """
from sparkbroker.airflow_provider.operators.lease import spark_lease
from sparkbroker.airflow_provider.operators.sql import SparkSqlOperator

with DAG("statements", schedule=None, params={"n": 3}) as dag:
    with spark_lease(memory="600m") as lease:
        def sql(task_id, sql, **more):
            return SparkSqlOperator(task_id=task_id, sql=sql, lease=lease, **more)

        sql("count", "create temporary view v as select * from range({{ params.n }}); select id, id from v")
        sql("rows", "select :x + id as y, 1.5 as z from range(2)", parameters='{"x": 5}', result="rows")
        times = "select timestamp'2024-07-01 12:00:00Z' as t, timestamp_ntz'2024-07-01 12:00:00' as n"
        sql("times", times, result="rows")
        intervals = "select make_interval(0, 1) as i, interval '1' year as y, interval '2' day as d from range(2)"
        sql("intervals", intervals)
        sql("intervals_within", "select array(make_interval(0, 1)) as i, map('a', interval '1' year) as y")
        sql("interval_rows", intervals + " limit 1", result="rows")
        sql("interval_rows_within", "select array(interval '1' year) as y", result="rows")
        sql("none", ["select 1", "select 2"], result=None)
        sql("other_session", "select * from v")
        sql("too_many", "select * from range(10)", result="rows", max_rows=9)
        sql("query_in_the_middle", "select assert_true(id < 2) from range(5); select 1")
        sql("query_at_the_end", "select assert_true(id < 2) from range(5)")
        sql("twice", "select 1 as a, 2 as a", result="rows")
        sql("empty", " -- nothing\\n; {{ '' }}")
        SparkSqlOperator.partial(task_id="mapped", lease=lease).expand(sql=["select 1", "select * from range(4)"])
"""


@pytest.mark.spark
@pytest.mark.timeout(400)
def test_statements_run_in_a_session_of_the_task(spark_broker, run_dag):
    run = run_dag(DAG_OF_ALL)
    failed = {name for name, state in run.states.items() if state == "failed"}
    wrong = {"other_session", "too_many", "query_in_the_middle", "query_at_the_end", "twice", "empty"}
    wrong.add("interval_rows_within")
    assert failed == wrong, run.log[-4000:]
    assert run.states["release_spark_lease"] == "success"
    assert run.xcom("count") == 3
    assert run.xcom("rows") == [{"y": 5, "z": "1.5"}, {"y": 6, "z": "1.5"}]
    assert run.xcom("times") == [{"t": "2024-07-01T12:00:00+00:00", "n": "2024-07-01T12:00:00"}]
    assert (run.xcom("intervals"), run.xcom("intervals_within")) == (2, 1)
    assert run.xcom("interval_rows") == [{"i": "1 months", "y": "INTERVAL '1' YEAR", "d": "2 days, 0:00:00"}]
    assert "the column 'y' has intervals within other values, which XCom can't hold; cast it" in run.log
    assert run.xcom("none") is None
    assert [run.xcom("mapped", map_index=index) for index in (0, 1)] == [1, 4]
    assert "max_rows: the last statement gives more than 9 rows; add a LIMIT" in run.log
    assert "the same name twice" in run.log
    assert "sql: there is no statement in it" in run.log
