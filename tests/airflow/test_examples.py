"""Every example runs, with real Spark, and computes what it says."""

from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "airflow"
pytestmark = [pytest.mark.spark, pytest.mark.timeout(400)]


@pytest.fixture
def run_example(spark_broker, run_dag, tmp_path):
    def run(name):
        done = run_dag(EXAMPLES / f"{name}.py", conf={"folder": str(tmp_path)})
        assert done.state == "success", f"{done.states}\n{done.log[-4000:]}"
        return done

    return run


def test_etl_by_decorator(run_example):
    run = run_example("etl_decorator")
    found = run.xcom("transform")
    assert found["films"] == 200
    assert run.xcom("transform", "year") == found["year"]
    assert run.xcom("report") == f"The best of 200 films are of {found['year']}"


def test_etl_by_operator(run_example):
    run = run_example("etl_operator")
    assert sum(run.xcom("transform").values()) == 1000
    assert "computing on leases/" in run.log


def test_executors_chosen_from_an_xcom(run_example):
    run = run_example("executors_from_xcom")
    assert run.xcom("compute") == {"most_executors": 2, "sum": 12499997500000}


def test_mapped_tasks_over_partitions(run_example):
    run = run_example("mapped_partitions")
    assert run.xcom("total") == 1500
    assert [run.xcom("sized", map_index=index) for index in (0, 1)] == [5, 500]


def test_a_shared_lease(run_example, spark_broker):
    run = run_example("shared_lease")
    assert (run.xcom("count"), run.xcom("mean")) == (100, 49.5)
    name = run.xcom("acquire_spark_lease")
    assert run.log.count(f"Attached to {name} as generation") == 3
    assert f"{name} is given back" in run.log


def test_sql(run_example):
    run = run_example("sql")
    assert run.xcom("write") == 0
    assert run.xcom("report") == [{"score": score, "films": 10} for score in range(99, 89, -1)]
    assert run.xcom("show") == 10


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


@pytest.mark.parametrize("name", ["from_spark_submit", "from_kubernetes_pod", "from_spark_kubernetes"])
def test_a_program_that_was_submitted(run_example, name):
    run = run_example(name)
    assert run.states["words"] == "success"
    assert "to 2" in run.log


def test_the_predecessors_dag(run_example):
    run = run_example("from_pyspark_on_k8s")
    assert (run.xcom("count"), run.xcom("squares")) == (100, 14)


def test_task_pyspark(run_example):
    run = run_example("from_task_pyspark")
    assert (run.xcom("rows"), run.xcom("context")) == ([1, 2, 3], 6)
