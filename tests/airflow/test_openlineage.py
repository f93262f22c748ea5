"""The task as the parent of its Spark session's lineage, where Airflow's OpenLineage provider is installed."""

import sys
from importlib.util import find_spec

import pytest

from sparkbroker.airflow_provider import openlineage

DAG_OF_BOTH = """
from sparkbroker.airflow_provider.operators.session import SparkSessionOperator
def compute(spark):
    keys = ("parentJobNamespace", "parentJobName", "parentRunId")
    return [spark.conf.get(f"spark.openlineage.{key}") for key in keys]
with DAG("lineage", schedule=None) as dag:
    SparkSessionOperator(task_id="compute", python_callable=compute, memory="600m")
"""


def test_without_the_provider_nothing_is_added(monkeypatch):
    monkeypatch.setattr(openlineage, "find_spec", lambda name: None)
    assert openlineage.parent_conf({}) == {}


def test_a_broken_provider_of_lineage_is_told_and_fails_no_task(monkeypatch, caplog):
    monkeypatch.setattr(openlineage, "find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "airflow.providers.openlineage.utils.spark", None)
    assert openlineage.parent_conf({}) == {}
    assert "isn't told its OpenLineage parent: ModuleNotFoundError" in caplog.text


@pytest.mark.spark
@pytest.mark.timeout(300)
def test_the_session_knows_its_parent(spark_broker, run_dag, need):
    need(find_spec("airflow.providers.openlineage"), "apache-airflow-providers-openlineage in Airflow's environment")
    run = run_dag(DAG_OF_BOTH)
    assert run.state == "success", run.log[-4000:]
    namespace, job, run_id = run.xcom("compute")
    assert (namespace, job) == ("default", "lineage.compute")
    assert len(run_id) == 36
