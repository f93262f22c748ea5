"""What of an argument is known only when its task runs."""

from datetime import timedelta

from sparkbroker.airflow_provider import late


def test_plain_is_what_json_and_durations_can_hold():
    assert late.is_plain({"a": [1, "x", None, {"b": timedelta(1)}]})
    assert not late.is_plain({"a": [object()]})
    assert not late.is_plain({1: "a"})


def test_a_template_is_found_at_any_depth():
    assert late.has_template({"a": [1, ("{{ x }}",)]})
    assert late.has_template("{% if x %}a{% endif %}")
    assert not late.has_template({"a": ["{x}", None, 3, timedelta(1)]})
