"""Extract, transform, load with ``@task.spark_session``: each task leases its own session, and gives it back.

The decorator provides ``spark``, at any place in the function's signature. All other arguments are passed as usual.
"""

import os
import random
from pathlib import Path

try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task

# In a cluster, use a folder that workers and drivers share.
FOLDER = os.environ.get("EXAMPLES_FOLDER", "/tmp/examples")


@dag(schedule=None, tags=["sparkbroker"], params={"folder": f"{FOLDER}/etl_decorator"})
def etl_decorator():
    @task
    def extract(folder: str) -> str:
        """Films and their scores, as a file that the driver can read."""
        dice = random.Random(1)
        lines = [f"{year},{dice.randint(20, 95)}" for year in range(1980, 2000) for _ in range(10)]
        path = Path(folder, "scores.csv")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(["year,score", *lines]))
        return str(path)

    @task.spark_session(cores=1, memory="600m", labels={"step": "load {{ run_id }}"})
    def load(source: str, spark) -> str:
        target = source.replace(".csv", ".parquet")
        spark.read.csv(source, header=True, inferSchema=True).write.mode("overwrite").parquet(target)
        return target

    @task.spark_session(conf={"spark.sql.shuffle.partitions": 2})
    def transform(spark, source: str) -> dict[str, float]:
        frame = spark.read.parquet(source)
        best = frame.groupBy("year").avg("score").orderBy("avg(score)", ascending=False).first()
        return {"year": best["year"], "score": best["avg(score)"], "films": frame.count()}

    @task
    def report(year: int, films: int) -> str:
        return f"The best of {films} films are of {year}"

    found = transform(source=load(extract("{{ params.folder }}")))
    report(found["year"], found["films"])


etl = etl_decorator()
