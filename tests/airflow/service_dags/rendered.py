"""Labels that are templates: each name that the triggerer may render, there and in a worker; and what it may not."""

from datetime import UTC, datetime
from typing import Any

try:
    from airflow.sdk import DAG, task
except ImportError:
    from airflow.decorators import task
    from airflow.models import DAG

from sparkbroker.airflow_provider.operators.base import SparkLeaseOperator
from sparkbroker.airflow_provider.renderable import PARTS, PLAIN

CALLS = {
    "macros.dateutil": "macros.dateutil.parser.parse('2024-01-02').day",
    "macros.ds_add": "macros.ds_add('2024-01-31', 1)",
    "macros.ds_format": "macros.ds_format('2024-01-31', '%Y-%m-%d', '%d')",
    "macros.ds_format_locale": "macros.ds_format_locale('2024-01-31', '%Y-%m-%d', 'dd')",
    "macros.json": "macros.json.dumps(params)",
    "macros.timedelta": "macros.timedelta(days=1)",
}
NAMES = sorted({*PLAIN, *(f"{name}.{part}" for name, parts in PARTS.items() for part in parts)})
ALL = {f"l{place}": f"{{{{ {CALLS.get(name, name)} | default('none') }}}}" for place, name in enumerate(NAMES)}


class Told(SparkLeaseOperator):
    """Needs no Spark: prints its lease's labels, one a line."""

    def run_with_lease(self, context: Any, lease: Any) -> None:
        for name, value in sorted(lease.info.spec.labels.items()):
            print(f"label {name} = {value};")


with DAG(
    "rendered",
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    params={"zero": 0},
):

    @task
    def first() -> str:
        return "pulled it"

    common: dict[str, Any] = {"mode": "LOCAL", "acquire_timeout": 200}
    Told(task_id="triggerer", deferrable=True, labels=ALL, **common)
    Told(task_id="worker", deferrable=False, labels=ALL, **common)
    Told(task_id="broken", deferrable=True, labels={"x": "{{ 1 // params.zero }}"}, **common)
    first() >> Told(task_id="pulled", deferrable=True, labels={"x": "{{ ti.xcom_pull(task_ids='first') }}"}, **common)
