"""Without a broker, ``run`` starts one that lives and dies with it."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(120)

LOCAL = ("run", "--mode", "local", "--cores", "1", "--memory", "512m")


def pids(shell):
    """Live processes that carry the shell's home: pid -> command line."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().decode(errors="replace")
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if line and str(shell.home) in environment + line:
            found[int(folder.name)] = line
    return found


def all_end(shell):
    """Wait until they have ended by themselves."""
    for pid, line in pids(shell).items():
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            assert select.select([descriptor], [], [], 30)[0], f"{pid} goes on: {line}"
        finally:
            os.close(descriptor)
    return True


def test_it_serves_the_command_and_leaves_nothing(shell):
    result = shell(*LOCAL, "--", "sh", "-c", 'echo "$SPARKBROKER_URL"; python -P -m sparkbroker.broker lease list')
    assert result.returncode == 0, result.stderr
    assert "starting one for this command" in result.stderr
    url, headings, lease = result.stdout.splitlines()
    assert url.startswith(f"unix://{shell.scratch}/sparkbroker-")
    assert headings.split()[:2] == ["LEASE", "STATE"]
    assert "READY" in lease
    assert list(shell.scratch.iterdir()) == []
    assert not (shell.home / ".local").exists()
    assert all_end(shell)


STUBBORN = """
trap '' HUP INT
sh -c 'trap "" TERM HUP; echo child; while :; do sleep 0.1; done' &
trap 'echo asked' TERM
while :; do sleep 0.1; done
"""


@pytest.mark.promise(6)
@pytest.mark.parametrize("command", ["echo up; exec sleep 1000", STUBBORN], ids=["plain", "stubborn"])
def test_when_run_is_killed_its_broker_command_and_folders_go_too(shell, command):
    process = shell.start(*LOCAL, "--", "sh", "-c", command)
    assert process.stdout.readline() in {"up\n", "child\n"}
    assert any(path.name.startswith("sparkbroker-run-") for path in shell.scratch.iterdir())
    assert any((path / "run").exists() for path in shell.scratch.iterdir())
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert all_end(shell)
    output = process.stdout.read()
    assert output == ("" if "up" in command else "asked\n"), "SIGTERM first"
    process.stdout.close()
    process.stderr.close()
    assert list(shell.scratch.iterdir()) == []


def test_a_regular_end_leaves_what_the_command_left_running(shell, tmp_path):
    """As without us: a program may start a daemon."""
    begun = shell.home / "daemon"
    result = shell(*LOCAL, "--", "sh", "-c", f"sleep 1000 </dev/null >/dev/null 2>&1 & echo $! > {begun}")
    assert result.returncode == 0, result.stderr
    os.kill(int(begun.read_text()), signal.SIGKILL)
    assert all_end(shell)


def test_what_keeps_it_from_starting_is_told(shell):
    bad = shell.home / "bad.toml"
    bad.write_text("[server]\nlisen = []\n")
    result = shell("run", "--config", str(bad), "--", "true")
    assert result.returncode == 1
    assert "the embedded broker ended" in result.stderr
    assert "server.lisen: there is no such key; did you mean server.listen?" in result.stderr
    assert not any(path.is_dir() and (path / "run").exists() for path in shell.scratch.iterdir())


def test_a_module_in_the_working_directory_is_not_the_brokers(shell, tmp_path):
    (tmp_path / "asyncio.py").write_text("raise SystemExit('not this one')")
    process = shell.start(*LOCAL, "--", "true", cwd=tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


KILLED_BEFORE_IT_WATCHES = """
import asyncio, os, signal, sys
from sparkbroker.broker.cli import child

def killed(command):
    print(command.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    await child.start(["touch", sys.argv[1]], dict(os.environ), killed)

asyncio.run(main())
"""


@pytest.mark.promise(6)
def test_a_command_that_nothing_watches_over_yet_does_not_begin(shell, tmp_path):
    begun = tmp_path / "begun"
    command = [sys.executable, "-P", "-c", KILLED_BEFORE_IT_WATCHES, str(begun)]
    result = subprocess.run(command, env=shell.env, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert all_end(shell)
    assert not begun.exists()


SIGNALLED_WHEN_IT_HAS_JUST_BEGUN = """
import asyncio, os, signal, sys
from pathlib import Path
from sparkbroker.broker.cli import child
from sparkbroker.broker.cli.main import main

opened = child._open

async def there(path):
    async with asyncio.timeout(60):
        while not Path(path).exists():
            await asyncio.sleep(0.01)

async def slowly(gate):
    number = await opened(gate)
    await there("up")
    os.kill(os.getpid(), signal.SIGQUIT)
    await there("taken")
    return number

child._open = slowly
sys.exit(main())
"""


def test_a_signal_reaches_a_command_that_has_just_begun(shell, tmp_path):
    trap = "trap 'touch taken; exit 9' QUIT; touch up; while :; do sleep 0.1; done"
    command = [sys.executable, "-P", "-c", SIGNALLED_WHEN_IT_HAS_JUST_BEGUN, *LOCAL, "--", "sh", "-c", trap]
    result = subprocess.run(
        command, env=shell.env, cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False
    )
    assert result.returncode == 9, result.stderr


ENDED_AT_THE_GATE = """
import asyncio, os, sys
from sparkbroker.broker.cli import child

def ended(command):
    os.kill(command.pid, int(sys.argv[1]))
    os.waitid(os.P_PID, command.pid, os.WEXITED | os.WNOWAIT)

async def main():
    command = await child.start(["touch", "begun"], dict(os.environ), ended)
    print(await command.wait())

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_command_that_ends_before_it_begins_has_its_signals_status(shell, tmp_path, number):
    command = [sys.executable, "-P", "-c", ENDED_AT_THE_GATE, str(int(number))]
    result = subprocess.run(
        command, env=shell.env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stdout == f"{128 + number}\n", result.stderr
    assert not (tmp_path / "begun").exists()
