"""The kill -9 loop in short: many clients on small processes. ``make torture`` runs it long."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LOOP = str(Path(__file__).with_name("kill_loop.py"))


@pytest.mark.promise(1)
@pytest.mark.promise(4)
@pytest.mark.promise(5)
@pytest.mark.promise(6)
@pytest.mark.promise(8)
@pytest.mark.promise(14)
@pytest.mark.timeout(300)
def test_50_rounds_lose_double_and_leak_nothing(state_folder):
    command = [sys.executable, LOOP, "--rounds", "50", "--clients", "14"]
    environment = os.environ | {"TMPDIR": str(state_folder)}
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        said, _ = process.communicate(timeout=280)
    except BaseException:
        process.terminate()  # it ends what it started
        process.communicate()
        raise
    print(said)
    assert process.returncode == 0, said
    counts = {line[:15].strip(): line[16:] for line in said.splitlines() if line[16:].isdecimal()}
    assert counts["kills"] == "50"
    # It was no idle run.
    assert int(counts["acquired"]) >= 50
    assert int(counts["used"]) >= 20
    assert int(counts["looks"]) >= 5
