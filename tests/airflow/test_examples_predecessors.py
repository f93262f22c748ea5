"""As test_examples.py: DAGs in the style of what people come from."""

import pytest

pytestmark = [pytest.mark.spark, pytest.mark.timeout(400)]


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
