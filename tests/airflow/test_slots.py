"""Waiting takes no worker slot: with two of them, twenty tasks wait on a full queue, and another DAG runs."""

import re

import pytest

from tests.airflow.brokers import state_of
from tests.airflow.processes import until
from tests.airflow.services import AIRFLOW_3, LOOK, Place

pytestmark = [pytest.mark.services, pytest.mark.spark, pytest.mark.timeout(1200)]
TASKS = 20
LONG = 300.0


def test_twenty_waiting_tasks_hold_no_slot(airflow_services, spark_broker_process):
    broker = spark_broker_process
    airflow_services.set_parallelism(2)
    with broker.client.lease(mode="LOCAL", queue="full", cores=1, key="holds the queue"):
        run = airflow_services.trigger("slots")

        def waiting():
            tasks = airflow_services.control.tasks("slots", run)
            return sum(task["state"] == "deferred" for task in tasks) == TASKS

        until("all tasks to wait in the triggerer", waiting, LONG, said=airflow_services.said, every=LOOK)
        until(
            "all leases to be queued",
            lambda: len(_queued(broker, run)) == TASKS,
            LONG,
            said=airflow_services.said,
        )

        other = airflow_services.trigger("trivial")
        assert airflow_services.wait_run("trivial", other) == "success"

        assert waiting(), "a task stopped waiting"
        assert len(_queued(broker, run)) == TASKS
        until(
            "the task's log to tell its place in the queue",
            lambda: re.search(
                r"is QUEUED, position \d+ of \d+", airflow_services.task_log(Place("slots", run, "waits_7"))
            ),
            LONG,
        )
        # What a click does to one task that waits, it does to no other.
        airflow_services.mark(Place("slots", run, "waits_0"), "failed")
        assert airflow_services.wait_task(Place("slots", run, "waits_0"))["state"] == "failed"
        assert waiting_count(airflow_services, run) == TASKS - 1
        for number in range(1, TASKS):
            airflow_services.mark(Place("slots", run, f"waits_{number}"), "failed")
        assert airflow_services.wait_run("slots", run, LONG) == "failed"
        # The queue stays full until then: one whose turn comes in the second between a click and the triggerer's look would
        # get its lease, for nobody.
        if not AIRFLOW_3:  # which tells a trigger nothing of a click: those leases would end by their wait_ttl
            for lease in _queued(broker, run):
                broker.client.release(lease.name)
        until("no lease of theirs to wait", lambda: not _queued(broker, run), LONG, said=airflow_services.said)
    broker.until_free()


def waiting_count(services, run):
    return sum(task["state"] == "deferred" for task in services.control.tasks("slots", run))


def _queued(broker, run):
    return [lease for lease in broker.live() if run in lease.key and state_of(lease) == "QUEUED"]
