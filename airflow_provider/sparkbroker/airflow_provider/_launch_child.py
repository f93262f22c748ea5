"""Becomes the program that it is given, after asking Linux to end it when its parent ends.

A program of its own, as this can't be asked for between fork and exec without running Python there.
"""

import ctypes
import os
import signal
import sys

_SET_DEATH_SIGNAL = 1


def _main(parent: int, command: list[str]) -> None:
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the process that started this program has ended meanwhile")
    try:
        os.execvpe(command[0], command, os.environ)  # noqa: S606  that is what this is for
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)  # noqa: T201  the program's own output
        sys.exit(127)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2:])
