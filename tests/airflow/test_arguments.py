"""Every argument of a lease may be a template and may differ from mapped task to mapped task."""

from typing import Any

import pytest

from sparkbroker.airflow_provider import request
from sparkbroker.airflow_provider._compat import DAG
from sparkbroker.airflow_provider.operators.lease import AcquireLeaseOperator
from sparkbroker.airflow_provider.operators.script import SparkScriptOperator
from sparkbroker.airflow_provider.operators.session import SparkSessionOperator
from sparkbroker.airflow_provider.operators.sql import SparkSqlOperator

WRITTEN: dict[str, tuple[Any, dict[str, Any]]] = {
    "profile": ("{{ params.p }}", {"profile": "p"}),
    "lease_queue": ("{{ params.q }}", {"queue": "q"}),
    "mode": ("{{ 'local' }}", {"mode": "LOCAL"}),
    "cores": ("{{ 1 + 1 }}", {"cores": 2}),
    "memory": ("{{ 2 }}g", {"memory": "2g"}),
    "memory_overhead": ("{{ 512 }}Mi", {"memory_overhead": "512m"}),
    "executors": ("{{ 1 }},{{ 4 }}", {"executors": [1, 4]}),
    "executor_cores": ("{{ 3 }}", {"executor_cores": 3}),
    "executor_memory": ("{{ 3 }}g", {"executor_memory": "3g"}),
    "executor_memory_overhead": ("{{ 1 }}g", {"executor_memory_overhead": "1g"}),
    "conf": ({"spark.a": "{{ 1 }}", "spark.b": None}, {"conf": {"spark.a": "1", "spark.b": None}}),
    "packages": (["g:{{ params.p }}:1"], {"packages": ["g:p:1"]}),
    "jars": ("{{ 'a.jar,b.jar' }}", {"jars": ["a.jar", "b.jar"]}),
    "py_files": (["{{ params.p }}.py"], {"py_files": ("p.py",)}),
    "files": (["{{ params.p }}"], {"files": ("p",)}),
    "archives": (["{{ params.p }}.zip#x"], {"archives": ("p.zip#x",)}),
    "pod": ({"env": [{"name": "A", "value": "{{ params.p }}"}]}, {"pod": {"env": [{"name": "A", "value": "p"}]}}),
    "priority": ("{{ -1 }}", {"priority": -1}),
    "labels": ({"team": "{{ params.p }}"}, {"labels": {"team": "p"}}),
    "lease_key": ("{{ params.p }}", {"lease_key": "p"}),
    "acquire_timeout": ("{{ 60 }}", {"acquire_timeout": 60.0}),
    "max_duration": ("{{ 61 }}", {"max_duration": 61.0}),
    "unattended_ttl": ("{{ 62 }}", {"unattended_ttl": 62.0}),
    "app_name": ("{{ params.p }}", {"app_name": "p"}),
    "driver_log_level": ("{{ 'info' }}", {"driver_log_level": "INFO"}),
    "on_retry": ("{{ 'reattach' }}", {"on_retry": "reattach"}),
}


def compute(spark): ...


OPERATORS: dict[type, dict[str, Any]] = {
    SparkSessionOperator: {"python_callable": compute},
    SparkScriptOperator: {"script": "x.py"},
    SparkSqlOperator: {"sql": "select 1"},
    AcquireLeaseOperator: {},
}


@pytest.fixture
def shared_lease(small_broker):
    """Its name; nobody is attached to it."""
    lease = small_broker.client.acquire(sharing="SHARED")
    lease.wait_ready()
    yield lease.name
    small_broker.client.release(lease.name)


def test_the_list_is_complete():
    assert tuple(WRITTEN) == request.LEASE_ARGUMENTS


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
def test_each_argument_is_a_template(airflow_home, operator):
    given = {name: template for name, (template, _) in WRITTEN.items()}
    with DAG("templated", schedule=None):
        task = operator(task_id="t", **OPERATORS[operator], **given)
    task.render_template_fields({"params": {"p": "p", "q": "q"}})
    asked = request.ask(task.lease_arguments())
    options = task.lease_options()
    for name, (_, expected) in WRITTEN.items():
        for key, value in expected.items():
            found = asked.get(key) if name in request.BROKER_ARGUMENTS else getattr(options, key)
            assert found == value, name


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
def test_each_argument_may_be_mapped(airflow_home, operator: Any):
    mapped = {name: [template] for name, (template, _) in WRITTEN.items()}
    with DAG("mapped", schedule=None):
        task = operator.partial(task_id="t", **OPERATORS[operator]).expand(**mapped)
    assert set(mapped) <= set(task.template_fields)


def test_what_says_nothing_of_a_lease_that_is_there_is_told(shared_lease, run_dag):
    run = run_dag(f"""
        from sparkbroker.airflow_provider.operators.session import SparkSessionOperator
        def compute(lease):
            return lease.name
        with DAG("idle", schedule=None) as dag:
            SparkSessionOperator(
                task_id="t", python_callable=compute, lease="{shared_lease}", cores=2, lease_key="k", app_name="told"
            )
    """)  # fmt: skip
    assert run.xcom("t") == shared_lease
    assert "Without effect, as the lease is there already (`lease`): cores, lease_key" in run.log
