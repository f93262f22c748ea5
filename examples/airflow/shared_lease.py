"""Three tasks on one lease: the driver starts once, and each task has a Spark session of its own on it.

The lease is acquired by a setup and given back by a teardown, which runs also when a task has failed.
"""

import os

try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task

from sparkbroker.airflow_provider.operators.lease import spark_lease
from sparkbroker.airflow_provider.operators.sql import SparkSqlOperator

FOLDER = os.environ.get("EXAMPLES_FOLDER", "/tmp/examples")


@dag(schedule=None, tags=["sparkbroker"], params={"folder": f"{FOLDER}/shared_lease"})
def shared_lease():
    with spark_lease(cores=1, memory="600m", unattended_ttl=300) as lease:

        @task.spark_session(lease=lease)
        def load(folder: str, spark) -> str:
            target = f"{folder}/numbers"
            spark.range(100).write.mode("overwrite").parquet(target)
            return target

        @task.spark_session(lease=lease)
        def mean(source: str, spark) -> float:
            return spark.read.parquet(source).groupBy().avg("id").first()[0]

        loaded = load("{{ params.folder }}")
        counted = SparkSqlOperator(
            task_id="count", sql="SELECT * FROM parquet.`{{ params.folder }}/numbers`", lease=lease
        )
        mean(loaded)
        loaded >> counted


the_dag = shared_lease()
