"""The number of executors comes from another task: any argument of a lease may be an XCom."""

try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task


@dag(schedule=None, tags=["sparkbroker"], params={"rows": 5_000_000})
def executors_from_xcom():
    @task
    def choose(rows: str) -> list[int]:
        """Minimum and maximum."""
        return [1, max(1, min(int(rows) // 2_500_000, 8))]

    chosen = choose("{{ params.rows }}")

    @task.spark_session(executors=chosen, executor_cores=1, executor_memory="512m")
    def compute(rows: str, lease, spark) -> dict[str, int]:
        wanted = lease.info.spec.executors
        return {"most_executors": wanted.max_count, "sum": spark.range(int(rows)).groupBy().sum("id").first()[0]}

    compute("{{ params.rows }}")


the_dag = executors_from_xcom()
