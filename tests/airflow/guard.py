"""Ends what a test run has left when it was killed: ``python guard.py FOLDER [FOLDER2]``, with the run at the other end of stdin.

The kernel closes stdin for a process that was killed. Then every process that has FOLDER in its arguments, environment or
working folder is told to end, and killed after a grace: Airflow's, PostgreSQL's, the broker's and its drivers', whatever
session they went to. FOLDER2 is removed then.

A run that ends in order says ``done`` first, and ends its processes itself.
"""

import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

GRACE = 8.0
"""Seconds between being told and being killed."""


def main(folder: str, remove: str = "") -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the end of the run ends it
    if "done" not in sys.stdin.read():
        end(folder)
        if remove:
            shutil.rmtree(remove, ignore_errors=True)


def end(folder: str) -> None:
    """TERM to all of them, KILL to those that are left after the grace."""
    deadline = time.monotonic() + GRACE
    for pid in members(folder):
        _send(pid, signal.SIGTERM)
    while members(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    while pids := members(folder):
        for pid in pids:
            _send(pid, signal.SIGKILL)
        time.sleep(0.05)


def members(folder: str) -> list[int]:
    """Living processes that have anything to do with the folder, but for this one and those above it."""
    # As a whole name: another run's folder may begin with this one's.
    needle, spared, found = re.compile(re.escape(os.fsencode(folder)) + rb"(?![\w.-])"), _ancestors(), []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            traces = [(entry / name).read_bytes() for name in ("cmdline", "environ")]
            traces.append(bytes((entry / "cwd").readlink()))
        except OSError:
            continue  # It has ended, is a zombie, or isn't ours to read.
        if int(entry.name) not in spared and any(needle.search(trace) for trace in traces):
            found.append(int(entry.name))
    return found


def _ancestors() -> set[int]:
    pids, pid = set(), os.getpid()
    while pid:
        pids.add(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pids


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    main(*sys.argv[1:])
