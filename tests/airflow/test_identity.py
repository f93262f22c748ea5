"""Which lease is a task instance's."""

import uuid
from types import SimpleNamespace

import pytest

from sparkbroker.airflow_provider import identity
from sparkbroker.airflow_provider.identity import TaskIdentity
from sparkbroker.airflow_provider.request import Options

WHO = TaskIdentity(
    dag_id="d", run_id="manual__2026-01-01T00:00:00+00:00", task_id="g.t", try_number=1, id=str(uuid.uuid4())
)


def complete(who=WHO, asked=None, **options):
    return identity.complete_ask(asked or {}, who, options=Options(**options), request_id=identity.new_request_id())


def test_the_key_is_the_task_instances():
    assert WHO.lease_key() == "d/manual__2026-01-01T00:00:00+00:00/g.t/-1"
    assert TaskIdentity(dag_id="d", run_id="r", task_id="t", map_index=3).lease_key() == "d/r/t/3"


def test_a_slash_in_a_part_is_not_one_between_parts():
    assert (
        TaskIdentity(dag_id="a/b", run_id="c", task_id="t").lease_key()
        != TaskIdentity(dag_id="a", run_id="b/c", task_id="t").lease_key()
    )


def test_long_names_have_short_keys_of_their_own():
    long = [TaskIdentity(dag_id="d" * 250, run_id="r" * 250, task_id="t" * 249 + end) for end in "ab"]
    keys = [who.lease_key() for who in long]
    assert all(len(key) <= 256 and key.isprintable() for key in keys)
    assert keys[0] != keys[1]


def test_labels_are_the_same_for_all_tries():
    first, second = (TaskIdentity(dag_id="d", run_id="r", task_id="t", map_index=1, try_number=n) for n in (1, 2))
    assert first.labels() == second.labels()
    assert first.labels() == {
        "airflow_dag_id": "d",
        "airflow_run_id": "r",
        "airflow_task_id": "t",
        "airflow_map_index": "1",
    }
    assert "airflow_map_index" not in WHO.labels()
    assert all(len(value) <= 256 and value.isprintable() for value in
               TaskIdentity(dag_id="d\n" * 300, run_id="r", task_id="t").labels().values())  # fmt: skip


def test_one_try_has_one_request_id_and_the_next_another():
    again = TaskIdentity(dag_id=WHO.dag_id, run_id=WHO.run_id, task_id=WHO.task_id, id=WHO.id)
    retry = TaskIdentity(dag_id=WHO.dag_id, run_id=WHO.run_id, task_id=WHO.task_id, id=str(uuid.uuid4()))
    assert again.request_id() == WHO.request_id() != retry.request_id()
    assert str(uuid.UUID(WHO.request_id())) == WHO.request_id()
    nameless = TaskIdentity(dag_id="d", run_id="r", task_id="t")
    assert nameless.request_id() != nameless.request_id()


def test_the_id_after_an_ended_lease_is_always_the_same():
    one = identity.next_request_id(WHO.request_id(), "leases/a")
    assert one == identity.next_request_id(WHO.request_id(), "leases/a")
    assert one != identity.next_request_id(WHO.request_id(), "leases/b")


@pytest.mark.parametrize(
    ("options", "try_number", "expected"),
    [
        ({}, 1, "REPLACE"),
        ({}, 2, "REPLACE"),
        ({"on_retry": "reattach"}, 1, "REATTACH"),
        ({"lease_key": "mine"}, 1, "FAIL"),
        ({"lease_key": "mine"}, 2, "FAIL"),
        ({"lease_key": "mine", "on_retry": "reattach"}, 1, "FAIL"),
    ],
)
def test_an_earlier_lease_of_the_key(options, try_number, expected):
    who = TaskIdentity(dag_id="d", run_id="r", task_id="t", try_number=try_number)
    asked = complete(who, **options)
    assert asked["on_existing"] == expected
    assert asked["key"] == options.get("lease_key", who.lease_key())


@pytest.mark.parametrize(("on_retry", "expected"), [("replace", "REPLACE"), ("reattach", "REATTACH")])
def test_a_live_lease_of_the_users_key_is_another_runs_or_an_earlier_trys(on_retry, expected):
    first = complete(WHO, lease_key="mine", on_retry=on_retry)
    assert identity.after_conflict(first, {"airflow_dag_id": "other"}) is None
    assert identity.after_conflict(first, WHO.labels() | {"airflow_run_id": "another"}) is None
    second = identity.after_conflict(first, WHO.labels() | {"team": "x"})
    assert second is not None
    assert second["on_existing"] == expected
    assert second == identity.after_conflict(first, WHO.labels()), "the same, however often it is asked for"
    assert second["request_id"] != first["request_id"]


def test_a_lease_of_another_spec_is_replaced_instead_of_reattached_to():
    first = complete(WHO, on_retry="reattach")
    assert first["on_existing"] == "REATTACH"
    second = identity.after_conflict(first, WHO.labels())
    assert second is not None
    assert second["on_existing"] == "REPLACE"
    assert identity.after_conflict(second, WHO.labels()) is None


def test_a_key_is_quoted_where_it_is_looked_for():
    assert identity.live_of_key('a"b\\c') == r'key="a\"b\\c" AND live=true'


def test_the_users_labels_win():
    asked = complete(asked={"labels": {"airflow_dag_id": "mine", "team": "x"}, "cores": 2})
    assert asked["labels"] == WHO.labels() | {"airflow_dag_id": "mine", "team": "x"}
    assert asked["cores"] == 2


def test_only_a_lease_for_reattaching_is_kept():
    def kept(on_retry, window, **asked):
        found = identity.complete_ask(
            asked, WHO, options=Options(on_retry=on_retry), request_id="", retry_window=window, sharing="SHARED"
        )
        assert found["sharing"] == "SHARED"
        return found.get("unattended_ttl"), found.get("keep_when_holder_lost")

    assert kept("reattach", 400.0) == (400.0, True)
    assert kept("reattach", 400.0, unattended_ttl=900.0) == (900.0, True)
    assert kept("reattach", 0.0) == (None, None)
    assert kept("replace", 400.0) == (None, None)


@pytest.mark.parametrize(
    ("exponential", "most", "expected"),
    [(False, None, 300), (True, None, 2400), (True, 600.0, 600), (3.0, None, 8100), (True, 5000.0, 2400)],
)
def test_the_longest_delay_between_tries(exponential, most, expected):
    assert identity.longest_retry_delay(delay=300.0, retries=3, exponential=exponential, most=most) == expected


def test_an_unbounded_backoff_is_bounded():
    assert identity.longest_retry_delay(delay=300.0, retries=10**6, exponential=True, most=None) == 86400


def test_of_either_kind_of_task_instance():
    new = TaskIdentity.of(
        SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=None, try_number=2, id=uuid.UUID(int=1))
    )
    assert (new.map_index, new.try_number, new.id) == (-1, 2, str(uuid.UUID(int=1)))
    old = TaskIdentity.of(SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=0, try_number=1))
    assert (old.map_index, old.id) == (0, "")
    assert old.holder() == "airflow d.t[0] r try 1"
