"""Text as arguments of an Ask. How each argument is read is held by tests/airflow/test_request.py, which reads more of them."""

import pytest

from sparkbroker.client import ask_text
from sparkbroker.client._ask import acquire_request

NAMES = {name: name for name in ask_text.READERS}


def test_text_becomes_a_request():
    said = {
        "cores": "2",
        "executors": "1,4",
        "mode": "local",
        "conf": '{"spark.a": true}',
        "jars": "/a.jar, /b.jar",
        "queue": "",
    }
    ask = ask_text.keywords(ask_text.read(said, NAMES))
    assert ask == {
        "cores": 2,
        "executors": (1, 4),
        "mode": "LOCAL",
        "conf": {"spark.a": "true"},
        "jars": ["/a.jar", "/b.jar"],
    }
    spec = acquire_request(ask, "id").spec  # type: ignore[arg-type]
    assert (spec.driver.cores, spec.executors.min_count, spec.executors.max_count) == (2, 1, 4)
    assert dict(spec.conf) == {"spark.a": "true"}


def test_an_error_names_the_argument_as_it_was_written():
    with pytest.raises(ask_text.InvalidArgument, match=r"lease_queue: 1\.5 is not text") as caught:
        ask_text.read({"lease_queue": 1.5}, {"queue": "lease_queue"})
    assert caught.value.argument == "lease_queue"
