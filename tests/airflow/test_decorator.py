"""``@task.spark_session``: any signature, any way to call it, and XCom in and out."""

import inspect

import pytest

from sparkbroker.airflow_provider import injection
from sparkbroker.airflow_provider._compat import DAG
from sparkbroker.airflow_provider.decorators.session import spark_session_task

DAG_OF_ALL = """
from sparkbroker.airflow_provider.operators.lease import spark_lease

with DAG("calls", schedule=None, params={"word": "rendered"}) as dag:
    with spark_lease(memory="600m") as lease:
        spark_task = task.spark_session(lease=lease)

        @task
        def three(): return 3

        @spark_task
        def first(spark, x, y): return [x, y, spark.range(x).count()]
        @spark_task
        def last(x, y=2, *, ti, spark): return [x, y, ti.task_id, spark.range(x).count()]
        @spark_task
        def hinted(x: int, spark: "SparkSession" = None, y: int = 5) -> "dict[str, int]": return {"a": x, "b": y}
        @spark_task
        def positional_only(spark, x, /, *more, lease, **context): return [x, *more, lease.name, context["ds"] > ""]
        @spark_task
        def mapped(x, spark, y=1): return x * y + spark.range(1).count()
        @task.spark_session(lease=lease, multiple_outputs=True)
        def many(lease): return {"lease": lease.name, "state": lease.state}
        @task
        def add(a, b): return a + b

        first(three(), "{{ params.word }}")
        last(y=7, x=three())
        found = hinted(1)
        add(found["a"], found["b"])
        positional_only(1, 2, 3)
        mapped.partial(y=10).expand(x=[1, 2])
        mapped.override(task_id="mapped_by_dicts").expand_kwargs([{"x": 1}, {"x": 2, "y": 3}])
        many()
"""


@pytest.mark.spark
@pytest.mark.timeout(400)
def test_each_call_computes_with_its_arguments(spark_broker, run_dag):
    run = run_dag(DAG_OF_ALL)
    assert run.state == "success", run.log[-4000:]
    assert run.xcom("first") == [3, "rendered", 3]
    assert run.xcom("last") == [3, 7, "last", 3]
    assert (run.xcom("hinted", "a"), run.xcom("hinted", "b"), run.xcom("add")) == (1, 5, 6)
    name = run.xcom("acquire_spark_lease")
    assert run.xcom("positional_only") == [1, 2, 3, name, True]
    assert [run.xcom("mapped", map_index=index) for index in (0, 1)] == [11, 21]
    assert [run.xcom("mapped_by_dicts", map_index=index) for index in (0, 1)] == [2, 7]
    assert (run.xcom("many", "lease"), run.xcom("many", "state")) == (name, "READY")


def test_a_task_waits_deferred_and_its_outputs_are_unrolled(small_broker, run_dag):
    run = run_dag("""
        with DAG("deferred", schedule=None) as dag:
            @task.spark_session(deferrable=True)
            def f(lease) -> dict[str, str]: return {"name": lease.name}
            f()
    """)
    assert run.state == "success", run.log[-4000:]
    assert run.xcom("f", "name").startswith("leases/")


def decorated(function, **arguments):
    return spark_session_task(function, **arguments)


def test_the_users_function_is_not_changed():
    def load(spark, x): ...

    before = inspect.signature(load), dict(vars(load)), dict(load.__annotations__)
    made = decorated(load)
    assert (inspect.signature(load), dict(vars(load)), dict(load.__annotations__)) == before
    assert list(inspect.signature(made.function).parameters) == ["x"]
    assert made.function("session", 1) is None
    with DAG("d", schedule=None):
        operator = made(x=1).operator
    assert "def load(spark, x)" in operator.get_python_source()


def no_spark(x): ...
def plain(spark, x): ...
def greedy(spark, **more): ...


def test_a_function_without_spark_is_an_error_at_parse():
    with pytest.raises(injection.InvalidFunction, match=r"no_spark: the function has no argument `spark`.*declare it"):
        decorated(no_spark)
    with pytest.raises(injection.InvalidFunction, match="no argument `spark`"):
        spark_session_task(cores=2)(no_spark)


@pytest.mark.parametrize("function", [plain, greedy])
@pytest.mark.parametrize("how", ["call", "expand", "partial", "override"])
def test_an_argument_called_spark_is_an_error_at_parse(function, how):
    made = decorated(function)
    calls = {
        "call": lambda: made(x=1, spark=2),
        "expand": lambda: made.expand(spark=[1, 2]),
        "partial": lambda: made.partial(spark=1).expand(x=[1]),
        "override": lambda: made.override(task_id="other").expand(spark=[1]),
    }
    said = f"{function.__name__}: the argument `spark` is given by the task"
    with DAG("d", schedule=None), pytest.raises(injection.InvalidFunction, match=said):
        calls[how]()


def test_a_call_that_does_not_fit_is_an_error_at_parse():
    with DAG("d", schedule=None), pytest.raises(TypeError, match="missing a required argument: 'x'"):
        decorated(plain)()
    with pytest.raises(TypeError, match="'no function' is no function"):
        spark_session_task("no function")  # type: ignore[arg-type]
