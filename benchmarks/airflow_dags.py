"""The files whose parsing benchmarks/airflow.py times: the same tasks, with the provider and without it."""

IMPORTS = """
try:
    from airflow.sdk import DAG, task
except ImportError:
    from airflow.decorators import task
    from airflow.models import DAG
"""
PLAIN = (
    IMPORTS
    + """
with DAG("plain", schedule=None):
    for number in range({tasks}):

        @task(task_id=f"work_{{number}}")
        def work():
            return 1

        work()
"""
)
OURS = (
    IMPORTS
    + """
from sparkbroker.airflow_provider.operators.session import SparkSessionOperator


def work(spark):
    return 1


with DAG("ours", schedule=None):
    for number in range({tasks}):
        SparkSessionOperator(task_id=f"work_{{number}}", python_callable=work, cores=2, memory="2g", deferrable=True)
"""
)
