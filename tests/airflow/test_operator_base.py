"""What every task with a lease has in common: asking, waiting, attaching, giving back."""

import subprocess
import sys
from datetime import timedelta

import pytest

from tests.airflow.brokers import state_of

IMPORTS = "from sparkbroker.airflow_provider.operators.session import SparkSessionOperator as Session\n"


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_task_holds_a_lease_while_it_runs_and_no_longer(small_broker, run_dag, deferrable):
    run = run_dag(f"""
        {IMPORTS}
        def compute(lease, more):
            assert lease.attached
            return [lease.name, lease.info.key, dict(lease.info.spec.labels), lease.info.spec.driver.cores, more]
        with DAG("hold", schedule=None, params={{"cores": 2}}) as dag:
            one = Session(task_id="one", python_callable=compute, op_args=["x"], mode="LOCAL", cores="{{{{ params.cores }}}}",
                          labels={{"team": "{{{{ task.task_id }}}}"}}, deferrable={deferrable})
    """)  # fmt: skip
    assert run.state == "success", run.log
    name, key, labels, cores, more = run.xcom("one")
    lease = small_broker.client.get(name)
    assert (state_of(lease), cores, more) == ("RELEASED", 2, "x")
    assert key == f"hold/{run.dag_run.run_id}/one/-1"
    assert labels | {"team": "one", "airflow_dag_id": "hold", "airflow_task_id": "one"} == labels


def test_an_event_of_an_earlier_run_isnt_taken_for_a_lease(small_broker, run_dag):
    """Airflow runs a task that was cleared while it ran with the event for which it had waited before."""
    with small_broker.client.lease(mode="LOCAL", key="spent") as spent:
        pass
    run = run_dag(f"""
        {IMPORTS}
        class Cleared(Session):
            def execute(self, context):
                self.execute = super().execute
                return self.execute_with_lease(context, {{"lease": "{spent.name}"}})
        with DAG("cleared", schedule=None) as dag:
            Cleared(task_id="one", python_callable=lambda lease: lease.name, mode="LOCAL", deferrable=False)
    """)  # fmt: skip
    assert run.state == "success", run.log
    assert run.xcom("one") != spent.name
    assert f"{spent.name} was used by an earlier run of this task, and is RELEASED; a new one is asked for" in run.log


def test_mapped_tasks_have_leases_of_their_own_and_may_override_them(small_broker, run_dag):
    run = run_dag(f"""
        {IMPORTS}
        def compute(lease):
            return [lease.info.key.rpartition("/")[2], lease.info.spec.driver.cores]
        with DAG("mapped", schedule=None) as dag:
            Session.partial(task_id="m", python_callable=compute, mode="LOCAL", deferrable=True).expand(cores=[1, "2"])
    """)  # fmt: skip
    assert [run.xcom("m", map_index=number) for number in (0, 1)] == [["0", 1], ["1", 2]]


def test_each_end_gives_the_lease_back(small_broker, run_dag):
    """A failure, a skip, and a kill: SIGTERM, as from Airflow or from Kubernetes."""
    run = run_dag(f"""
        {IMPORTS}
        import os, signal, time
        def fails(lease):
            raise ValueError("said by the task")
        def skips(lease):
            from sparkbroker.airflow_provider._compat import AirflowSkipException
            raise AirflowSkipException("nothing to do")
        def killed(lease):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        with DAG("ends", schedule=None) as dag:
            tasks = [
                Session(task_id=function.__name__, python_callable=function, mode="LOCAL", trigger_rule="all_done")
                for function in (fails, skips{", killed" if _airflow_3() else ""})
            ]
            chain(*tasks)
    """)  # fmt: skip
    assert run.states["fails"] == "failed"
    assert run.states["skips"] == "skipped"
    assert "ValueError: said by the task" in run.log
    for task_id in ("fails", "skips"):
        assert small_broker.ended(small_broker.lease_of(f"/{task_id}/").name) == "RELEASED"
    if _airflow_3():
        assert run.states["killed"] == "failed"
        assert "TaskKilled" in run.log
        assert small_broker.ended(small_broker.lease_of("/killed/").name) == "RELEASED"


def _airflow_3():
    from sparkbroker.airflow_provider._compat import AIRFLOW_3

    return AIRFLOW_3


def test_a_retry_replaces_the_lease_or_reattaches_to_it(small_broker, run_dag):
    run = run_dag(f"""
        {IMPORTS}
        from datetime import timedelta
        def compute(lease, ti):
            if ti.try_number == 1:
                with open(__file__ + "." + ti.task_id, "w") as file:
                    file.write(lease.name)
                raise ValueError("once more")
            return [open(__file__ + "." + ti.task_id).read(), lease.name]
        with DAG("retries", schedule=None) as dag:
            for how in ("replace", "reattach"):
                Session(task_id=how, python_callable=compute, retries=1, retry_delay=timedelta(0), on_retry=how)
    """)  # fmt: skip
    assert run.state == "success", run.log
    first, second = run.xcom("replace")
    assert first != second
    first, second = run.xcom("reattach")
    assert first == second
    assert small_broker.ended(first) == "RELEASED"


def test_a_key_of_ones_own_that_another_has_is_left_to_it_by_every_try(small_broker, run_dag):
    other = small_broker.client.acquire(key="mine", labels={"airflow_run_id": "another"})
    other.wait_ready()
    run = run_dag(f"""
        {IMPORTS}
        from datetime import timedelta
        def compute(lease):
            return lease.name
        with DAG("own_key", schedule=None) as dag:
            Session(
                task_id="t", python_callable=compute, lease_key="mine", deferrable=False, retries=1,
                retry_delay=timedelta(0),
            )
            Session(
                task_id="in_trigger", python_callable=compute, lease_key="mine", deferrable=True, retries=1,
                retry_delay=timedelta(0), on_retry="reattach",
            )
    """)  # fmt: skip
    assert run.states == {"t": "failed", "in_trigger": "failed"}
    assert f"lease_key: lease {other.name} of this key is live" in run.log
    assert state_of(small_broker.client.get(other.name)) == "READY"
    other.release()


def test_a_shared_lease_that_was_not_acquired_is_no_wish_for_another(small_broker, run_dag):
    run = run_dag(f"""
        {IMPORTS}
        @task
        def nothing():
            return None
        def compute(lease):
            return lease.name
        with DAG("not_acquired", schedule=None) as dag:
            Session(task_id="t", python_callable=compute, lease=nothing())
    """)  # fmt: skip
    assert run.states["t"] == "failed"
    assert "lease: the task that acquires it has given none" in run.log
    assert small_broker.lease_of("not_acquired/") is None


def test_a_task_attaches_to_a_shared_lease_and_leaves_it(small_broker, run_dag):
    shared = small_broker.client.acquire(key="shared", sharing="SHARED")
    shared.wait_ready()
    run = run_dag(f"""
        {IMPORTS}
        def compute(lease):
            return lease.name
        with DAG("attach", schedule=None) as dag:
            Session(task_id="a", python_callable=compute, lease="{shared.name}")
            Session(task_id="b", python_callable=compute, lease="{{{{ 'nonsense' }}}}")
    """)  # fmt: skip
    assert run.xcom("a") == shared.name
    assert run.states == {"a": "success", "b": "failed"}
    assert "lease: 'nonsense' is not a lease's name; give one such as 'leases/abc'" in run.log
    assert state_of(small_broker.client.get(shared.name)) == "READY"
    small_broker.client.release(shared.name)


@pytest.mark.timeout(300)
def test_parsing_imports_neither_grpc_nor_pyspark_nor_protobuf(airflow_home):
    program = """
import sys
from sparkbroker.airflow_provider.operators.session import SparkSessionOperator
def f(spark): pass
SparkSessionOperator(task_id="x", python_callable=f, deferrable=True, cores=2, executors=[1, 2], conf={"a": None})
loaded = [name for name in ("grpc", "pyspark", "google.protobuf") if name in sys.modules]
sys.exit(f"imports {loaded}" if loaded else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr


def test_a_dag_serializes_the_same_each_time(airflow_home):
    from airflow.serialization.serialized_objects import SerializedDAG

    from sparkbroker.airflow_provider._compat import DAG
    from sparkbroker.airflow_provider.operators.session import SparkSessionOperator

    def compute(spark):
        return 1

    def serialized():
        with DAG("same", schedule=None) as dag:
            for deferrable in (False, True):
                SparkSessionOperator(
                    task_id=f"t{deferrable}", python_callable=compute, deferrable=deferrable, executors=[1, 4],
                    conf={"spark.a": None, "b": 1}, packages=["a:b:1"], acquire_timeout=3, on_retry="reattach", retries=2,
                )  # fmt: skip
        return dag

    to_dict = getattr(SerializedDAG, "to_dict", None)
    if to_dict is None or not hasattr(SerializedDAG, "from_dict"):
        from airflow.serialization.serialized_objects import DagSerialization

        to_dict = DagSerialization.to_dict
        from_dict = DagSerialization.from_dict
    else:
        from_dict = SerializedDAG.from_dict
    once, twice = to_dict(serialized()), to_dict(serialized())
    assert once == twice
    assert set(from_dict(once).task_dict) == {"tFalse", "tTrue"}


def test_a_task_starts_in_the_triggerer_where_airflow_can(airflow_home):
    from sparkbroker.airflow_provider import _compat
    from sparkbroker.airflow_provider.operators.session import SparkSessionOperator

    def compute(spark):
        return 1

    def task(task_id="t", **given):
        return SparkSessionOperator(task_id=task_id, python_callable=compute, **given)

    assert task(deferrable=True).start_from_trigger is _compat.START_FROM_TRIGGER
    assert not task(deferrable=False).start_from_trigger
    assert not task(deferrable=True, lease="leases/a").start_from_trigger
    with _compat.DAG("d", schedule=None):
        upstream = SparkSessionOperator(task_id="u", python_callable=compute)
        assert not task(deferrable=True, cores=upstream.output).start_from_trigger
    with _compat.DAG("d", schedule=None, user_defined_macros={"cores": lambda: 2}):
        assert not task(deferrable=True, cores="{{ cores() }}").start_from_trigger
        assert task(task_id="p", deferrable=True, cores=2).start_from_trigger is _compat.START_FROM_TRIGGER
    if _compat.START_FROM_TRIGGER:
        changed = task(task_id="c", deferrable=True)
        changed.cores = 3  # as a policy of the cluster's may
        assert changed.start_trigger_args.trigger_kwargs["cores"] == 3
        changed.execution_timeout = timedelta(hours=1)
        assert not changed.start_from_trigger
        told = task(deferrable=True, cores="{{ 1 }}").start_trigger_args
        assert told.trigger_kwargs == {"conn_id": "sparkbroker_default", "cores": "{{ 1 }}", "on_retry": "replace"}


def test_default_deferrable_decides_where_the_dag_doesnt(airflow_home, monkeypatch):
    from sparkbroker.airflow_provider.operators.session import SparkSessionOperator

    def compute(spark):
        return 1

    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "true")
    assert SparkSessionOperator(task_id="t", python_callable=compute).deferrable
    assert not SparkSessionOperator(task_id="u", python_callable=compute, deferrable=False).deferrable
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "false")
    assert not SparkSessionOperator(task_id="v", python_callable=compute).deferrable
