"""Every example runs, with real Spark, and computes what it says: the shared lease, the program, the notebook."""

import re

import pytest

pytestmark = [pytest.mark.spark, pytest.mark.timeout(400)]


def test_a_shared_lease(run_example, spark_broker):
    run = run_example("shared_lease")
    assert (run.xcom("count"), run.xcom("mean")) == (100, 49.5)
    name = run.xcom("acquire_spark_lease")
    # A process' first run has each line more than once: by Airflow's handler, and by Alembic's.
    assert set(re.findall(f"Attached to {name} as generation ([0-9]+)", run.log)) == {"1", "2", "3"}
    assert f"{name} is given back" in run.log


def test_a_script_with_connect_and_with_a_driver_of_its_own(run_example):
    run = run_example("script")
    assert ": be 2, to 2" in run.log
    assert "the sum of the squares is 328350, computed on local[1]" in run.log


def test_a_notebook(run_example, need, tmp_path):
    from importlib.util import find_spec

    need(find_spec("papermill") and find_spec("ipykernel"), "papermill and ipykernel in Airflow's environment")
    run = run_example("notebook")
    assert "500 of 1000 are even" in run.log
    (kept,) = tmp_path.glob("report-*.ipynb")
    assert "500 of 1000 are even" in kept.read_text()
