"""A lease for several tasks: acquired by a setup, attached to by each, released by a teardown whatever becomes of them."""

import pytest

SHARED = """
from sparkbroker.airflow_provider.operators.lease import spark_lease

with DAG("shared", schedule=None) as dag:
    with spark_lease("etl", deferrable={deferrable}, labels={{"team": "x"}}) as lease:
        @task.spark_session(lease=lease)
        def one(lease): return [lease.name, lease.generation]
        @task.spark_session(lease=lease)
        def two(lease):
            if {fails}: raise ValueError("on purpose")
            return [lease.name, lease.generation]
        one() >> two()
    @task(trigger_rule="all_done")
    def after(): return "after"
    dag.get_task("release_etl") >> after()
"""


@pytest.mark.parametrize("deferrable", [False, True])
def test_the_tasks_attach_to_one_lease_which_outlives_them(small_broker, run_dag, deferrable):
    run = run_dag(SHARED.format(deferrable=deferrable, fails=False))
    assert run.state == "success", run.log[-4000:]
    name = run.xcom("acquire_etl")
    assert run.xcom("one") == [name, 1]
    assert run.xcom("two") == [name, 2]
    lease = small_broker.client.get(name)
    assert dict(lease.spec.labels)["team"] == "x"
    assert "its tasks are done" in lease.message


def test_the_teardown_runs_when_a_task_has_failed(small_broker, run_dag):
    run = run_dag(SHARED.format(deferrable=False, fails=True))
    assert run.states == {
        "acquire_etl": "success",
        "one": "success",
        "two": "failed",
        "release_etl": "success",
        "after": "success",
    }
    small_broker.until_free(20)


def test_a_lease_that_could_not_be_acquired_is_none_to_release(small_broker, run_dag):
    run = run_dag("""
        from sparkbroker.airflow_provider.operators.lease import ReleaseLeaseOperator, spark_lease
        with DAG("none", schedule=None) as dag:
            with spark_lease(cores=1000) as lease:
                @task.spark_session(lease=lease)
                def one(lease): ...
                one()
            ReleaseLeaseOperator(task_id="gone", lease="leases/0000000000000000000000000000")
            ReleaseLeaseOperator(task_id="wrong", lease="{{ 'nonsense' }}")
    """)
    assert run.states["acquire_spark_lease"] == "failed"
    assert run.states["one"] == "upstream_failed"
    assert run.states["release_spark_lease"] in ("upstream_failed", "skipped")
    assert (run.states["gone"], run.states["wrong"]) == ("success", "failed")
    assert "lease: 'nonsense' is not a lease's name; give one such as 'leases/abc'" in run.log


def test_acquiring_on_a_lease_that_is_there_is_an_error_at_parse():
    from sparkbroker.airflow_provider.operators.lease import AcquireLeaseOperator

    with pytest.raises(ValueError, match="lease: this task acquires a lease; it can't attach to one"):
        AcquireLeaseOperator(task_id="acquire", lease="leases/abc")


DEFAULTS = """
from sparkbroker.airflow_provider.operators.lease import spark_lease

with DAG("defaults", schedule=None, default_args={"conn_id": "other", "cores": 2, "deferrable": True}) as dag:
    with spark_lease() as lease:
        @task.spark_session(lease=lease)
        def cores(lease): return lease.info.spec.driver.cores
        cores()
    with spark_lease("named", conn_id="nowhere", deferrable=False): ...
"""


def test_it_follows_default_args(small_broker, run_dag, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", small_broker.connection())
    monkeypatch.delenv("AIRFLOW_CONN_SPARKBROKER_DEFAULT")
    run = run_dag(DEFAULTS)
    assert run.xcom("cores") == 2, run.log[-4000:]
    assert run.states["release_spark_lease"] == "success"
    tasks = {task.task_id: task for task in run.module.dag.tasks}
    assert tasks["acquire_spark_lease"].deferrable
    assert not tasks["acquire_named"].deferrable
    assert {tasks[f"{what}_named"].conn_id for what in ("acquire", "release")} == {"nowhere"}


MAPPED = """
from sparkbroker.airflow_provider.operators.lease import spark_lease

with DAG("mapped_on_it", schedule=None) as dag:
    with spark_lease() as lease:
        @task.spark_session(lease=lease)
        def each(x, lease):
            return lease.name
        @task
        def beside(x):
            return x
        each.expand(x=[1, 2])
        beside.expand(x=[1])
    with spark_lease("outer") as outer:
        with spark_lease("inner") as inner:
            each.override(task_id="nested", lease=inner).expand(x=[1])
        first = each.override(task_id="first", lease=outer).expand(x=[1])
        second = each.override(task_id="second", lease=outer).expand(x=[1])
        first >> second
"""


def test_it_outlives_mapped_tasks_too(small_broker, run_dag):
    run = run_dag(MAPPED)
    assert run.state == "success", f"{run.states}\n{run.log[-4000:]}"
    assert [run.xcom("each", map_index=index) for index in (0, 1)] == [run.xcom("acquire_spark_lease")] * 2
    upstream = {task.task_id: task.upstream_task_ids for task in run.module.dag.tasks}
    assert upstream["release_spark_lease"] == {"acquire_spark_lease", "each", "beside"}
    assert upstream["beside"] == {"acquire_spark_lease"}
    assert "nested" in upstream["release_inner"]
    assert {"second", "release_inner"} <= upstream["release_outer"]
    assert "first" not in upstream["release_outer"]
