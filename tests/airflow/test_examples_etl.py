"""As test_examples.py: extract, transform, load; in a file of their own, as processes share the tests by files."""

import pytest

pytestmark = [pytest.mark.spark, pytest.mark.timeout(400)]


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


def test_sql(run_example):
    run = run_example("sql")
    assert run.xcom("write") == 0
    assert run.xcom("report") == [{"score": score, "films": 10} for score in range(99, 89, -1)]
    assert run.xcom("show") == 10
