"""``run`` around commands that need no Spark (mode LOCAL leases capacity only): what passes through, and what is undone."""

import json
import os
import pty
import re
import select
import signal
import sys
import time

import pytest

pytestmark = pytest.mark.timeout(120)

COMMAND = (sys.executable, "-P", "-m", "sparkbroker.broker")
LOCAL = ("run", "--mode", "local", "--cores", "1", "--memory", "512m")


def live_leases(shell):
    return json.loads(shell("-o", "json", "lease", "list").stdout).get("leases", [])


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 3"], 3),
        (["sh", "-c", "kill -KILL $$"], 137),
        (["sh", "-c", "kill -TERM $$"], 143),
        (["no-such-command"], 127),
        (["/etc/passwd"], 126),
        (["/"], 126),
    ],
)
def test_the_exit_status_passes_through_and_the_lease_is_released(shell, broker, command, status):
    result = shell(*LOCAL, "--", *command)
    assert result.returncode == status, result.stderr
    assert live_leases(shell) == []


def test_the_command_finds_its_session_in_the_environment(shell, broker):
    inherited = {"SPARK_REMOTE": "sc://old", "SPARK_CONNECT_AUTHENTICATE_TOKEN": "t", "PYTHONPATH": "/mine"}
    module = shell.home / "helper.py"
    module.write_text("answer = 42\n")
    other = shell.home / "beside.py"
    other.write_text("")
    code = """
import importlib.util, json, os, helper
assert importlib.util.find_spec("beside") is None
file = os.environ["PYSPARK_SUBMIT_ARGS"].split()[-2]
assert os.stat(file).st_mode & 0o777 == 0o600
print(json.dumps(dict(os.environ) | {"answer": helper.answer, "file": open(file).read().splitlines()}))
"""
    options = ("--conf", "spark.sql.session.timeZone=Europe/Tallinn", "--py-files", str(module))
    result = shell(*LOCAL, *options, "--", "python", "-c", code, **inherited)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["answer"] == 42
    assert "SPARK_REMOTE" not in found
    assert "SPARK_CONNECT_AUTHENTICATE_TOKEN" not in found
    assert found["MASTER"] == "local[1]"
    assert "spark.sql.session.timeZone=Europe/Tallinn" in found["file"]
    (files,) = (line for line in found["file"] if line.startswith("spark.submit.pyFiles="))
    assert files.endswith("/modules/helper.py")
    assert found["PYSPARK_SUBMIT_ARGS"].endswith("pyspark-shell")
    assert found["PYTHONPATH"].endswith(":/mine")
    assert re.fullmatch("leases/[0-9a-z-]+", found["SPARKBROKER_LEASE"])
    assert found["SPARKBROKER_URL"] == f"unix://{shell.home}/.local/state/sparkbroker/run/broker.sock"


TRAP = "trap 'echo {0}; exit 9' {0}; echo up; while :; do sleep 0.1; done"


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "QUIT"])
def test_a_signal_reaches_the_command_once(shell, broker, name):
    process = shell.start(*LOCAL, "--", "sh", "-c", TRAP.format(name))
    assert process.stdout.readline() == "up\n"
    process.send_signal(getattr(signal, f"SIG{name}"))
    output, errors = process.communicate(timeout=60)
    assert (output, process.returncode) == (f"{name}\n", 9), errors
    assert live_leases(shell) == []


def test_a_signal_while_waiting_gives_the_place_back(shell, broker):
    with shell.start(*LOCAL, "--cores", "2", "--", "sh", "-c", TRAP.format("TERM")) as holder:
        assert holder.stdout.readline() == "up\n"
        waiting = shell.start(*LOCAL, "--", "true")
        line = next(line for line in waiting.stderr if "queued" in line)
        assert "cores" in line
        waiting.send_signal(signal.SIGINT)
        _, errors = waiting.communicate(timeout=60)
        assert waiting.returncode == 130, errors
        holder.terminate()
    assert live_leases(shell) == []


def test_a_wait_that_is_too_long_is_told_apart(shell, broker):
    with shell.start(*LOCAL, "--", "sh", "-c", TRAP.format("TERM")) as holder:
        assert holder.stdout.readline() == "up\n"
        result = shell(*LOCAL, "--cores", "2", "--acquire-timeout", "1s", "--", "true")
        assert result.returncode == 5, result.stderr
        assert "ACQUIRE_TIMEOUT" in result.stderr
        holder.terminate()


def test_a_lost_lease_ends_the_command_and_is_told(shell, broker):
    code = "trap 'echo ended; exit 0' TERM; python -P -m sparkbroker.broker lease release $SPARKBROKER_LEASE --message gone"
    result = shell(*LOCAL, "--", "sh", "-c", f"{code}; while :; do sleep 0.1; done")
    assert result.returncode == 6, result.stderr
    assert result.stdout.endswith("ended\n")
    assert "is lost: RELEASED, RELEASED_BY_HOLDER" in result.stderr


def test_what_the_broker_refuses_is_told_with_the_field(shell, broker):
    result = shell("run", "--memory", "2gg", "--", "true")
    assert result.returncode == 4
    assert "spec.driver.memory: '2gg' is not a memory size" in result.stderr
    result = shell("run", "--cores", "64000", "--", "true")
    assert result.returncode == 4
    assert "asks 64000 cores; queue `default` may use" in result.stderr


def read_until(descriptor, text, seconds=60):
    """What a terminal shows, up to a text."""
    shown, end = "", time.monotonic() + seconds
    while text not in shown:
        if not select.select([descriptor], [], [], max(0.0, end - time.monotonic()))[0]:
            pytest.fail(f"{text!r} was not shown: {shown!r}")
        shown += os.read(descriptor, 4096).decode()
    return shown


TELL_SIGNALS = """
import signal
numbers = {signal.SIGINT, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
print("up", flush=True)
while True:
    info = signal.sigwaitinfo(numbers)
    print("terminal" if info.si_pid == 0 else "passed on", info.si_signo, flush=True)
    if info.si_signo == signal.SIGTERM:
        raise SystemExit(5)
"""


def test_ctrl_c_at_a_terminal_reaches_the_command_once_and_does_not_end_us(shell, broker):
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(COMMAND[0], [*COMMAND, *LOCAL, "-q", "--", "python", "-c", TELL_SIGNALS], shell.env)
    read_until(terminal, "up")
    os.write(terminal, b"\x03")
    shown = read_until(terminal, "terminal 2")
    # Signals are taken in order: what was wrongly passed on would stand before this one.
    os.kill(pid, signal.SIGTERM)
    shown += read_until(terminal, "passed on 15")
    assert "passed on 2" not in shown
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 5


def test_an_interrupt_for_us_alone_is_passed_on_at_a_terminal_too(shell, broker):
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(COMMAND[0], [*COMMAND, *LOCAL, "-q", "--", "python", "-c", TELL_SIGNALS], shell.env)
    read_until(terminal, "up")
    os.kill(pid, signal.SIGINT)
    read_until(terminal, "passed on 2")
    os.kill(pid, signal.SIGTERM)
    read_until(terminal, "passed on 15")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    os.close(terminal)
