"""Without a broker, ``run`` starts one that lives and dies with it."""

import os
import select
import signal
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(120)

LOCAL = ("run", "--mode", "local", "--cores", "1", "--memory", "512m")


def pids(shell):
    """Live processes that carry the shell's home, this one apart: pid -> command line."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if line and str(shell.home).encode() in environment:
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


@pytest.mark.promise(6)
def test_it_ends_and_removes_its_folder_when_run_is_killed(shell):
    process = shell.start(*LOCAL, "--", "sh", "-c", "echo up; exec sleep 1000")
    assert process.stdout.readline() == "up\n"
    [folder] = [path for path in shell.scratch.iterdir() if (path / "run").exists()]
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    [sleeper] = [pid for pid, line in pids(shell).items() if line.startswith("sleep")]
    os.kill(sleeper, signal.SIGKILL)  # The command outlives us; its broker must not.
    process.stdout.close()
    process.stderr.close()
    assert all_end(shell)
    assert not folder.exists()


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
