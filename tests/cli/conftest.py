"""The command line as people meet it: real processes, real brokers, an empty home."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests import java

COMMAND = [sys.executable, "-P", "-m", "sparkbroker.broker"]
WAIT = 60


class Shell:
    """Runs ``sparkbroker`` in a home of its own, whose path is short enough for sockets."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.scratch = home / "tmp"
        self.scratch.mkdir()
        self.env = {
            "SPARKBROKER__STORE__CLASS_ARCHIVES": "false",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "HOME": str(home),
            "TMPDIR": str(self.scratch),
            "LANG": "C.UTF-8",
            "SPARKBROKER__CAPACITY__LOCAL__CPU": "2",
            "SPARKBROKER__CAPACITY__LOCAL__MEMORY": "8g",
            **java.ENVIRONMENT,
        }

    def command(self, *arguments: str) -> list[str]:
        return [*COMMAND, *arguments]

    def __call__(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run to its end."""
        return subprocess.run(
            self.command(*arguments),
            env=self.env | env,
            capture_output=True,
            text=True,
            timeout=WAIT,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def start(self, *arguments: str, **options) -> subprocess.Popen[str]:
        """Start, without a controlling terminal."""
        return subprocess.Popen(
            self.command(*arguments),
            env=self.env | options.pop("env", {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **options,
        )


@pytest.fixture(scope="module")
def shell(run_folder):
    home = Path(tempfile.mkdtemp(prefix="c", dir=run_folder))
    yield Shell(home)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def broker(shell):
    """A broker on the default socket, for the module."""
    process = shell.start("serve")
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "broker.serving" in line:
            break
    else:
        pytest.fail("".join(lines))
    # What it says from now on is read by nobody: a pipe that is full would stop it.
    drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
    process.stderr.close()
    yield process
    process.terminate()
    assert process.wait(WAIT) == 0
    drain.wait(WAIT)
    assert process.stdout is not None
    process.stdout.close()
