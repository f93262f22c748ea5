"""Which templates a task may begin in the triggerer with."""

import pytest

from sparkbroker.airflow_provider._compat import DAG, START_FROM_TRIGGER
from sparkbroker.airflow_provider.operators.session import SparkSessionOperator
from sparkbroker.airflow_provider.renderable import PARTS, PLAIN, is_renderable

jinja2 = pytest.importorskip("jinja2")
ENVIRONMENT = jinja2.Environment(autoescape=False)
ALLOWED = sorted({*PLAIN, *(f"{name}.{part}" for name, parts in PARTS.items() for part in parts)})


@pytest.mark.parametrize("name", ALLOWED)
def test_a_name_that_is_listed_can_be_rendered_in_any_spelling(name):
    outer, _, part = name.partition(".")
    spelled = [name, f"{outer}['{part}']" if part else outer, f"{name}.x.y(1)[2]", f"{name} | upper | default('x')"]
    texts = [text for each in spelled for text in (f"a {{{{ {each} }}}}", f"{{% if {each} %}}b{{% endif %}}")]
    for text in texts:
        assert is_renderable({"a": [1, (text,)]}, ENVIRONMENT), text


@pytest.mark.parametrize(
    "text",
    [
        "{{ ti.xcom_pull(task_ids='first') }}", "{{ ti['xcom_pull']() }}", "{{ task_instance.xcom_pull() }}", "{{ ti }}",
        "{{ ti.hostname }}", "{{ ti | attr('xcom_pull') }}", "{{ ti['xcom_' ~ ds]() }}", "{{ [ti][0].xcom_pull() }}",
        "{% set t = ti %}{{ t.xcom_pull() }}", "{% with t = ti %}{{ t.xcom_pull() }}{% endwith %}",
        "{% macro m(t=ti) %}{{ t.xcom_pull() }}{% endmacro %}{{ m() }}", "{{ ds if params.x else ti.xcom_pull() }}",
        "{% for t in [ti] %}{{ t.xcom_pull() }}{% endfor %}", "{% if false %}{% set var = 1 %}{% endif %}{{ var.value.x }}",
        "{{ var.value.x }}", "{{ var.json.x }}", "{{ conn.x.host }}", "{{ dag_run }}", "{{ dag_run.get_task_instances() }}",
        "{{ dag.owner }}", "{{ task.op_kwargs }}", "{{ macros }}", "{{ macros.uuid.uuid4() }}", "{{ macros.datetime.now() }}",
        "{{ macros.my_plugin.f() }}", "{{ logical_date.now() }}", "{{ data_interval_end['diff_for_humans']() }}",
        "{{ (ds | length) ~ macros.dateutil.utils.today() }}", "{{ prev_start_date_success }}", "{{ prev_data_interval_end_success }}",
        "{{ inlets }}", "{{ inlet_events }}", "{{ outlet_events }}", "{{ triggering_asset_events }}",
        "{{ task_state_store.get('x') }}", "{{ my_macro(ds) }}", "{{ ds | my_filter }}", "{{ [1, 2] | random }}", "{{ lipsum() }}",
        "{% include 'x.sql' %}", "{% import 'x.j2' as x %}", "{% from 'x.j2' import y %}", "{% extends 'x.j2' %}",
        "{{ ds", "{% if ds %}", "{# ",
    ],
)  # fmt: skip
def test_everything_else_is_for_a_worker(text):
    assert not is_renderable(["plain", {"a": {"b": (text,)}}], ENVIRONMENT)


def test_text_that_is_no_template_is_the_same_everywhere():
    assert is_renderable({"a": ["x.sql", "{ds}", 3, None, "{% raw %}{{ ti.xcom_pull() }}{% endraw %}"]}, ENVIRONMENT)


def compute(spark): ...


def task(labels=None, dag=None, **given):
    with DAG("parsed", schedule=None, params={"a": 1}, **(dag or {})):
        return SparkSessionOperator(task_id="t", python_callable=compute, deferrable=True, labels=labels, **given)


def test_a_task_begins_in_the_triggerer_only_with_what_that_can_render(airflow_home):
    begins = task({"x": "{{ params.a }}-{{ ti.try_number }}"}).start_from_trigger
    assert begins is START_FROM_TRIGGER
    assert task(params={"a": 1}).start_from_trigger is START_FROM_TRIGGER
    native, other = {"render_template_as_native_obj": True}, {"template_undefined": jinja2.Undefined}
    assert not task({"x": "{{ ti.xcom_pull(task_ids='first') }}"}).start_from_trigger
    assert not task({"x": "{{ ds }}"}, native).start_from_trigger
    assert not task({"x": "{{ ds }}"}, other).start_from_trigger
    assert not task({"x": "{{ ds }}"}, {"user_defined_macros": {"ds": "mine"}}).start_from_trigger
    assert not task(conn_id="{{ var.value.broker }}").start_from_trigger


def test_what_airflow_prepares_in_the_triggerer_before_it_renders_is_no_danger(airflow_home):
    """An alias of assets there, or an invalid param of the task, would stop all its triggers."""
    sdk = pytest.importorskip("airflow.sdk")
    assert not task(inlets=[sdk.Asset("a")]).start_from_trigger
    assert not task(params={"a": 2}).start_from_trigger
    assert not task(params={"b": 1}).start_from_trigger
