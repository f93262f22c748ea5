"""A task that waits in the triggerer and then tries to tell its connection's token."""

from datetime import UTC, datetime
from typing import Any

try:
    from airflow.sdk import DAG
except ImportError:
    from airflow.models import DAG

from sparkbroker.airflow_provider.hooks.broker import SparkBrokerHook
from sparkbroker.airflow_provider.operators.session import SparkSessionOperator


def tell(lease: Any) -> str:
    """The token, into the log."""
    token = SparkBrokerHook("guarded").address().read_token()
    print(f"{lease.name} by the token >{token}<")
    return str(lease.name)


with DAG("secret", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=UTC), catchup=False):
    SparkSessionOperator(
        task_id="tell",
        python_callable=tell,
        conn_id="guarded",
        mode="LOCAL",
        deferrable=True,
        labels={"a": "{{ run_id }}"},
    )
