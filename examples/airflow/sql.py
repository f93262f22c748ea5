"""SQL, inline and from a file, with templates; the last statement's rows become an XCom."""

import os

try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task

from sparkbroker.airflow_provider.operators.sql import SparkSqlOperator

FOLDER = os.environ.get("EXAMPLES_FOLDER", "/tmp/examples")


@dag(schedule=None, tags=["sparkbroker"], params={"folder": f"{FOLDER}/sql", "least": 90})
def sql():
    write = SparkSqlOperator(
        task_id="write",
        sql=[
            "CREATE OR REPLACE TEMPORARY VIEW scores AS SELECT id, id * 37 % 100 AS score FROM range(1000)",
            "INSERT OVERWRITE DIRECTORY '{{ params.folder }}' USING parquet SELECT * FROM scores -- ; no end here",
        ],
    )
    report = SparkSqlOperator(
        task_id="report", sql="sql/report.sql", parameters={"least": "{{ params.least }}"}, result="rows", max_rows=20
    )

    @task
    def show(rows) -> int:
        for row in rows:
            print(row)
        return len(rows)

    write >> report
    show(report.output)


the_dag = sql()
