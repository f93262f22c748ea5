"""Extract, transform, load with ``SparkSessionOperator``, for users who don't like decorators."""

import os
from pathlib import Path

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow.models import DAG

from sparkbroker.airflow_provider.operators.session import SparkSessionOperator


def extract(folder, spark):
    target = str(Path(folder, "numbers.parquet"))
    spark.range(1000).selectExpr("id", "id % 7 AS weekday").write.mode("overwrite").parquet(target)
    return target


def transform(source, *, spark, lease):
    print(f"computing on {lease.name}")
    rows = spark.read.parquet(source).groupBy("weekday").count().orderBy("weekday").collect()
    return {str(row["weekday"]): row["count"] for row in rows}


# In a cluster, use a folder that workers and drivers share.
folder = os.environ.get("EXAMPLES_FOLDER", "/tmp/examples")
with DAG("etl_operator", schedule=None, tags=["sparkbroker"], params={"folder": folder + "/etl_operator"}) as etl:
    extracted = SparkSessionOperator(
        task_id="extract", python_callable=extract, op_kwargs={"folder": "{{ params.folder }}"}
    )
    SparkSessionOperator(
        task_id="transform",
        python_callable=transform,
        op_args=[extracted.output],
        labels={"team": "films"},
        acquire_timeout=600,
        max_duration=3600,
    )
