"""However a task ends: its job is cancelled, its lease is given back, nothing is left, no other task's lease is touched.

Against the real scheduler, LocalExecutor and triggerer, and real Spark. Each end is measured, for docs/reference/airflow-ends.md;
nothing is asserted of times but bounds that are far off. Ends of a single task go on beside each other; ends in which a
service is restarted come after them, one at a time.
"""

import os
import platform
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import airflow
import psutil
import pytest

from tests.airflow.brokers import TTL, state_of
from tests.airflow.ends_table import EndsTable, Row
from tests.airflow.processes import until
from tests.airflow.services import WAIT, Place

pytestmark = [pytest.mark.services, pytest.mark.spark, pytest.mark.timeout(900)]
AT_ONCE = 4
SLOTS = 6
START = 300.0
"""Seconds for the way from a click to a running job: scheduler, driver, worker."""
FREE = 150.0
"""Seconds for the end of a lease whose holder has gone, on a busy machine."""
LIMIT = 600.0
"""Seconds for all of one end: a run that hangs tells what was seen, before pytest ends the test."""


class Running:
    """A run of a DAG of ends.py, and what its task and its job have left in the run's folder."""

    def __init__(self, services, broker, table, dag, folder, **conf):
        self.services, self.broker, self.table = services, broker, table
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        self.deadline = time.monotonic() + LIMIT
        self.place = Place(dag, services.trigger(dag, folder=str(self.folder), **conf), "compute")

    def mark(self, name, number=1):
        """What the try of that number has written under that name."""
        path = self.folder / f"{name}-{number}"
        return str(self.until(path.name, lambda: path.exists() and path.read_text(), START))

    def until(self, what, look, seconds):
        """As ``processes.until``, for that long, and not beyond the limit of all of it. A job that fails takes no CPU from others."""
        try:
            return until(f"{what} of {self.place}", look, self.left(seconds), said=self.said)
        except pytest.fail.Exception:
            self.finish()
            raise

    def left(self, seconds):
        return max(1.0, min(seconds, self.deadline - time.monotonic()))

    def ends(self):
        """The state of the task when it has ended."""
        return self.services.wait_task(self.place, seconds=self.left(WAIT))["state"]

    def said(self):
        marks = sorted(path.name for path in self.folder.iterdir())
        leases = [str(lease) for lease in self.broker.leases() if f"/{self.place.run}/" in lease.key]
        tasks, log = self.services.task(self.place), self.services.task_log(self.place)[-5000:]
        return "\n".join([f"{marks}", *leases, f"{tasks}", log, self.services.said()])

    def beating(self, number=1):
        """The lease, once the job has run for a while."""
        self.goes_on(number)
        return self.mark("lease", number)

    def goes_on(self, number=1):
        beat = self.mark("beat", number)
        self.until("another beat of the job", lambda: self.mark("beat", number) != beat, START)

    @property
    def worker(self):
        return psutil.Process(int(self.mark("pid")))

    def driver(self, name):
        return psutil.Process(self.broker.driver_pid(self.broker.client.get(name)))

    def times_told(self):
        """How often a trigger has begun to watch the waiting lease."""
        return self.services.task_log(self.place).count(" is QUEUED")

    def was_told(self):
        """Its process was told to end, and acted on it. Whether it could finish that before SIGKILL is the machine's affair."""
        assert "The task is being ended: its Spark jobs are cancelled" in self.services.task_log(self.place)

    def finish(self):
        (self.folder / "finish").touch()

    def ended(self, name):
        """The lease, once its driver is confirmed gone."""

        def look():
            lease = self.broker.client.get(name)
            return lease if lease.timings.HasField("end_time") else None

        return self.until(f"the end of {name}", look, FREE)

    def measured(self, end, cause, name, processes=(), *, number=1, state=None, outcome="RELEASED"):
        """The row: ``cause`` is when it began. The task's end is waited for, and that of its processes."""
        lease = self.ended(name)
        assert outcome in (state_of(lease), None), f"{state_of(lease)}\n{self.said()}"
        state = state or self.ends()
        last = float(self.mark("beat", number))
        free = lease.timings.end_time.ToNanoseconds() / 1e9
        self.table.add(Row(end, state, max(0.0, last - cause), max(0.0, free - cause), state_of(lease)))
        assert last <= free + 0.1, "the job went on after the lease was free"
        _, left = psutil.wait_procs(processes, FREE)
        assert not left, "the lease and the task have ended, and these live on"
        return state


# Ends of a single task. ``start(dag, **conf)`` begins a run.


def success(start):
    run = start(end="return")
    name = run.mark("lease")
    assert run.measured("success, a job left running", float(run.mark("left")), name) == "success"


def failure(start):
    run = start(end="raise")
    name = run.mark("lease")
    assert run.measured("failure, a job left running", float(run.mark("left")), name) == "failed"
    assert "the task's own error" in run.services.task_log(run.place)


def marked_failed(start):
    marked(start, "failed")


def marked_success(start):
    marked(start, "success")


def marked(start, state):
    run = start()
    name = run.beating()
    processes, cause = (run.worker, run.driver(name)), time.time()
    run.services.mark(run.place, state)
    assert run.measured(f"marked {state}", cause, name, processes, outcome=None) == state
    run.was_told()


def cleared(start):
    run = start()
    name = run.beating()
    processes, cause = (run.worker, run.driver(name)), time.time()
    run.services.clear(run.place)
    run.measured("cleared while it runs", cause, name, processes, state="runs again, on a new lease", outcome=None)
    run.was_told()
    second = run.beating(2)
    assert second != name
    run.finish()
    assert run.ends() == "success"
    run.ended(second)


def execution_timeout(start):
    run = start("ends_timeout")
    name = run.beating()
    processes = run.worker, run.driver(name)
    assert run.measured("`execution_timeout`", float(run.mark("left")), name, processes) == "failed"


def run_timeout(start):
    run = start("ends_run_timeout")
    name = run.beating()
    processes = run.worker, run.driver(name)
    assert run.services.wait_run(run.place.dag, run.place.run, run.left(WAIT)) == "failed"
    cause = time.time()
    assert run.measured("DAG run timeout", cause, name, processes, outcome=None) in ("skipped", "failed")
    run.was_told()


def worker_terminated(start):
    worker_signalled(start, signal.SIGTERM, "RELEASED").was_told()


def worker_killed(start):
    worker_signalled(start, signal.SIGKILL, "EXPIRED")


def worker_signalled(start, number, outcome):
    run = start()
    name = run.beating()
    processes, cause = (run.worker, run.driver(name)), time.time()
    run.worker.send_signal(number)
    assert run.measured(f"worker {number.name}", cause, name, processes, outcome=outcome) == "failed"
    return run


def driver_lost(start):
    run = start()
    name = run.beating()
    processes, cause = (run.worker, run.driver(name)), time.time()
    run.driver(name).kill()
    assert run.measured("driver lost", cause, name, processes, outcome="FAILED") == "failed"
    log = run.services.task_log(run.place)
    assert "SIGKILL" in log or "signal 9" in log, "the task's log doesn't say why the driver is lost"


SINGLE = {
    # The one that takes longest first.
    function.__name__: function
    for function in (
        run_timeout, execution_timeout, worker_killed, cleared, marked_failed, marked_success, worker_terminated,
        driver_lost, success, failure,
    )
}  # fmt: skip


@pytest.fixture(scope="module")
def table():
    made = EndsTable(airflow.__version__, TTL)
    yield made
    one = os.getloadavg()[1]
    made.write(f"On {os.cpu_count()} CPUs ({platform.machine()}), load average {one:.1f}, {time.strftime('%Y-%m-%d')}.")


@pytest.fixture(scope="module")
def start(airflow_services, spark_broker_process, table, session_folder):
    """``start(dag, **conf)``: a run. Another task's lease is untouched by all that happens to them; in the end all is free."""
    broker = spark_broker_process
    airflow_services.set_parallelism(SLOTS)

    def run(dag="ends", **conf):
        return Running(airflow_services, broker, table, dag, session_folder, **({"end": "wait"} | conf))

    with broker.client.lease(mode="LOCAL", key="somebody else's") as other:
        yield run
        assert state_of(broker.client.get(other.name)) == "READY"
        until(
            "no lease but that one to be there", lambda: [lease.name for lease in broker.live()] == [other.name], FREE
        )
    broker.until_free()


@pytest.fixture(scope="module")
def singles(request, start):
    """What comes of each end of a single task that is asked for; they go on beside each other."""
    asked = {item.callspec.params["end"] for item in request.session.items if item.function is test_end}
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="ends")
    yield {name: pool.submit(function, start) for name, function in SINGLE.items() if name in asked}
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("end", SINGLE)
def test_end(singles, end):
    singles[end].result()


# Ends in which a service is restarted.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_triggerer_restarted_while_the_task_waits(start, spark_broker_process, number):
    broker = spark_broker_process
    with broker.client.lease(mode="LOCAL", queue="full", cores=1):
        run = start(queue="full")
        key = run.place.run
        waiting = run.until("the lease", lambda: broker.lease_of(f"/{key}/"), START)
        run.services.wait_task(run.place, "deferred", seconds=run.left(WAIT))
        told = run.until("the place in the queue", run.times_told, START)
        run.services.restart("triggerer", number)
        run.until("the place in the queue, told anew,", lambda: run.times_told() > told, START)
        assert [lease.name for lease in broker.live() if f"/{key}/" in lease.key] == [waiting.name]
        assert state_of(broker.client.get(waiting.name)) == "QUEUED"
    assert run.beating() == waiting.name
    run.finish()
    cause = float(run.mark("left"))
    end = f"triggerer {number.name} while it waits: the lease stays; then success"
    assert run.measured(end, cause, waiting.name) == "success"


def test_scheduler_restarted(start):
    run = start()
    name = run.beating()
    run.services.restart("scheduler", signal.SIGTERM)
    other = run.services.trigger("trivial")
    assert run.services.wait_run("trivial", other, run.left(START)) == "success", (
        "the new scheduler doesn't do its work"
    )
    run.goes_on()
    run.finish()
    assert run.measured("scheduler restart: the job goes on; then success", float(run.mark("left")), name) == "success"


def test_broker_restarted_in_the_middle_of_a_query(start, spark_broker_process):
    run = start()
    name = run.beating()
    spark_broker_process.stop(signal.SIGKILL)
    run.goes_on()
    spark_broker_process.start()
    run.goes_on()
    assert state_of(spark_broker_process.client.get(name)) == "READY"
    run.finish()
    assert run.measured("broker restart: the query goes on; then success", float(run.mark("left")), name) == "success"
