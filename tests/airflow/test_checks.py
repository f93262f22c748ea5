"""What is wrong with an argument is said when the DAG is parsed; if it is a template, before a lease is asked for.

Every argument of every operator is in the table below, and a new one fails here until it is.
"""

import inspect
from typing import Any

import pytest

from sparkbroker.airflow_provider import checks, request
from sparkbroker.airflow_provider._compat import DAG, START_FROM_TRIGGER, AirflowFailException, XComArg
from sparkbroker.airflow_provider.compat.operators import PySparkOnK8sOperator
from sparkbroker.airflow_provider.decorators.session import SparkSessionDecoratedOperator
from sparkbroker.airflow_provider.hooks.broker import SparkBrokerHook
from sparkbroker.airflow_provider.injection import InvalidFunction, without_injected
from sparkbroker.airflow_provider.operators.base import SparkLeaseOperator
from sparkbroker.airflow_provider.operators.lease import AcquireLeaseOperator, ReleaseLeaseOperator, spark_lease
from sparkbroker.airflow_provider.operators.script import SparkScriptOperator
from sparkbroker.airflow_provider.operators.session import SparkSessionOperator
from sparkbroker.airflow_provider.operators.sql import SparkSqlOperator

SIZES: tuple[Any, ...] = (0, -1, "many", True, 1.5, [1])
MEMORY: tuple[Any, ...] = ("", 2, ["2g"])
LISTS: tuple[Any, ...] = (3, [None], [1], "[1]", {"a": 1})
MAPPINGS: tuple[Any, ...] = (3, "x", "[1]", {1: "a"}, ["a"])
SECONDS: tuple[Any, ...] = (0, -1, "soon", True, float("nan"), [1])
NAMES: tuple[Any, ...] = (1.5, ["a"], True)
BAD: dict[str, tuple[Any, ...]] = {
    "conn_id": (None, "", 3),
    "lease": ("abc", 3, {}, {"lease": 3}),
    "deferrable": ("yes", 1),
    "api": ("connecting", 1),
    "profile": NAMES,
    "lease_queue": NAMES,
    "mode": ("KLIENT", 3),
    "cores": SIZES,
    "memory": MEMORY,
    "memory_overhead": MEMORY,
    "executors": ("x", [1], [4, 1], [1, 2, 3], -1, [1, None]),
    "executor_cores": SIZES,
    "executor_memory": MEMORY,
    "executor_memory_overhead": MEMORY,
    "conf": (*MAPPINGS, {"a": [1]}, {"a": {}}),
    "packages": LISTS,
    "jars": LISTS,
    "py_files": LISTS,
    "files": LISTS,
    "archives": LISTS,
    "pod": (*MAPPINGS, {"a": object()}, {"a": float("nan")}),
    "priority": ("high", 1.5, True),
    "labels": (*MAPPINGS, {"a": None}, {"a": [1]}),
    "lease_key": NAMES,
    "acquire_timeout": SECONDS,
    "max_duration": SECONDS,
    "unattended_ttl": SECONDS,
    "app_name": NAMES,
    "driver_log_level": ("LOUD", 3),
    "on_retry": ("again", 3),
    "python_callable": (None, "x", 3),
    "op_args": ("x", 3, {"a": 1}),
    "op_kwargs": ("x", 3, ["a"], {1: "a"}, {"spark": 1}),
    "templates_dict": ("x", 3, {1: "a"}),
    "templates_exts": (".sql", [None], 3),
    "sql": (None, "", " ; ", [], [None], ["select 1", 3], 3, {"a": "select 1"}),
    "parameters": (3, "x", {":a": 1}, {"": 1}, {"a": [2**63]}, '{"a": [1, 2.5]}', {"a": ["x", None]}, "[1]", '{"a": {}}', {1: "a"}, {"a": {}}, {"a": object()}, {"a": [{}]}),
    "result": ("row", 1, True, ["count"], {}),
    "max_rows": (0, "x", None, 2**31, True),
    "script": (None, "", 3, ["x.py"], "a\0b"),
    "arguments": ("x", 3, [None], [True], [["a"]], ["a\0b"], {"a": 1}),
    "env": (3, "x", ["a"], {"A": None}, {"A": [1]}, {1: "a"}, {"A=B": "x"}, {"": "x"}, {"A": "\0"}, {"SPARK_REMOTE": "x"}),
    "cwd": ("", 3, ["x"]),
    "python": ("", 3, ["x"]),
    "show_return_value_in_logs": ("no", 1),
    "spark_base_conf": ({}, "x"),
    "spark_driver_conf": ({"cores": 1}, "x"),
    "spark_executor_conf": ({"cores": 1}, "x"),
    "spark_extra_conf": ("x", [1]),
}  # fmt: skip
NEVER_GIVEN: dict[Any, tuple[str, ...]] = {
    AcquireLeaseOperator: ("lease",),  # it acquires one
    SparkSessionDecoratedOperator: ("op_args", "op_kwargs"),  # Airflow makes them of a call
}
LITERAL = (
    "deferrable", "api", "python_callable", "templates_exts", "show_return_value_in_logs",
    "spark_base_conf", "spark_driver_conf", "spark_executor_conf", "spark_extra_conf",
)  # fmt: skip
"""What is no template."""


def compute(spark, x=1): ...


def dated(spark, ds): ...


OPERATORS: dict[Any, dict[str, Any]] = {
    SparkSessionOperator: {"python_callable": compute},
    SparkSessionDecoratedOperator: {"python_callable": without_injected(compute)},
    PySparkOnK8sOperator: {"python_callable": compute, "mode": "CONNECT"},
    SparkScriptOperator: {"script": "x.py"},
    SparkSqlOperator: {"sql": "select 1"},
    AcquireLeaseOperator: {},
    ReleaseLeaseOperator: {"lease": "leases/a"},
}


def arguments(operator: type) -> list[str]:
    """Those of its own and of its bases of ours, by their signatures."""
    found: dict[str, None] = {}
    for base in operator.__mro__:
        if base.__module__.startswith("sparkbroker.") and "__init__" in vars(base):
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            found |= {each.name: None for each in parameters if each.kind is each.KEYWORD_ONLY}
    return list(found)


def refused(operator, name, value):
    """The error of a task that is constructed with this argument."""
    with (
        DAG("checked", schedule=None),
        pytest.raises((request.InvalidArgument, InvalidFunction, ValueError, TypeError)) as raised,
    ):
        operator(task_id="t", **OPERATORS[operator] | {name: value})
    return str(raised.value)


def test_the_table_is_complete():
    assert {name for operator in OPERATORS for name in arguments(operator)} == set(BAD)
    read_elsewhere = {"python_callable", *(f"spark_{of}_conf" for of in ("base", "driver", "executor", "extra"))}
    for operator in OPERATORS:
        assert set(arguments(operator)) - read_elsewhere <= set(operator.argument_readers), operator


def bad(operator):
    """Each of its arguments, with each bad value."""
    names = [name for name in arguments(operator) if name not in NEVER_GIVEN.get(operator, ())]
    return [(name, value) for name in names for value in BAD[name]]


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
def test_a_bad_value_is_told_at_parse_by_its_name(airflow_home, operator):
    for name, value in bad(operator):
        said = refused(operator, name, value)
        assert name in said or (name == "python_callable" and ("function" in said or "callable" in said)), (
            f"{name} = {value!r}: {said}"
        )


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
def test_what_becomes_one_is_told_before_a_lease_is_asked_for(airflow_home, operator):
    """Of a template, or an XCom. ``missing`` is no connection: an operator that asks a broker says so instead."""
    for name, value in bad(operator):
        if name in LITERAL:
            continue
        with DAG("rendered", schedule=None) as dag:
            first = SparkSessionOperator(task_id="first", python_callable=compute)
            late: Any = "{{ params.x }}" if name == "conn_id" else XComArg(first)
            task = operator(task_id="t", **OPERATORS[operator] | {"conn_id": "missing", name: late})
        setattr(task, name, value)  # as rendering does
        with pytest.raises(AirflowFailException) as raised:
            task.execute({"dag": dag, "ti": None})
        assert name in str(raised.value), f"{name} = {value!r}: {raised.value}"


@pytest.mark.parametrize("operator", [each for each in OPERATORS if each is not ReleaseLeaseOperator])
def test_what_is_mapped_is_told_at_parse_too(airflow_home, operator: Any):
    if operator is not SparkSessionDecoratedOperator:  # which is mapped over its function's arguments
        with DAG("mapped", schedule=None), pytest.raises(request.InvalidArgument, match="cores: 'many'"):
            operator.partial(task_id="a", **OPERATORS[operator]).expand(cores=[1, "many"])
        with DAG("mapped", schedule=None), pytest.raises(request.InvalidArgument, match="on_retry: 'again'"):
            operator.partial(task_id="b", **OPERATORS[operator]).expand_kwargs([{"cores": 1}, {"on_retry": "again"}])
    with DAG("mapped", schedule=None), pytest.raises(request.InvalidArgument, match="cores: 'many'"):
        operator.partial(task_id="c", cores="many", **OPERATORS[operator])


def test_so_it_is_of_a_lease_for_several_tasks_and_of_a_connection(airflow_home):
    with (
        DAG("shared", schedule=None),
        pytest.raises(request.InvalidArgument, match="cores: 'many'"),
        spark_lease(cores="many"),
    ):
        pass
    with pytest.raises(request.InvalidArgument, match="conn_id: None"):
        SparkBrokerHook(None)  # type: ignore[arg-type]


def test_what_is_not_known_yet_is_no_error(airflow_home):
    with DAG("late", schedule=None):
        first = SparkSessionOperator(task_id="first", python_callable=compute)
        for number, (name, value) in enumerate({
            "sql": ["{{ params.a }}", XComArg(first)], "parameters": {"a": XComArg(first), "b": "{{ ds }}"},
            "result": "{{ params.r }}", "max_rows": "{{ params.n }}", "cores": "{{ 1 }}", "executors": [1, "{{ 2 }}"],
            "labels": {"a": "{{ ds }}", "b": XComArg(first)}, "packages": ["{{ ds }}"], "conf": XComArg(first),
            "lease": XComArg(first), "acquire_timeout": "{{ params.t }}", "pod": {"env": [{"value": XComArg(first)}]},
        }.items()):  # fmt: skip
            SparkSqlOperator(task_id=f"t{number}", **{"sql": "select 1", name: value})


def test_of_a_mapping_that_is_known_in_part_that_part_is_read():
    checks.check_known(request.READERS, {"labels": {"a": "{{ ds }}", "b": 1}})
    with pytest.raises(request.InvalidArgument, match=r"labels\['b'\]: None"):
        checks.check_known(request.READERS, {"labels": {"a": "{{ ds }}", "b": None}})


@pytest.mark.parametrize(
    ("operator", "given", "in_triggerer"),
    [
        (SparkSqlOperator, {"sql": "select '{{ ds }}'"}, True),
        (SparkSqlOperator, {"sql": ["{{ ds }}", "select 1"]}, True),
        (SparkSqlOperator, {"sql": "{{ params.sql }}"}, False),
        (SparkSqlOperator, {"sql": "select 1", "result": "{{ params.r }}"}, False),
        (SparkSqlOperator, {"sql": "select 1", "parameters": {"a": "{{ ds }}"}}, True),
        (SparkSqlOperator, {"sql": "select 1", "parameters": "{{ params.p }}"}, False),
        (SparkSessionOperator, {"python_callable": compute, "op_kwargs": {"x": "{{ ds }}"}}, True),
        (SparkSessionOperator, {"python_callable": compute, "py_files": "{{ params.f }}"}, False),
        (SparkSessionOperator, {"python_callable": dated}, False),  # a run may have none
        (SparkSessionOperator, {"python_callable": dated, "op_args": ["{{ ds }}"]}, True),
        (SparkSessionOperator, {"python_callable": dated, "op_kwargs": {"ds": 1}}, True),
        (SparkSessionOperator, {"python_callable": lambda spark, params, ti, ds="", **context: 1}, True),
    ],
)
def test_a_task_begins_in_the_triggerer_only_if_nothing_can_be_wrong_any_more(
    airflow_home, operator, given, in_triggerer
):
    with DAG("begins", schedule=None):
        task = operator(task_id="t", deferrable=True, **given)
    assert task.start_from_trigger is (START_FROM_TRIGGER and in_triggerer)


def test_a_function_that_cannot_be_called_so_is_told_before_a_lease_is_asked_for(airflow_home):
    def needs(spark, folder): ...

    with DAG("called", schedule=None) as dag:
        task = SparkSessionOperator(task_id="t", python_callable=needs, conn_id="missing", op_args=[])
    with pytest.raises(AirflowFailException, match=r"needs\(folder\): missing a required argument: 'folder'"):
        task.execute({"dag": dag, "ti": None})


def test_an_argument_that_the_function_does_not_have_is_not_dropped(airflow_home):
    said = "op_kwargs: compute has no argument `flder`; it has x"
    with DAG("dropped", schedule=None), pytest.raises(InvalidFunction, match=said):
        SparkSessionOperator(task_id="t", python_callable=compute, op_kwargs={"flder": 1})
    with DAG("dropped", schedule=None), pytest.raises(InvalidFunction, match=said):
        SparkSessionOperator.partial(task_id="t", python_callable=compute, op_kwargs={"flder": 1})


def test_so_it_is_of_one_too_many(airflow_home):
    with (
        DAG("many", schedule=None),
        pytest.raises(InvalidFunction, match=r"compute\(x=1\): too many positional arguments"),
    ):
        SparkSessionOperator(task_id="t", python_callable=compute, op_args=[1, 2])
    with (
        DAG("many", schedule=None),
        pytest.raises(InvalidFunction, match=r"compute\(x=1\): multiple values for argument 'x'"),
    ):
        SparkSessionOperator.partial(task_id="t", python_callable=compute, op_args=[1], op_kwargs={"x": 1})


def test_the_base_class_checks_what_a_subclass_lists(airflow_home):
    class Own(SparkLeaseOperator):
        argument_readers = {**SparkLeaseOperator.argument_readers, "table": checks.text}

        def __init__(self, *, table, **kwargs):
            self.table = table
            super().__init__(**kwargs)

    with DAG("own", schedule=None), pytest.raises(request.InvalidArgument, match="table: 3 is not a name"):
        Own(task_id="t", table=3)
