"""Tasks whose Spark job shows that it lives: it writes the time into ``beat``, again and again, from Spark's own worker.

A run's conf: ``folder``, where a task and its job leave their marks; ``end``: ``wait`` (until the file ``finish`` is there),
``return`` or ``raise`` (while the job runs on in a thread); ``queue``.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

try:
    from airflow.sdk import DAG, task
except ImportError:
    from airflow.decorators import task
    from airflow.models import DAG

from sparkbroker.airflow_provider.operators.base import SparkLeaseOperator
from sparkbroker.airflow_provider.operators.session import SparkSessionOperator


def compute(spark: Any, lease: Any, **context: Any) -> str:
    """Run the job to its end, or leave it running, as the run's conf says."""
    import os
    import threading
    import time
    from pathlib import Path

    conf, number = context["dag_run"].conf, context["ti"].try_number
    folder = Path(conf["folder"])
    beat, whole, finish = folder / f"beat-{number}", folder / f"whole-{number}", folder / "finish"

    def beats(batches: Any) -> Any:
        for batch in batches:  # to the last: Spark hands over all of them, whether they are wanted or not
            if not finish.exists():
                whole.write_text(str(time.time()))
                whole.replace(beat)  # it may be killed in the middle of writing
                time.sleep(0.05)
                yield batch

    def job() -> None:
        spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", 1)
        spark.range(20_000, numPartitions=1).mapInArrow(beats, "id long").count()

    (folder / f"lease-{number}").write_text(lease.name)
    (folder / f"pid-{number}").write_text(str(os.getpid()))
    try:
        if conf["end"] == "wait":
            job()
            return str(lease.name)
        threading.Thread(target=job, daemon=True).start()
        while not beat.exists():
            time.sleep(0.05)
        if conf["end"] == "raise":
            raise ValueError("the task's own error")
        return str(lease.name)
    finally:
        (folder / f"left-{number}").write_text(str(time.time()))


class NameOnly(SparkLeaseOperator):
    """Needs no Spark: it has a lease, and says which."""

    def run_with_lease(self, context: Any, lease: Any) -> str:
        return str(lease.name)


COMMON: dict[str, Any] = {"start_date": datetime(2024, 1, 1, tzinfo=UTC), "catchup": False}
LEASE: dict[str, Any] = {
    "python_callable": compute,
    "deferrable": True,
    "retry_delay": timedelta(seconds=1),  # a task that is cleared while it runs is up for retry
    "lease_queue": "{{ dag_run.conf.get('queue', 'default') }}",
}

with DAG("ends", schedule=None, **COMMON):
    SparkSessionOperator(task_id="compute", **LEASE)

with DAG("ends_timeout", schedule=None, **COMMON):
    SparkSessionOperator(task_id="compute", execution_timeout=timedelta(seconds=120), **LEASE)

with DAG("ends_run_timeout", schedule=None, dagrun_timeout=timedelta(seconds=120), **COMMON):
    SparkSessionOperator(task_id="compute", **LEASE)

with DAG("slots", schedule=None, max_active_tasks=64, **COMMON):
    for number in range(20):
        NameOnly(task_id=f"waits_{number}", deferrable=True, mode="LOCAL", lease_queue="full")

with DAG("trivial", schedule=None, **COMMON):

    @task
    def hello() -> str:
        return "hello"

    hello()
