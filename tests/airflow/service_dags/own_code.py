"""Python functions of Spark's that use what is in this file, and in the modules beside it.

No driver has these modules, and this one has a name of Airflow's making.
"""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

try:
    from airflow.sdk import DAG, task
except ImportError:
    from airflow.decorators import task
    from airflow.models import DAG

import beside  # type: ignore[import-not-found]  # beside this file, where Airflow looks
from beside import Point
from beside_with_airflow import sevenfold  # type: ignore[import-not-found]

from sparkbroker.airflow_provider.hooks.broker import SparkBrokerHook

OFFSET = 100


def triple(x: int) -> int:
    return x * 3


class Shifted:
    """A class of the DAG's file."""

    def __init__(self, x: int) -> None:
        self.x = x

    def value(self) -> int:
        return self.x + OFFSET


def lazily(x: int) -> int:
    from pieces.add import plus_one  # type: ignore[import-not-found]

    return int(plus_one(x))


def compute(spark: Any) -> dict[str, list[int]]:
    """Each kind of Python function, on the numbers 0, 1, 2."""
    import pandas as pd
    from pyspark.sql.functions import pandas_udf, udf, udtf

    def tripled(series: pd.Series) -> pd.Series:
        return series.map(triple)

    def batches(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for frame in frames:
            yield frame.assign(id=frame["id"].map(sevenfold))

    def group(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(id=frame["id"].map(lambda x: beside.fivefold(x) + 0))

    class Twice:
        def eval(self, x: int) -> Iterator[tuple[int]]:
            yield (triple(x),)
            yield (Shifted(x).value(),)

    numbers = spark.range(3)
    functions = {
        "own function": triple,
        "own class": lambda x: Shifted(x).value(),
        "function beside": beside.fivefold,
        "module beside": lambda x: beside.fivefold(x) + 0,
        "class beside": lambda x: Point(x).doubled(),
        "function that needs Airflow": sevenfold,
        "imported in the function": lazily,
    }
    one = numbers.select(*(udf(function, "long")("id").alias(name) for name, function in functions.items())).collect()
    frames = {
        "pandas": numbers.select(pandas_udf(tripled, "long")("id")),
        "map in pandas": numbers.mapInPandas(batches, "id long"),
        "apply in pandas": numbers.groupby("id").applyInPandas(group, "id long").orderBy("id"),
    }
    found = {name: [row[name] for row in one] for name in functions}
    found |= {name: [row[0] for row in frame.collect()] for name, frame in frames.items()}
    spark.udtf.register("twice", udtf(Twice, returnType="x long"))
    return found | {"table": [row[0] for row in spark.sql("SELECT * FROM twice(5)").collect()]}


def registered() -> set[str]:
    """What pyspark would pickle by value in this process."""
    from pyspark import cloudpickle

    return set(cloudpickle.list_registry_pickle_by_value())


with DAG("own_code", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=UTC), catchup=False):

    @task.spark_session
    def decorated(spark: Any) -> None:
        print(f"found {json.dumps(compute(spark))};")

    @task
    def hook() -> None:
        with SparkBrokerHook().client() as broker, broker.session(mode="LOCAL") as spark:
            found = compute(spark)
            found["rdd"] = spark.sparkContext.parallelize([1]).map(Point).map(Point.doubled).collect()
        assert not registered(), "this process pickles as before"
        assert [entry for entry in sys.path if "dag-" in entry] == []
        print(f"found {json.dumps(found)};")

    decorated()
    hook()
