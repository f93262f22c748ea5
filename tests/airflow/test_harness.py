"""The tests' own tools do what the others rely on."""

import signal
import subprocess
import sys
from pathlib import Path

from tests.airflow.processes import until

GUARD = Path(__file__).with_name("guard.py")


def test_a_dag_of_text_runs_to_its_end_and_shows_states_values_and_output(run_dag):
    run = run_dag("""
        import logging
        with DAG("harness", schedule=None):
            pass
        with DAG("harness_two", schedule=None) as two:
            @task
            def give():
                print("printed by give")
                logging.getLogger(__name__).warning("logged by give")
                return {"a": [1]}
            @task
            def add(value, number):
                return value["a"][0] + number
            @task
            def fails():
                raise ValueError("said by fails")
            add.partial(value=give()).expand(number=[1, 2])
            fails()
    """, dag="two")  # fmt: skip
    assert run.state == "failed"
    assert run.states == {"give": "success", "add[0]": "success", "add[1]": "success", "fails": "failed"}
    assert run.xcom("give") == {"a": [1]}
    assert run.xcom("add", map_index=1) == 3
    assert run.xcom("fails") is None
    for said in ("printed by give", "logged by give", "said by fails"):
        assert said in run.log


def test_small_leases_come_and_go(small_broker):
    with small_broker.client.lease(key="harness") as lease:
        assert [live.name for live in small_broker.live()] == [lease.name]
    small_broker.until_free()
    assert small_broker.lease_of("harness").name == lease.name


def test_what_a_killed_run_has_started_is_ended(tmp_path):
    """A child with the folder in its environment, in a session of its own, with TERM ignored."""
    child = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    program = f"""if True:
        import subprocess, sys, time
        subprocess.Popen([sys.executable, "-S", {str(GUARD)!r}, {str(tmp_path)!r}], stdin=subprocess.PIPE, start_new_session=True)
        child = subprocess.Popen([sys.executable, "-c", {child!r}], env={{"F": {str(tmp_path)!r}}}, start_new_session=True,
                                 stdout=subprocess.PIPE)
        child.stdout.readline()
        print(child.pid, flush=True)
        time.sleep(600)
    """
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        run.send_signal(signal.SIGKILL)
        until("the child to be ended", lambda: _state(pid) in ("", "Z"), 30)


def _state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return ""
