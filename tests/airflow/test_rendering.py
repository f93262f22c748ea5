"""What of a task's templates is a file's, what stays a value, and where a task begins whose files aren't everywhere."""

from typing import Any

import pytest

from sparkbroker.airflow_provider._compat import DAG, START_FROM_TRIGGER
from sparkbroker.airflow_provider.operators.script import SparkScriptOperator
from sparkbroker.airflow_provider.operators.session import SparkSessionOperator
from sparkbroker.airflow_provider.operators.sql import SparkSqlOperator
from sparkbroker.airflow_provider.triggers.lease import LeaseTrigger

FILES = """
from sparkbroker.airflow_provider.operators.session import SparkSessionOperator
from sparkbroker.airflow_provider.operators.sql import SparkSqlOperator

class Seen(SparkSqlOperator):
    def run_with_lease(self, context, lease):
        return [self.sql, self.parameters, self.app_name, dict(lease.info.spec.labels)["source"]]

def told(query, lease, templates_dict):
    return [query, templates_dict["query"], dict(lease.info.spec.labels)["source"]]

with DAG("files", schedule=None, template_searchpath=[FOLDER], params={"n": 3}) as dag:
    value = {
        "parameters": {"path": "{{ params.n }}.sql", "paths": ["a.sql"]}, "app_name": "daily.sql", "labels": {"source": "x.sql"},
    }
    Seen(task_id="one", sql="a.sql", **value)
    Seen(task_id="some", sql=["select 1", "a.sql"], **value)
    Seen.partial(task_id="mapped", **value).expand(sql=["a.sql", "select 2"])
    SparkSessionOperator(
        task_id="function", python_callable=told, op_kwargs={"query": "a.sql"}, templates_dict={"query": "a.sql"},
        templates_exts=[".sql"], labels={"source": "x.sql"},
    )
"""


def test_only_sql_names_files_and_all_else_is_a_value(small_broker, run_dag, tmp_path):
    (tmp_path / "a.sql").write_text("select {{ params.n }}")
    run = run_dag(f"FOLDER = {str(tmp_path)!r}\n{FILES}")
    assert run.state == "success", f"{run.states}\n{run.log[-4000:]}"
    values = [{"path": "3.sql", "paths": ["a.sql"]}, "daily.sql", "x.sql"]
    assert run.xcom("one") == ["select 3", *values]
    assert run.xcom("some") == [["select 1", "select 3"], *values]
    assert [run.xcom("mapped", map_index=index) for index in (0, 1)] == [["select 3", *values], ["select 2", *values]]
    assert run.xcom("function") == ["select 3", "select 3", "x.sql"]


@pytest.mark.skipif(not START_FROM_TRIGGER, reason="no templates in this version's triggers")
def test_a_triggers_arguments_name_no_files():
    trigger: Any = LeaseTrigger(conn_id="c", app_name="daily.sql", labels={"source": "{{ 1 }}.sql"})
    trigger.template_ext, trigger.template_fields = (".sql",), ("app_name", "labels")
    trigger.render_template_fields({})
    assert (trigger.app_name, trigger.labels) == ("daily.sql", {"source": "1.sql"})
    assert trigger._broken is None


def test_a_task_whose_files_are_not_where_it_is_parsed_begins_in_a_worker(airflow_home, tmp_path):
    (tmp_path / "here.sql").write_text("select 1")
    (tmp_path / "here.py").write_text("")

    def compute(spark): ...

    here, gone = str(tmp_path / "here.py"), str(tmp_path / "gone.py")
    with DAG("parsed", schedule=None, template_searchpath=[str(tmp_path)]) as dag:
        for name, operator, given in (
            ("sql", SparkSqlOperator, {"sql": "here.sql"}),
            ("sql_list", SparkSqlOperator, {"sql": ["select 1", "here.sql"]}),
            ("sql_tuple", SparkSqlOperator, {"sql": ("here.sql",)}),
            ("script", SparkScriptOperator, {"script": here, "py_files": [here], "app_name": "{{ ds }}"}),
            ("url", SparkSessionOperator, {"python_callable": compute, "files": ["https://example.com/a"]}),
            ("no_sql", SparkSqlOperator, {"sql": "gone.sql"}),
            ("no_sql_list", SparkSqlOperator, {"sql": ["select 1", "gone.sql"]}),
            ("no_sql_tuple", SparkSqlOperator, {"sql": ("gone.sql",)}),
            ("no_script", SparkScriptOperator, {"script": gone}),
            ("no_py_file", SparkScriptOperator, {"script": here, "py_files": [gone]}),
            ("no_file", SparkSessionOperator, {"python_callable": compute, "files": gone}),
        ):
            operator(task_id=name, deferrable=True, **given)
    dag.resolve_template_files()  # as where DAGs are parsed
    begins = {task.task_id: task.start_from_trigger for task in dag.tasks}
    expected = {name: START_FROM_TRIGGER and not name.startswith("no_") for name in begins}
    assert begins == expected


def test_a_task_that_the_triggerer_knows_too_little_of_begins_in_a_worker(airflow_home):
    def task(**given):
        return SparkSessionOperator(task_id="t", python_callable=lambda spark: spark, deferrable=True, **given)

    class Looking(SparkSessionOperator):
        def pre_execute(self, context): ...

    assert task(conf="{{ params.conf }}").start_from_trigger is START_FROM_TRIGGER
    assert not task(conf="{% include 'conf.json' %}").start_from_trigger
    assert not task(pre_execute=lambda context: None).start_from_trigger  # as of @task.skip_if
    assert not Looking(task_id="t", python_callable=lambda spark: spark, deferrable=True).start_from_trigger


MISSING = """
from sparkbroker.airflow_provider.operators.sql import SparkSqlOperator

with DAG("missing", schedule=None) as dag:
    SparkSqlOperator(task_id="t", sql="gone.sql", deferrable=True)
"""


def test_a_missing_sql_file_is_told_before_a_lease_is_asked_for(small_broker, run_dag):
    run = run_dag(MISSING)
    assert run.state == "failed"
    assert "TemplateNotFound" in run.log
    assert small_broker.lease_of("missing/") is None


def test_a_lease_that_was_waited_for_is_given_back_where_the_file_is_missing(small_broker, run_dag):
    """It was where the DAG was parsed, and isn't on the worker."""
    run = run_dag("""
        from sparkbroker.airflow_provider.identity import TaskIdentity
        from sparkbroker.airflow_provider.hooks.broker import SparkBrokerHook
        from sparkbroker.airflow_provider.operators.sql import SparkSqlOperator

        class Waited(SparkSqlOperator):
            def render_template_fields(self, context, jinja_env=None):
                who = TaskIdentity.of(context["ti"])
                with SparkBrokerHook().client() as broker:
                    broker.acquire(key=who.lease_key(), labels=who.labels())
                super().render_template_fields(context, jinja_env)

        with DAG("missing_later", schedule=None) as dag:
            Waited(task_id="t", sql="gone.sql", deferrable=True)
    """)
    assert run.state == "failed"
    lease = small_broker.lease_of("missing_later/")
    assert lease is not None
    if START_FROM_TRIGGER:
        assert small_broker.ended(lease.name) == "RELEASED"
    else:  # there it can't have waited before its templates were rendered
        small_broker.client.release(lease.name)
