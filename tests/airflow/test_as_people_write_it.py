"""DAGs as people write them, in a real Airflow: what LocalExecutor and the triggerer do differs from ``dag.test()``."""

import json
import re

import pytest

from tests.airflow.services import AIRFLOW_3, Place

pytestmark = [pytest.mark.services, pytest.mark.spark, pytest.mark.timeout(1200)]
LONG = 500.0


def test_a_task_renders_its_templates_where_that_can_be_done(airflow_services, spark_broker):
    airflow_services.set_parallelism(6)
    run = airflow_services.trigger("rendered", logical_date="2024-02-03T04:05:06Z", a="b")

    def ended(task):
        place = Place("rendered", run, task)
        state = airflow_services.wait_task(place, seconds=LONG)["state"]
        return state, airflow_services.task_log(place)

    (there, in_triggerer), (here, in_worker) = ended("triggerer"), ended("worker")
    assert (there, here) == ("success", "success"), in_triggerer
    told, expected = labels(in_triggerer), labels(in_worker)
    assert {name: value.replace("triggerer", "worker") for name, value in told.items()} == expected
    assert len(told) > 30
    state, log = ended("pulled")
    assert (state, labels(log)["x"]) == ("success", "pulled it")
    state, log = ended("broken")
    assert state == "failed"
    assert ("labels: its template can't be rendered (ZeroDivisionError" if AIRFLOW_3 else "ZeroDivisionError") in log


def labels(log):
    return dict(re.findall(r"label (\w+) = (.*?);", log))


EXPECTED = {
    "own function": [0, 3, 6],
    "own class": [100, 101, 102],
    "function beside": [0, 5, 10],
    "module beside": [0, 5, 10],
    "class beside": [0, 10, 20],
    "function that needs Airflow": [0, 7, 14],
    "imported in the function": [1, 2, 3],
    "pandas": [0, 3, 6],
    "map in pandas": [0, 7, 14],
    "apply in pandas": [0, 5, 10],
    "table": [15, 105],
}


def test_functions_of_the_dags_file_and_of_modules_beside_it_run_in_spark(airflow_services, spark_broker):
    airflow_services.set_parallelism(6)
    run = airflow_services.trigger("own_code")
    for task, more in (("decorated", {}), ("hook", {"rdd": [10]})):
        place = Place("own_code", run, task)
        assert airflow_services.wait_task(place, seconds=LONG)["state"] == "success", airflow_services.task_log(place)[
            -6000:
        ]
        found = re.search(r"found (\{.*?\});", airflow_services.task_log(place).replace('\\"', '"'))
        assert found is not None
        assert json.loads(found[1]) == EXPECTED | more
