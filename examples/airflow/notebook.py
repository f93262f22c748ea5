"""A notebook, run with Papermill: its kernel is a child process of the program, and finds the lease like any PySpark program.

Needs ``papermill`` and ``ipykernel`` on the worker.
"""

import os

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow.models import DAG
from sparkbroker.airflow_provider.operators.script import SparkScriptOperator

params = {"folder": os.environ.get("EXAMPLES_FOLDER", "/tmp/examples") + "/notebook", "rows": 1000}
with DAG("notebook", schedule=None, tags=["sparkbroker"], params=params) as the_dag:
    SparkScriptOperator(
        task_id="report",
        script="programs/run_notebook.py",
        arguments=[
            "../notebooks/report.ipynb",
            "{{ params.folder }}/report-{{ run_id }}.ipynb",
            "rows={{ params.rows }}",
        ],
    )
