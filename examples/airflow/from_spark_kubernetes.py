"""In the style of SparkKubernetesOperator with a SparkKubernetesSensor. It was:

    submit = SparkKubernetesOperator(task_id="submit", application_file="words.yaml", namespace="spark", …)
    watch = SparkKubernetesSensor(task_id="watch", application_name="{{ task_instance.xcom_pull('submit')… }}", …)
    submit >> watch

with a SparkApplication in ``words.yaml``. One task does both: it asks, waits in the triggerer (no worker slot, no polling
sensor), and its log has the driver's.
"""

try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task

from sparkbroker.airflow_provider.operators.script import SparkScriptOperator


@dag(schedule=None, tags=["sparkbroker"])
def from_spark_kubernetes():
    words = SparkScriptOperator(
        task_id="words",
        script="programs/words.py",
        arguments=["{{ run_id }}"],
        env={"TEXT": "to be or not to be"},
        py_files=["programs/cleaning.py"],
        # spec.driver, spec.executor, spec.sparkConf and spec.timeToLiveSeconds
        cores=1,
        memory="600m",
        executors=1,
        executor_cores=1,
        executor_memory="512m",
        conf={"spark.sql.shuffle.partitions": "2"},
        max_duration=3600,
        # The driver's log at this level and above, while it runs.
        driver_log_level="WARN",
        deferrable=True,
    )

    # The next task doesn't check a status: if the program fails, the task fails.
    @task
    def publish() -> str:
        return "published"

    words >> publish()


the_dag = from_spark_kubernetes()
