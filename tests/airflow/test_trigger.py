"""What waits in the triggerer."""

import asyncio
import os
import signal
import uuid
from types import SimpleNamespace

import pytest

from sparkbroker.airflow_provider._compat import START_FROM_TRIGGER
from sparkbroker.airflow_provider.triggers import lease as triggers
from sparkbroker.airflow_provider.triggers.lease import CLASSPATH, LeaseTrigger, shared_broker
from sparkbroker.client import AsyncBroker
from tests.airflow.brokers import state_of

CONN = "sparkbroker_default"
MANY = 300


def ask(key, **more):
    return {"key": key, "request_id": str(uuid.uuid4()), "on_existing": "REPLACE", **more}


async def event_of(trigger):
    return (await anext(trigger.run())).payload


def waiting_leases(broker):
    """The names of those that wait in the queue, and of the tests' own."""
    return [lease.name for lease in broker.live() if "t-many-" in lease.key and state_of(lease) == "QUEUED"]


async def started(trigger, broker, key):
    """The trigger's task, once its lease is queued."""
    running = asyncio.create_task(event_of(trigger))
    while (lease := await asyncio.to_thread(broker.lease_of, key)) is None:
        assert not running.done(), running.result()
        await asyncio.sleep(0.02)
    return running, lease


@pytest.fixture
def full(small_broker):
    """All capacity is in use while the test runs."""
    with small_broker.client.lease(key="full", cores=4) as lease:
        yield lease


async def test_it_fires_with_the_lease_when_it_is_ready(small_broker):
    payload = await event_of(LeaseTrigger(conn_id=CONN, ask=ask("t-ready", mode="LOCAL")))
    assert payload.keys() == {"lease"}
    info = small_broker.client.get(payload["lease"])
    assert (state_of(info), info.key) == ("READY", "t-ready")
    small_broker.client.release(info.name)


async def test_it_is_made_anew_from_what_it_tells(small_broker):
    path, kwargs = LeaseTrigger(conn_id=CONN, cores="{{ 2 }}", profile="p", retry_window=3.0).serialize()
    assert path == CLASSPATH
    assert kwargs == {"conn_id": CONN, "cores": "{{ 2 }}", "profile": "p", "retry_window": 3.0}
    assert LeaseTrigger(**kwargs).serialize() == (path, kwargs)


def test_an_argument_that_a_lease_doesnt_have_is_refused():
    with pytest.raises(TypeError, match="LeaseTrigger has no argument 'coers'"):
        LeaseTrigger(conn_id=CONN, coers=1)


async def test_a_restart_of_the_triggerer_keeps_the_lease(small_broker, full):
    kwargs = {"conn_id": CONN, "ask": ask("t-restart", mode="LOCAL")}
    running, before = await started(LeaseTrigger(**kwargs), small_broker, "t-restart")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert state_of(small_broker.client.get(before.name)) == "QUEUED"
    again = asyncio.create_task(event_of(LeaseTrigger(**kwargs)))
    await asyncio.to_thread(full_release, full)
    assert await again == {"lease": before.name}
    small_broker.client.release(before.name)


def full_release(lease):
    lease.release()


async def test_a_user_who_ends_the_task_ends_the_lease(small_broker, full):
    trigger = LeaseTrigger(conn_id=CONN, ask=ask("t-kill"))
    running, lease = await started(trigger, small_broker, "t-kill")
    while not trigger._found:
        await asyncio.sleep(0.01)
    running.cancel("user-action")
    with pytest.raises(asyncio.CancelledError):
        await running
    await trigger.on_kill()
    await trigger.cleanup()
    assert small_broker.ended(lease.name) == "RELEASED"


async def test_what_a_user_ends_is_given_back_although_airflow_cancels_again(small_broker, full):
    trigger = LeaseTrigger(conn_id=CONN, ask=ask("t-kill-twice"))
    running, lease = await started(trigger, small_broker, "t-kill-twice")
    while not trigger._found:
        await asyncio.sleep(0.01)
    running.cancel("user-action")
    with pytest.raises(asyncio.CancelledError):
        await running
    os.kill(small_broker.service.pid, signal.SIGSTOP)  # so that it is in the middle of it
    try:
        killing = asyncio.create_task(trigger.on_kill())
        for _ in range(3):
            await asyncio.sleep(0.1)
            assert not killing.done(), "it has let itself be cancelled"
            killing.cancel("user-action")
    finally:
        os.kill(small_broker.service.pid, signal.SIGCONT)
    with pytest.raises(asyncio.CancelledError):
        await killing
    assert small_broker.ended(lease.name) == "RELEASED"


async def test_a_lease_that_was_there_before_is_left_alone(small_broker, full):
    await LeaseTrigger(conn_id=CONN, lease=full.name).on_kill()
    assert state_of(small_broker.client.get(full.name)) == "READY"
    assert await event_of(LeaseTrigger(conn_id=CONN, lease=full.name)) == {"lease": full.name}


async def test_an_answer_that_has_ended_meanwhile_is_asked_for_anew(small_broker):
    asked = ask("t-ended", mode="LOCAL")
    first = await event_of(LeaseTrigger(conn_id=CONN, ask=asked))
    small_broker.client.release(first["lease"])
    second = await event_of(LeaseTrigger(conn_id=CONN, ask=asked))
    assert second["lease"] != first["lease"]
    small_broker.client.release(second["lease"])


async def test_where_a_task_begins_in_the_triggerer_its_own_arguments_are_asked(small_broker):
    trigger = LeaseTrigger(conn_id=CONN, cores="2", mode="LOCAL", labels={"team": "x"})
    trigger.task_instance = SimpleNamespace(
        dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=1, id=uuid.uuid4(), task=None
    )
    info = small_broker.client.get((await event_of(trigger))["lease"])
    assert (info.key, info.spec.driver.cores, info.spec.labels["team"]) == ("d/r/t/-1", 2, "x")
    assert info.spec.labels["airflow_task_id"] == "t"
    small_broker.client.release(info.name)


@pytest.mark.parametrize(
    ("given", "reason", "said"),
    [
        ({"profile": "nope"}, "NOT_FOUND", "there is no profile 'nope'"),
        ({"lease_queue": "nope"}, "NOT_FOUND", "there is no queue 'nope'"),
        ({"memory": "999t"}, "NEVER_FITS", "ask for less"),
        ({"conf": {"spark.master": "x"}}, "INVALID_FIELD", "spark.master"),
        ({"cores": "many"}, "", "cores: 'many' is not a count"),
    ],
)
async def test_what_no_retry_mends_is_told_as_that(small_broker, given, reason, said):
    trigger = LeaseTrigger(conn_id=CONN, **given)
    trigger.task_instance = SimpleNamespace(
        dag_id="d", run_id="r", task_id="bad", map_index=-1, try_number=1, id=uuid.uuid4(), task=None
    )
    payload = await event_of(trigger)
    assert said in payload["error"]
    assert (payload["permanent"], payload["reason"]) == (True, reason)


@pytest.mark.skipif(not START_FROM_TRIGGER, reason="no templates in this version's triggers")
@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{{ nope }}", "UndefinedError: 'nope'"),
        ("{{ ds.x.y }}", "UndefinedError"),
    ],
)
async def test_what_fails_while_it_renders_is_told_with_the_argument(airflow_home, template, said):
    trigger = LeaseTrigger(conn_id=CONN, cores="{{ 2 }}", labels={"x": [template]})
    trigger.template_fields = ("cores", "labels")
    trigger.render_template_fields({"ds": "2024-01-01"})
    payload = await event_of(trigger)
    assert payload["error"].startswith("labels: its template can't be rendered")
    assert said in payload["error"]
    assert payload["permanent"]


async def test_a_connection_that_is_not_there_is_told_and_may_come(airflow_home):
    payload = await event_of(LeaseTrigger(conn_id="missing", ask=ask("t-missing")))
    assert payload["error"].startswith("connection 'missing': ")
    assert not payload["permanent"]


async def test_a_lease_that_ends_while_it_waits_is_told(small_broker, full):
    running, lease = await started(LeaseTrigger(conn_id=CONN, ask=ask("t-lost")), small_broker, "t-lost")
    await asyncio.to_thread(small_broker.client.release, lease.name)
    payload = await running
    assert (payload["permanent"], payload["lease"]) == (False, lease.name)
    assert "RELEASED" in payload["error"]


async def test_all_triggers_share_one_channel_until_the_last_has_gone(small_broker, full):
    names = [f"t-many-{number}" for number in range(MANY)]
    running = [asyncio.create_task(event_of(LeaseTrigger(conn_id=CONN, ask=ask(name, mode="LOCAL")))) for name in names]
    while len(waiting := await asyncio.to_thread(waiting_leases, small_broker)) < MANY:
        assert not any(trigger.done() for trigger in running)
    assert len(triggers._shared) == 1
    assert [shared.users for shared in triggers._shared.values()] == [MANY]
    async with shared_broker(CONN) as one, shared_broker(CONN) as other:
        assert one is other
        assert isinstance(one, AsyncBroker)
    await asyncio.to_thread(full.release)
    for trigger in asyncio.as_completed(running):
        event = await trigger
        waiting.remove(event["lease"])
        await asyncio.to_thread(small_broker.client.release, event["lease"])
    assert not waiting
    assert not triggers._shared


async def test_the_log_tells_changes_and_nothing_twice(small_broker, full):
    lines = []
    trigger = LeaseTrigger(conn_id=CONN, ask=ask("t-log", mode="LOCAL"))
    trigger._log = SimpleNamespace(
        info=lambda form, *values: lines.append(form % values)
    )  # Airflow's is its own affair
    running, lease = await started(trigger, small_broker, "t-log")
    while not any("position 1 of 1" in line for line in lines):
        await asyncio.sleep(0.02)
    await asyncio.to_thread(full.release)
    await running
    small_broker.client.release(lease.name)
    assert len(lines) == len(set(lines))
    assert lines[-1].startswith(f"{lease.name} is READY")


async def test_a_broken_template_is_told_with_its_argument(airflow_home):
    if not START_FROM_TRIGGER:
        pytest.skip("no templates in this version's triggers")
    trigger = LeaseTrigger(conn_id=CONN, cores="{{ params.cores }}", memory="{{ nope }}", labels={"a": "{{ 'b' }}"})
    trigger.template_fields = ("cores", "memory", "labels")
    trigger.render_template_fields({"params": {"cores": 2}})
    payload = await event_of(trigger)
    assert payload["error"].startswith(
        "memory: its template can't be rendered (UndefinedError: 'nope' is undefined); use"
    )
    assert (payload["permanent"], trigger.cores) == (True, "2")
