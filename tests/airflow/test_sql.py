"""Statements are split where they end; each is run; results are whole or an error."""

import datetime as dt
import decimal
import time
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyspark.sql import types as T  # noqa: N812  its usual name

from sparkbroker.airflow_provider.request import InvalidArgument
from sparkbroker.airflow_provider.sql_arguments import read_most, read_parameters
from sparkbroker.airflow_provider.sql_parameters import as_literal
from sparkbroker.airflow_provider.sql_statements import split_statements
from sparkbroker.airflow_provider.sql_values import instant, plain

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
    "marks": ("\ufeffselect 1\ufefffrom t;\ufeff\ufeffselect '\ufeff';\ufeff", ["select 1 from t", "select '\ufeff'"]),
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


MICROS = 1_730_000_000_123_456
AS_TEXT = "2024-10-27T03:33:20.123456+00:00"
NESTED = T.MapType(T.IntegerType(), T.ArrayType(T.StructType([T.StructField("a", T.TimestampType())])))


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (decimal.Decimal("1.50"), T.DecimalType(3, 2), "1.50"),
        (MICROS, T.TimestampType(), AS_TEXT),
        (MICROS, T.LongType(), MICROS),
        ("2026-07-02 03:00:00.5", T.TimestampNTZType(), "2026-07-02T03:00:00.500000"),
        ("2026-01-02", T.DateType(), "2026-01-02"),
        (dt.time(1, 2), T.TimeType(), "01:02:00"),
        (b"\x01\xff", T.BinaryType(), "01ff"),
        (float("nan"), T.DoubleType(), "nan"),
        ([(1, [T.Row(a=MICROS), None])], NESTED, {"1": [{"a": AS_TEXT}, None]}),
        (True, T.BooleanType(), True),
        (None, T.TimestampType(), None),
    ],
)
def test_values_become_json(value, kind, expected):
    assert plain(value, kind, "c") == expected


TWICE = T.StructType([T.StructField("a", T.IntegerType())] * 2)


@pytest.mark.parametrize(
    ("value", "kind", "what"),
    [
        (object(), T.StringType(), "values of the type object"),
        ([("1", 0), (1, 0)], T.MapType(T.StringType(), T.IntegerType()), "keys that are the same as text"),
        ([([1], 0)], T.MapType(T.ArrayType(T.IntegerType()), T.IntegerType()), "keys of the type array<int>"),
        ((1, 2), TWICE, r"the same name twice \(a, a\)"),
        (253_402_300_800_000_000, T.TimestampType(), "a time outside of the years 1 to 9999"),
        (-62_135_596_800_000_001, T.TimestampType(), "a time outside of the years 1 to 9999"),
        ("+10000-01-01", T.DateType(), "a time outside of the years 1 to 9999"),
        ("0000-01-01 00:00:00", T.TimestampNTZType(), "a time outside of the years 1 to 9999"),
    ],
)
def test_a_value_that_json_can_not_hold_names_its_column(value, kind, what):
    with pytest.raises(InvalidArgument, match=rf"the column 'c' has .*{what}.*CAST"):
        plain(value, kind, "c")


def test_a_list_has_items_of_one_type():
    class Own(dt.datetime): ...

    given = {"a": [Own(2024, 1, 1), dt.datetime(2024, 1, 1)], "b": [], "c": [[1], [2]], "d": [[], []]}  # noqa: DTZ001  it has none
    assert read_parameters(given) == given
    with pytest.raises(
        InvalidArgument, match=r"parameters\['a'\]: a list of NoneType and int, .*; give items of one type"
    ):
        read_parameters({"a": [1, None]})
    one, ten, more = map(decimal.Decimal, ("1", "10", "1.5"))
    mixed: tuple[object, ...] = ([[1], []], [[1], [None]], [[1], ["a"]], [[True], [2]], [one, more], [[one], [ten]])
    for items in mixed:
        with pytest.raises(InvalidArgument, match=r"parameters\['a'\]: a list of .* and .*; give items of one type"):
            read_parameters({"a": items})
    assert read_parameters({"a": [[1], (2,)]}) == {"a": [[1], [2]]}


@given(st.decimals())
@example(decimal.Decimal("1e37"))
@example(decimal.Decimal("1e38"))
@example(decimal.Decimal("1e-38"))
@example(decimal.Decimal("1e-39"))
def test_a_decimal_is_one_of_sparks(value):
    try:
        [read] = read_parameters({"d": value}).values()
    except InvalidArgument as error:
        assert "38 digits" in str(error)  # noqa: PT017  either is right, by the value
        digits = format(value, "f").lstrip("-").replace(".", "").lstrip("0") if value.is_finite() else "9" * 39
        assert len(digits) > 38 or value.as_tuple().exponent < -38
    else:
        assert read is value
        assert abs(value) < decimal.Decimal("1e38")
        assert value.as_tuple().exponent >= -38


EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MICRO = dt.timedelta(microseconds=1)
ZONES = st.timezones() | st.builds(dt.timezone, st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)))


class Numbers:
    """Literals that say what they were given."""

    def timestamp(self, micros):
        return ("timestamp", micros)

    def timestamp_ntz(self, micros):
        return ("timestamp_ntz", micros)

    def date(self, days):
        return ("date", days)

    def interval(self, micros):
        return ("interval", micros)


@pytest.fixture
def zone(monkeypatch):
    """``zone(name)``: from now on, this process's local time is that zone's."""

    def set_zone(name):
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()


@given(
    value=st.datetimes(timezones=ZONES), fold=st.sampled_from([0, 1]), local=st.sampled_from(["Europe/Berlin", "UTC"])
)
@example(value=dt.datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin")), fold=1, local="Europe/Berlin")
@example(value=dt.datetime(1, 1, 1, tzinfo=ZoneInfo("Asia/Tokyo")), fold=0, local="Europe/Berlin")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_an_instant_is_the_same_whatever_the_local_time(zone, value, fold, local):
    zone(local)
    value = value.replace(fold=fold)
    kind, micros = as_literal(value, Numbers())
    offset = value.utcoffset() // MICRO
    assert (kind, micros) == ("timestamp", (value.replace(tzinfo=dt.UTC, fold=0) - EPOCH) // MICRO - offset)
    if dt.MINYEAR < value.year < dt.MAXYEAR:
        assert dt.datetime.fromisoformat(instant(micros)) == value.astimezone(dt.UTC)
    wall = value.replace(tzinfo=None)
    assert as_literal(wall, Numbers()) == ("timestamp_ntz", micros + offset)
    assert as_literal(wall.date(), Numbers()) == ("date", (micros + offset) // (86_400 * 10**6))


@given(st.timedeltas())
def test_an_interval_is_exact(value):
    assert as_literal(value, Numbers()) == ("interval", value // MICRO)


def test_pendulums_and_all_else_are_taken_as_they_are():
    pendulum = pytest.importorskip("pendulum")
    value = pendulum.datetime(2024, 10, 27, 2, 30, tz="Europe/Berlin", fold=1)
    assert as_literal(value, Numbers()) == ("timestamp", 1_729_992_600_000_000)
    others: list[object] = [None, 1, "2024-10-27", [], {"a": 1}, dt.time(1)]
    for other in others:
        assert as_literal(other, Numbers()) is other


@pytest.mark.parametrize("value", [0, 1.9, "many", 2**31 - 1, None])
def test_a_bound_that_is_none(value):
    with pytest.raises(InvalidArgument, match="max_rows"):
        read_most(value)


E, F = "timestamp'2024-10-27 00:30:00'", "timestamp'2024-10-27 01:30:00'"
SHAPES = f"""set time zone 'UTC'; select {E} as e, {F} as f, timestamp_ntz'2024-10-27 01:30:00.5' as n, array({F}, null) as a,
map({E}, 1, {F}, 2) as m, map('k', named_struct('x', {F}, 'X', array(map({F}, {F})))) as deep, cast(null as struct<t: timestamp>) as no,
date'0001-01-01' as d, timestamp'0001-01-01 00:00:00' as lo, timestamp'9999-12-31 23:59:59.999999' as hi, array(interval '1' year) as y,
to_variant_object(named_struct('t', {F})) as v, map(array({F})[0], date'9999-12-31') as md, named_struct('a b`.c', {F}) as odd"""
ISO_E, ISO_F = "2024-10-27T00:30:00+00:00", "2024-10-27T01:30:00+00:00"
SHAPES_ROW = {
    "e": ISO_E, "f": ISO_F, "n": "2024-10-27T01:30:00.500000", "a": [ISO_F, None], "m": {ISO_E: 1, ISO_F: 2},
    "deep": {"k": {"x": ISO_F, "X": [{ISO_F: ISO_F}]}}, "no": None, "d": "0001-01-01", "lo": "0001-01-01T00:00:00+00:00",
    "hi": "9999-12-31T23:59:59.999999+00:00", "y": ["INTERVAL '1' YEAR"], "v": '{"t":"2024-10-27 01:30:00+00:00"}',
    "md": {ISO_F: "9999-12-31"}, "odd": {"a b`.c": ISO_F},
}  # fmt: skip
PARAMETERS = (
    "set time zone 'UTC'; select :aware as aware, :fold as fold, :naive as naive, :lo as lo, :hi as hi, :day as day, :list as list, "
    ":p as p, :wide as wide, cast(:long as string) as long, count_if(t >= :naive) as n from values (timestamp'2024-10-27 02:30:00') as v(t)"
)
PARAMETERS_ROW = {
    "aware": ISO_F, "fold": ISO_F, "naive": "2024-10-27T02:30:00", "lo": "0001-01-01T00:00:00+00:00", "p": ISO_F,
    "hi": "9999-12-31T23:59:59.999999+00:00", "day": "0001-01-01", "list": [ISO_F, ISO_E], "n": 1,
    "wide": [[1], [3_000_000_000, 2]],
    "long": "INTERVAL '106751990 00:00:00.999999' DAY TO SECOND",
}  # fmt: skip

DAG_OF_ALL = """
import datetime as dt
import os
import time
from zoneinfo import ZoneInfo

import pendulum

from sparkbroker.airflow_provider.operators.lease import spark_lease
from sparkbroker.airflow_provider.operators.sql import SparkSqlOperator

class InZone(SparkSqlOperator):
    def __init__(self, *, zone, **more):
        self.zone = zone
        super().__init__(**more)

    def run_with_lease(self, context, lease):
        before = os.environ.get("TZ")
        os.environ["TZ"] = self.zone
        time.tzset()
        try:
            return super().run_with_lease(context, lease)
        finally:
            os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
            time.tzset()

F = dt.datetime(2024, 10, 27, 1, 30, tzinfo=dt.UTC)
PARAMETERS_GIVEN = {
    "aware": F, "fold": dt.datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    "naive": dt.datetime(2024, 10, 27, 2, 30), "lo": dt.datetime(1, 1, 1, tzinfo=dt.UTC),
    "hi": dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=dt.UTC), "day": dt.date(1, 1, 1),
    "list": [F, F - dt.timedelta(hours=1)], "p": pendulum.datetime(2024, 10, 27, 1, 30),
    "long": dt.timedelta(days=106751990, microseconds=999999), "wide": [[1], [3_000_000_000, 2]],
}

with DAG("statements", schedule=None, params={"n": 3}) as dag:
    def in_zones(where, zones, **more):
        for zone in zones:
            more.update(zone=zone, result="rows")
            InZone(task_id=f"shapes_{where}_{zone[:3]}", sql=SHAPES, **more)
            InZone(task_id=f"parameters_{where}_{zone[:3]}", sql=PARAMETERS, parameters=PARAMETERS_GIVEN, **more)

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
        sql("far", "select array(timestamp'+10000-01-01 00:00:00Z') as c", result="rows")
        sql("skipped", "select :day", parameters={"day": dt.date(1582, 10, 10)})
        in_zones("connect", ("Europe/Berlin", "America/St_Johns"), lease=lease)
        sql("none", ["select 1", "select 2"], result=None)
        sql("other_session", "select * from v")
        sql("too_many", "select * from range(10)", result="rows", max_rows=9)
        sql("query_in_the_middle", "select assert_true(id < 2) from range(5); select 1")
        sql("query_at_the_end", "select assert_true(id < 2) from range(5)")
        sql("twice", "select 1 as a, 2 as a", result="rows")
        sql("empty", " -- nothing\\n; {{ '' }}")
        SparkSqlOperator.partial(task_id="mapped", lease=lease).expand(sql=["select 1", "select * from range(4)"])
    in_zones("classic", ("Europe/Berlin",), mode="LOCAL", memory="600m")
"""


@pytest.mark.spark
@pytest.mark.timeout(400)
def test_statements_run_in_a_session_of_the_task(spark_broker, run_dag):
    head = f"SHAPES = {chr(0xFEFF) + SHAPES!r}\nPARAMETERS = {PARAMETERS!r}\n"
    run = run_dag(head + DAG_OF_ALL)
    failed = {name for name, state in run.states.items() if state == "failed"}
    wrong = {"other_session", "too_many", "query_in_the_middle", "query_at_the_end", "twice", "empty"}
    wrong |= {"far", "skipped"}
    assert failed == wrong, run.log[-4000:]
    assert run.states["release_spark_lease"] == "success"
    assert run.xcom("count") == 3
    assert run.xcom("rows") == [{"y": 5, "z": "1.5"}, {"y": 6, "z": "1.5"}]
    assert run.xcom("times") == [{"t": "2024-07-01T12:00:00+00:00", "n": "2024-07-01T12:00:00"}]
    assert (run.xcom("intervals"), run.xcom("intervals_within")) == (2, 1)
    assert run.xcom("interval_rows") == [{"i": "1 months", "y": "INTERVAL '1' YEAR", "d": "2 days, 0:00:00"}]
    for where in ("connect_Eur", "connect_Ame", "classic_Eur"):
        assert run.xcom(f"shapes_{where}") == [SHAPES_ROW]
        assert run.xcom(f"parameters_{where}") == [PARAMETERS_ROW]
    assert "the column 'c' has a time outside of the years 1 to 9999, which XCom can't hold; cast it" in run.log
    assert "parameters: a time in the days from 5 to 14 October 1582" in run.log
    assert run.xcom("none") is None
    assert [run.xcom("mapped", map_index=index) for index in (0, 1)] == [1, 4]
    assert "max_rows: the last statement gives more than 9 rows; add a LIMIT" in run.log
    assert "the same name twice" in run.log
    assert "sql: there is no statement in it" in run.log
