"""In the style of ``@task.pyspark``. It was:

    @task.pyspark(conn_id="spark_default", config_kwargs={"spark.sql.shuffle.partitions": 2})
    def spark_task(numbers, spark, sc): ...

which opened a session on the worker, for as long as the worker lived. ``sc`` is ``spark.sparkContext`` of a LOCAL lease.
"""

try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task


@dag(schedule=None, tags=["sparkbroker"])
def from_task_pyspark():
    @task.spark_session(conf={"spark.sql.shuffle.partitions": 2})
    def rows(numbers: list[int], spark) -> list[int]:
        frame = spark.createDataFrame([(number,) for number in numbers], "number int")
        return [row["number"] for row in frame.orderBy("number").collect()]

    @task.spark_session(mode="LOCAL", cores=1, memory="600m")
    def context(numbers: list[int], spark) -> int:
        sc = spark.sparkContext
        return sc.parallelize(numbers).sum()

    context(rows([3, 1, 2]))


the_dag = from_task_pyspark()
