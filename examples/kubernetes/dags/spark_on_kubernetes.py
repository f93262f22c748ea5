"""Two ways to Spark from Airflow on Kubernetes: the broker runs the driver, or the worker's own pod is the driver."""

import socket

from airflow.sdk import dag, task


@dag(schedule=None, tags=["sparkbroker"], params={"rows": 1000})
def spark_on_kubernetes():
    # The broker runs driver and executors. The worker is small, and doesn't exist while the lease waits.
    @task.spark_session(executors=1, deferrable=True, driver_log_level="INFO")
    def total(rows: str, spark) -> int:
        return spark.range(int(rows)).selectExpr("sum(id) AS total").first().total

    # The worker's own pod is the driver, with the size given here. It has the classic API, and executors of its own.
    @task.spark_session(mode="CLIENT", cores=1, memory="600m", executors=2)
    def classic(given: int, spark) -> dict[str, int]:
        context = spark.sparkContext
        squares = context.parallelize(range(100), 8).map(lambda number: number * number).sum()
        hosts: dict[str, int] = {}
        while len(hosts) < 2:  # until both executors are there
            hosts = context.parallelize(range(64), 16).map(lambda _: socket.gethostname()).countByValue()
        return {"total": given, "squares": squares, "executors": len(hosts)}

    classic(total("{{ params.rows }}"))


the_dag = spark_on_kubernetes()
