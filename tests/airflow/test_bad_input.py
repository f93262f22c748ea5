"""What can't work is told at once: which argument or connection, what was wrong, and what to do. No retry."""

import json
import sys

import pytest

from sparkbroker.airflow_provider import artifacts
from sparkbroker.airflow_provider.request import InvalidArgument

IMPORTS = """
        from datetime import timedelta
        from sparkbroker.airflow_provider.operators.script import SparkScriptOperator
        from sparkbroker.airflow_provider.operators.session import SparkSessionOperator
        from sparkbroker.airflow_provider.operators.sql import SparkSqlOperator
        def compute(spark):
            raise AssertionError("it can't work, and is called")
        def bad(task_id, **given):
            return SparkSessionOperator(
                task_id=task_id, python_callable=compute, retries=1, retry_delay=timedelta(0), **given
            )
"""


def test_each_names_the_argument_and_the_fix(small_broker, run_dag, monkeypatch):
    nowhere = {"conn_type": "sparkbroker", "host": "127.0.0.1", "port": 1, "extra": {"patience": 1}}
    monkeypatch.setenv("AIRFLOW_CONN_NOWHERE", json.dumps(nowhere))
    monkeypatch.setenv("AIRFLOW_CONN_WRONG", json.dumps({"conn_type": "sparkbroker", "extra": {"tls": True}}))
    run = run_dag(f"""
        {IMPORTS}
        with DAG("bad_input", schedule=None) as dag:
            bad("cores", cores="{{{{ 'two' }}}}")
            bad("profile", profile="nope", deferrable=True)
            bad("queue", lease_queue="nope")
            bad("fits", memory="999t")
            bad("conf", conf={{"spark.master": "x"}})
            bad("pod", pod={{"image": "x"}})
            bad("client_mode", mode="client")
            bad("level", driver_log_level="{{{{ 'LOUD' }}}}")
            bad("settings", conn_id="WRONG")
            bad("file", py_files=["nowhere.py"], mode="LOCAL")
            SparkSessionOperator(task_id="unreachable", python_callable=compute, conn_id="NOWHERE")
            SparkSessionOperator(task_id="template", python_callable=compute, cores="{{{{ nope }}}}")
            SparkScriptOperator(task_id="script", script="nowhere.py")
    """)  # fmt: skip
    assert set(run.states.values()) == {"failed"}
    assert {run.ti(name).try_number for name in run.states} == {1}
    for said in (
        "cores: 'two' is not a count; give a whole number, at least 1",
        "profile: there is no profile 'nope' that you may use; you may use default",
        "lease_queue: there is no queue 'nope' that you may use; you may use default",
        "ask for less",
        "conf['spark.master']: can't be set by a holder",
        "pod['image']: is not allowed by profile `default`; allowed are: none",
        "mode: 'CLIENT' makes the worker's own pod the driver, and this worker is in no pod; run the task with Kub",
        "driver_log_level: 'LOUD' is no level; give one of ALL",
        "connection 'WRONG': unknown extra 'tls'; known are allow_plaintext, ca_certificate",
        "py_files: there is no 'nowhere.py' beside the DAG",
        "connection 'NOWHERE': Unreachable: the broker at grpc://127.0.0.1:1 doesn't answer",
        "'nope' is undefined",
        "script: there is no 'nowhere.py' beside the DAG",
    ):
        assert said in run.log, said
    assert "it can't work, and is called" not in run.log
    assert not small_broker.live()


def test_two_pysparks_over_each_other_or_none(small_broker, run_dag, monkeypatch, tmp_path):
    dag = f"""
        {IMPORTS}
        with DAG("pysparks", schedule=None) as dag:
            bad("function")
            SparkScriptOperator(task_id="script", script=__file__)
    """
    info = tmp_path / "pyspark_client-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pyspark-client\nVersion: 0.1\n")
    with monkeypatch.context() as two:
        two.syspath_prepend(str(tmp_path))
        run = run_dag(dag)
    assert set(run.states.values()) == {"failed"}
    assert {run.ti(name).try_number for name in run.states} == {1}
    assert run.log.count("LeaseRefused: pyspark") >= 2
    assert "and pyspark-client 0.1 are installed over each other: they write the same files. Uninstall both" in run.log
    with monkeypatch.context() as none:
        none.setitem(sys.modules, "pyspark", None)
        run = run_dag(dag)
    assert set(run.states.values()) == {"failed"}
    assert "a Spark session needs pyspark" in run.log
    assert "pip install 'sparkbroker[pyspark]'" in run.log


def test_another_python_in_the_driver():
    artifacts.check_python("", "3.11")
    artifacts.check_python("3.11", "3.11")
    with pytest.raises(
        InvalidArgument,
        match=r"profile: its driver runs Python 3\.12 and this task Python 3\.11, .*; use a profile .* with Python 3\.11",
    ):
        artifacts.check_python("3.12", artifacts.version_of((3, 11, 7)))


@pytest.mark.spark
@pytest.mark.timeout(300)
def test_a_program_with_another_python_than_the_driver(spark_broker, run_dag, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 3.2\n")
    python.chmod(0o755)
    run = run_dag(f"""
        {IMPORTS}
        with DAG("other_python", schedule=None) as dag:
            SparkScriptOperator(task_id="script", script=__file__, python={str(python)!r}, memory="600m")
    """)
    assert set(run.states.values()) == {"failed"}
    assert "and this task Python 3.2, so that Python functions would fail there; use a profile" in run.log
