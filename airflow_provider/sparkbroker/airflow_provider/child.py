"""Running a program as a child process: its output line by line, its end with ours. Blocking, from the main thread.

The child gets a process group of its own and dies with this process, also if that is killed with SIGKILL. Whatever it has
started in its group ends with it.
"""

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from sparkbroker.airflow_provider.text_lines import Lines

_LAUNCHER: Final = str(Path(__file__).with_name("_launch_child.py"))
_LOOK: Final = 0.5
"""Seconds between looks at the child, and at what else may end it."""
_DRAIN: Final = 2.0
"""Seconds of silence for which output is waited for when the child has ended but its own children hold the pipe."""
GRACE: Final = 2.0
"""Seconds from SIGTERM to SIGKILL. Airflow kills a task that is told to end after five."""
_EXIT_TIMEOUT: Final = 10.0
_PIECE: Final = 64 * 1024
_LARGEST_PIPE: Final = 1024 * 1024
"""Bytes. What the child itself has written is no more; its own children may write for ever."""
LONGEST_LINE: Final = 16 * 1024
"""Bytes after which a line is told in pieces."""


def run_child(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: str | None,
    say: Callable[[str], object],
    check: Callable[[], object],
) -> int:
    """Run the command to its end; its exit status, negative for a signal.

    ``say`` gets each line of its output (both streams); ``check`` is called about twice a second, and what it raises
    ends the child, as does any exception that reaches this thread. OSError if it can't be started.
    """
    process = subprocess.Popen(
        [sys.executable, "-I", _LAUNCHER, str(os.getpid()), *command],
        env=dict(environment),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
    )
    try:
        _follow(process, say, check)
    finally:
        _end(process)
    return process.wait(_EXIT_TIMEOUT)


def _follow(process: "subprocess.Popen[bytes]", say: Callable[[str], object], check: Callable[[], object]) -> None:
    assert process.stdout is not None  # noqa: S101  asked for above
    lines = Lines(LONGEST_LINE)
    late = 0
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            exited = _exited(process)
            if selector.select(_DRAIN if exited else _LOOK):
                piece = os.read(process.stdout.fileno(), _PIECE)
                late += len(piece) if exited else 0
                if not piece or late > _LARGEST_PIPE:
                    break
                _tell(lines.take(piece), say)
            elif exited:
                break
            check()
    _tell(lines.close(), say)
    while not _exited(process):  # It has closed its output, and works on.
        check()
        time.sleep(_LOOK)


def _tell(lines: Iterable[str], say: Callable[[str], object]) -> None:
    for line in lines:
        say(line)


def _exited(process: "subprocess.Popen[bytes]") -> bool:
    """Whether it has ended, without collecting it: its group's number stays its own until we have ended the rest of it."""
    if process.returncode is not None:
        return True
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end(process: "subprocess.Popen[bytes]") -> None:
    if not _exited(process):
        _signal(process, signal.SIGTERM)
        for _ in range(int(GRACE / 0.05)):
            if _exited(process):
                break
            time.sleep(0.05)
    _signal(process, signal.SIGKILL)
    if process.stdout is not None:
        process.stdout.close()
    process.wait(_EXIT_TIMEOUT)


def _signal(process: "subprocess.Popen[bytes]", number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return  # The group has ended by itself.
