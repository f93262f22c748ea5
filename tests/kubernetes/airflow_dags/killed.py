"""Tasks that are in the middle of a query for as long as nobody ends them."""

import time

from airflow.sdk import dag, task


@dag(schedule=None)
def killed():
    @task.spark_session(executors=1)
    def connect(spark):
        spark.range(2).selectExpr("java_method('java.lang.Thread', 'sleep', 900000L)").collect()

    @task.spark_session(mode="CLIENT", cores=1, memory="600m", executors=1)
    def client(spark):
        spark.sparkContext.parallelize(range(2), 2).foreach(lambda _: time.sleep(900))

    connect()
    client()


the_dag = killed()
