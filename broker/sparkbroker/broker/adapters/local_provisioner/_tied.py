"""Becomes the command that it is given, after asking Linux to kill it when the broker ends: ``python _tied.py PID COMMAND…``.

For processes that don't end with their standard input, as JVMs that aren't drivers. A program of its own: this can't be asked
for between fork and exec without running Python there, and what is asked for before is the broker's own.
"""

import ctypes
import os
import signal
import sys

_SET_DEATH_SIGNAL = 1


def main(parent: int, command: list[str]) -> None:
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the broker has ended meanwhile")
    os.execv(command[0], command)  # noqa: S606 - that is what this is for


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
