"""One mapped task for each partition, at most two at a time; larger partitions get larger leases.

``expand`` maps the function's arguments; an operator's ``expand_kwargs`` maps those of the lease, too.
"""

try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task

from sparkbroker.airflow_provider.operators.session import SparkSessionOperator


def even(spark, begin: int, end: int) -> int:
    return spark.range(begin, end).where("id % 2 = 0").count()


@dag(schedule=None, tags=["sparkbroker"])
def mapped_partitions():
    @task
    def partitions() -> list[int]:
        return [0, 1, 2]

    @task.spark_session(max_active_tis_per_dag=2)
    def count(partition: int, spark, *, size: int = 1000) -> int:
        return spark.range(partition * size, (partition + 1) * size).count()

    @task
    def total(counts: list[int]) -> int:
        return sum(counts)

    total(count.partial(size=500).expand(partition=partitions()))

    SparkSessionOperator.partial(task_id="sized", python_callable=even, max_active_tis_per_dag=2).expand_kwargs(
        [
            {"op_kwargs": {"begin": 0, "end": 10}, "cores": 1},
            {"op_kwargs": {"begin": 0, "end": 1000}, "cores": 2, "memory": "800m"},
        ]
    )


the_dag = mapped_partitions()
