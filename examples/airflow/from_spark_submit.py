"""In the style of SparkSubmitOperator. It was:

    SparkSubmitOperator(
        task_id="words", application="programs/words.py", application_args=["--least", "2", "{{ run_id }}"],
        env_vars={"TEXT": "to be or not to be"}, py_files="programs/cleaning.py", driver_memory="600m",
        num_executors=2, executor_cores=1, executor_memory="512m", conf={"spark.sql.shuffle.partitions": "2"},
        packages="…", conn_id="spark_default",
    )

The program is unchanged. There is no Spark and no Java on the worker, no submission that is polled, and no driver that is
left behind when the task is killed.
"""

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow.models import DAG
from sparkbroker.airflow_provider.operators.script import SparkScriptOperator

with DAG("from_spark_submit", schedule=None, tags=["sparkbroker"]) as the_dag:
    SparkScriptOperator(
        task_id="words",
        script="programs/words.py",
        arguments=["--least", "2", "{{ run_id }}"],
        env={"TEXT": "to be or not to be"},
        py_files="programs/cleaning.py",
        memory="600m",
        executors=2,
        executor_cores=1,
        executor_memory="512m",
        conf={"spark.sql.shuffle.partitions": "2"},
    )
