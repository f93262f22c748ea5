"""An unchanged PySpark program: its arguments, its environment, its output in the task's log, its exit status."""

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow.models import DAG
from sparkbroker.airflow_provider.operators.script import SparkScriptOperator

with DAG("script", schedule=None, tags=["sparkbroker"]) as the_dag:
    SparkScriptOperator(
        task_id="words",
        script="programs/words.py",
        arguments=["--least", "2", "{{ run_id }}"],
        env={"TEXT": "to be or not to be"},
        py_files=["programs/cleaning.py"],
        cores=1,
    )
    # With RDDs and a sparkContext: the driver runs in the program, with the leased size.
    SparkScriptOperator(task_id="classic", script="programs/classic.py", mode="LOCAL", cores=1, memory="600m")
