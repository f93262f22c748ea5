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
            ReleaseLeaseOperator(task_id="wrong", lease="nonsense")
    """)
    assert run.states["acquire_spark_lease"] == "failed"
    assert run.states["one"] == "upstream_failed"
    assert run.states["release_spark_lease"] in ("upstream_failed", "skipped")
    assert (run.states["gone"], run.states["wrong"]) == ("success", "failed")
    assert "lease: 'nonsense' is no lease's name; give one such as 'leases/abc'" in run.log


def test_acquiring_on_a_lease_that_is_there_is_an_error_at_parse():
    from sparkbroker.airflow_provider.operators.lease import AcquireLeaseOperator

    with pytest.raises(ValueError, match="lease: this task acquires a lease; it can't attach to one"):
        AcquireLeaseOperator(task_id="acquire", lease="leases/abc")
