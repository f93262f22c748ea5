"""The buttons on a task."""

import pytest

from sparkbroker.airflow_provider.links import LeaseLink, SparkUiLink, lease_url, spark_ui_url


@pytest.mark.parametrize(
    ("template", "expected"),
    [("", ""), ("https://x/leases/{lease}", "https://x/leases/a1"), ("https://x/", "https://x/")],
)
def test_the_lease_has_a_deep_link(template, expected):
    assert lease_url(template, "leases/a1") == expected


@pytest.mark.parametrize(
    ("template", "ui", "expected"),
    [
        ("", "10.0.0.1:4040", "http://10.0.0.1:4040"),
        ("", "http://h:4040", "http://h:4040"),
        ("", "", ""),
        ("https://proxy/{lease}/?to={ui}", "h:4040", "https://proxy/a1/?to=h:4040"),
        ("https://history/?lease={lease}", "", "https://history/?lease=a1"),
    ],
)
def test_the_ui_is_the_drivers_own_or_a_templates(template, ui, expected):
    assert spark_ui_url(template, "leases/a1", ui) == expected


def test_links_are_pushed_while_the_task_runs_and_stay(small_broker, run_dag, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_SPARKBROKER_DEFAULT", small_broker.connection(lease_url="https://x/{lease}"))
    run = run_dag("""
        from sparkbroker.airflow_provider.operators.session import SparkSessionOperator
        def seen(lease, ti):
            return [lease.name, ti.xcom_pull(task_ids=ti.task_id, key="_link_LeaseLink")]
        with DAG("links", schedule=None) as dag:
            SparkSessionOperator(task_id="seen", python_callable=seen, mode="LOCAL")
    """)  # fmt: skip
    name, url = run.xcom("seen")
    assert url == f"https://x/{name.removeprefix('leases/')}"
    assert run.xcom("seen", key="_link_LeaseLink") == url


def test_their_names_and_keys_are_of_their_own():
    assert {LeaseLink().name, SparkUiLink().name} == {"Spark lease", "Spark UI"}
    assert LeaseLink().xcom_key != SparkUiLink().xcom_key
