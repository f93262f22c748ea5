"""A DAG of apache-airflow-providers-pysparkonk8s: only its imports have changed.

The package ``airflow.providers.pysparkonk8s`` is ``sparkbroker.airflow_provider.compat`` now.
"""

try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task

from sparkbroker.airflow_provider.compat.config import SparkBaseConf, SparkDriverConf, SparkExecutorConf
from sparkbroker.airflow_provider.compat.operators import PySparkOnK8sOperator
from sparkbroker.airflow_provider.compat.resources import CPU, Memory

driver = SparkDriverConf(memory=Memory.mebibytes(600))
extra = {"spark.sql.shuffle.partitions": "2", "spark.sql.session.timeZone": None}


def squares(spark, numbers: list[int]) -> int:
    """Client mode, which was the default: a classic session."""
    return spark.sparkContext.parallelize(numbers).map(lambda number: number * number).sum()


@dag(schedule=None, tags=["sparkbroker"], params={"rows": 100})
def from_pyspark_on_k8s():
    @task
    def choose_executors() -> int:
        return 2

    chosen = choose_executors()
    executors = SparkExecutorConf(instances=chosen, cores=CPU.cores(1), memory=Memory.mebibytes(512))

    @task.pyspark_on_k8s(
        spark_base_conf=SparkBaseConf(deploy_mode="connect"),
        spark_driver_conf=driver,
        spark_executor_conf=executors,
        spark_extra_conf=extra,
    )
    def count(rows: str, spark) -> int:
        return spark.range(int(rows)).count()

    classic = PySparkOnK8sOperator(
        task_id="squares",
        python_callable=squares,
        spark_driver_conf=driver,
        spark_executor_conf=SparkExecutorConf(instances=1, memory=Memory.mebibytes(512)),
        op_kwargs={"numbers": [1, 2, 3]},
    )
    count("{{ params.rows }}") >> classic


the_dag = from_pyspark_on_k8s()
