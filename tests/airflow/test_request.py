"""A task's arguments as rendered, read into what the broker is asked for."""

from datetime import timedelta

import pytest

from sparkbroker.airflow_provider import request
from sparkbroker.airflow_provider.request import InvalidArgument, Options


def test_nothing_asked_is_nothing_said():
    assert request.ask({}) == {}
    assert request.ask(dict.fromkeys(request.LEASE_ARGUMENTS)) == {}
    assert request.options({}) == Options()


def test_rendered_text_is_read_as_what_is_meant():
    asked = request.ask({
        "cores": "2", "executor_cores": " 4 ", "priority": "-3", "executors": "1, 4", "memory": "2g",
        "conf": '{"spark.a": 1, "spark.b": null}', "packages": "a:b:1, c:d:2", "jars": '["/x.jar"]',
        "acquire_timeout": "90", "labels": '{"team": "x"}', "mode": "local", "lease_queue": "etl",
    })  # fmt: skip
    assert asked == {
        "cores": 2, "executor_cores": 4, "priority": -3, "executors": [1, 4], "memory": "2g",
        "conf": {"spark.a": "1", "spark.b": None}, "packages": ["a:b:1", "c:d:2"], "jars": ["/x.jar"],
        "acquire_timeout": 90.0, "labels": {"team": "x"}, "mode": "LOCAL", "queue": "etl",
    }  # fmt: skip
    assert request.client_ask(asked)["executors"] == (1, 4)


@pytest.mark.parametrize("executors", [3, "3", 3.0])
def test_executors_may_be_one_number(executors):
    assert request.ask({"executors": executors}) == {"executors": 3}


@pytest.mark.parametrize("executors", [[1, 4], (1, 4), "1,4", "[1, 4]", "(1, 4)"])
def test_executors_may_be_a_pair(executors):
    assert request.ask({"executors": executors}) == {"executors": [1, 4]}


def test_zero_executors_and_priority_zero_are_said():
    assert request.ask({"executors": 0, "priority": 0}) == {"executors": 0, "priority": 0}


def test_conf_takes_what_spark_calls_true():
    assert request.ask({"conf": {"a": True, "b": 1.5, "c": "x", "d": None}}) == {
        "conf": {"a": "true", "b": "1.5", "c": "x", "d": None}
    }


def test_durations_are_seconds():
    asked = request.ask({"max_duration": timedelta(minutes=2), "unattended_ttl": 3, "acquire_timeout": "0.5"})
    assert asked == {"max_duration": 120.0, "unattended_ttl": 3.0, "acquire_timeout": 0.5}


def test_options_are_the_tasks_own():
    options = request.options({
        "py_files": "a.py,b.zip", "files": ["x"], "archives": [], "lease_key": "k", "driver_log_level": "warning",
        "on_retry": "Reattach", "app_name": "n",
    })  # fmt: skip
    assert options == Options(
        py_files=("a.py", "b.zip"),
        files=("x",),
        lease_key="k",
        driver_log_level="WARN",
        on_retry="reattach",
        app_name="n",
    )


@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        ("cores", "two", "cores: 'two' is not a count; give a whole number, at least 1"),
        ("cores", 0, "cores: 0 is not a count; give a whole number, at least 1"),
        ("cores", True, "cores: True is not a count"),
        ("executor_cores", "1.5", "executor_cores: '1.5' is not a count"),
        (
            "executors",
            "a,b",
            "executors: 'a,b' is neither a number nor a pair; give a number, or the fewest and the most",
        ),
        ("executors", [1, 2, 3], "executors: [1, 2, 3] is neither"),
        ("executors", [4, 1], "executors: the fewest is 4 and the most 1; give the fewest first"),
        ("memory", "", "memory: '' is not a memory size; write one such as \"2g\""),
        ("memory", 2, "memory: 2 is not text"),
        ("mode", "cluster", "mode: 'CLUSTER' is unknown; give 'CONNECT', 'LOCAL' or 'CLIENT'"),
        ("conf", "a=b", "conf: 'a=b' is neither what is meant nor JSON of it"),
        ("conf", {"a": []}, "conf['a']: [] is neither text nor a number"),
        ("conf", ["a"], "conf: ['a'] is not a mapping; give a dict"),
        ("labels", {"a": None}, "labels['a']: None is neither"),
        ("pod", {"a": object}, "pod: holds what JSON can't"),
        ("packages", 3, "packages: 3 is not a list of texts; give a list of str"),
        ("jars", [1], "jars: [1] is not a list of texts"),
        ("acquire_timeout", "soon", "acquire_timeout: 'soon' is not a duration; give seconds or a timedelta"),
        ("max_duration", -1, "max_duration: -1 is out of range"),
        ("unattended_ttl", "nan", "unattended_ttl: 'nan' is out of range"),
        (
            "priority",
            "high",
            "priority: 'high' is not a priority; give a whole number: among the waiting, a greater one",
        ),
        ("coers", 1, "coers: there is no such argument; known are profile,"),
    ],
)
def test_bad_arguments_are_named(argument, value, said):
    with pytest.raises(InvalidArgument) as raised:
        request.ask({argument: value})
    assert str(raised.value).startswith(said)
    assert raised.value.argument.startswith(argument)


@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        ("on_retry", "again", "on_retry: 'again' is unknown; give 'replace' or 'reattach'"),
        ("driver_log_level", "LOUD", "driver_log_level: 'LOUD' is not a level; give one of ALL, TRACE"),
        ("lease_key", True, "lease_key: True is not text"),
        ("app_name", ["a"], "app_name: ['a'] is not text"),
    ],
)
def test_bad_options_are_named(argument, value, said):
    with pytest.raises(InvalidArgument) as raised:
        request.options({argument: value})
    assert str(raised.value).startswith(said)


def test_a_name_that_reads_as_a_number_is_one():
    """Where the DAG renders to native values, ``{{ ds_nodash }}`` is a number."""
    assert request.options({"lease_key": 20261122, "app_name": 3}) == Options(lease_key="20261122", app_name="3")
    assert request.ask({"profile": 1, "lease_queue": 2}) == {"profile": "1", "queue": "2"}


def test_long_values_are_shown_in_part():
    with pytest.raises(InvalidArgument) as raised:
        request.ask({"conf": "x" * 10_000})
    assert len(str(raised.value)) < 400


def test_text_of_a_file_may_begin_with_a_byte_order_mark():
    asked = request.ask(
        {"conf": '\ufeff{"spark.a": 1}', "packages": '\ufeff["a:b:1"]', "profile": "\ufeffsmall", "labels": "\ufeff"}
    )
    assert asked == {"conf": {"spark.a": "1"}, "packages": ["a:b:1"], "profile": "small"}
    assert request.options({"py_files": "\ufeffa.py,b.py"}).py_files == ("a.py", "b.py")
