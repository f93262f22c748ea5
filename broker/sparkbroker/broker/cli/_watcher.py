"""The small process beside ``run``: if ``run`` is killed, it ends the command and removes the temporary folder.

Its standard input is a socket whose other end only ``run`` has. The one message is the command's pid, with a pidfd of it;
the end of the input is the end of ``run``, which ends this process before its own regular end. It is started as a file,
without site-packages, in a session of its own: a terminal's signals are not for it.

Arguments: the folder, and the seconds between SIGTERM and SIGKILL.
"""

# pathlib would double its start.
# ruff: noqa: PTH123, PTH208

import os
import select
import signal
import socket
import sys
import time

_LONGEST_MESSAGE = 64


def main() -> None:
    """Wait, and clean up if there is something to."""
    folder, grace = sys.argv[1], float(sys.argv[2])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    command = descriptor = 0
    with socket.socket(fileno=0) as run:
        while True:
            message, descriptors, _, _ = socket.recv_fds(run, _LONGEST_MESSAGE, 1)
            if not message:
                break
            command, descriptor = int(message), descriptors[0]
    if command and not select.select([descriptor], [], [], 0)[0]:
        end(command, grace)
    import shutil  # seldom needed, and slow to load

    shutil.rmtree(folder, ignore_errors=True)


def end(command: int, grace: float) -> None:
    """End a command with all that it has started: SIGTERM, ``grace`` seconds, SIGKILL.

    That is its descendants, and its process group if it leads one.
    """
    asked = _open(_family(command))
    # One that is stopped acts on a signal only once it is continued.
    _send(asked, signal.SIGTERM)
    _send(asked, signal.SIGCONT)
    left = _wait(asked, grace)
    # Also what was started meanwhile, by those that were left.
    family = {pid for process in left for pid in _family(process)}
    _send(left, signal.SIGKILL)
    _send(_open(family - left.keys()), signal.SIGKILL)


def _family(leader: int) -> "set[int]":
    """Pids of ``leader``, its descendants, and of the group that it leads."""
    parents, groups = {}, {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:  # a process's name may be any bytes
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:  # it has ended meanwhile
                continue
            parents[int(name)], groups[int(name)] = int(fields[1]), int(fields[2])
    found = {pid for pid, group in groups.items() if group == leader} | {leader}
    size = 0
    while size != len(found):
        size = len(found)
        found |= {pid for pid, parent in parents.items() if parent in found}
    return found


def _open(pids: "set[int]") -> "dict[int, int]":
    opened = {}
    for pid in pids:
        try:
            opened[pid] = os.pidfd_open(pid)
        except OSError:  # it has ended meanwhile
            continue
    return opened


def _send(processes: "dict[int, int]", number: int) -> None:
    for descriptor in processes.values():
        try:
            signal.pidfd_send_signal(descriptor, number)
        except OSError:  # it has ended, or has become another user's
            continue


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _wait(processes: "dict[int, int]", seconds: float) -> "dict[int, int]":
    """Wait until they have ended; those that haven't in time."""
    end_of_grace = _now() + seconds
    left = dict(processes)
    while left and (remaining := end_of_grace - _now()) > 0:
        ended = select.select(list(left.values()), [], [], remaining)[0]
        left = {pid: descriptor for pid, descriptor in left.items() if descriptor not in ended}
    return left


if __name__ == "__main__":
    main()
