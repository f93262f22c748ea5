"""The cluster's daemons: started in sessions of their own, remembered by pid and start time, ended by exactly those."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.cluster.layout import BIN, LOGS, RUN
from tools.cluster.needs import search_path
from tools.cluster.problems import ClusterError

PIDS = RUN / "pids"
"""A line of JSON for each daemon: the fields of ``Daemon``."""
POLL = 0.1
SHUTDOWN = 10.0
"""Seconds that daemons get to end by themselves."""


@dataclass(frozen=True, slots=True)
class Daemon:
    """A process that was started here. Pid and start time together are never used again before the next boot.

    ``started`` is in clock ticks after boot, as /proc has it.
    """

    pid: int
    started: int
    name: str
    argv: tuple[str, ...] = ()

    def lives(self) -> bool:
        return self.started >= 0 and _start_time(self.pid) == self.started


def run(
    *argv: object, check: bool = True, quiet: bool = False, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """A command to its end. Raises ClusterError with its last words if it fails, unless ``check`` is off.

    ``quiet`` keeps what it prints out of the terminal; it's in the result.
    """
    words = [str(word) for word in argv]
    pipe = subprocess.PIPE if quiet else None
    done = subprocess.run(words, check=False, text=True, stdout=pipe, stderr=pipe, cwd=cwd, env=environment())
    if check and done.returncode:
        said = (done.stderr or done.stdout or "").strip()[-2000:]
        raise ClusterError(f"`{' '.join(words[:6])}` ended with status {done.returncode}{': ' + said if said else ''}")
    return done


def environment() -> dict[str, str]:
    """This process's, with our binaries first on PATH: containerd looks there for its shim. What make and pytest tell their
    children is left out: a test run ends what carries the name of its folder, and a daemon stays."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTEST"))}
    return {**kept, "PATH": os.pathsep.join([str(BIN), search_path()])}


def start(name: str, argv: Sequence[object]) -> None:
    """A daemon, in a session of its own, that writes to a log file of its name. It takes the place of a dead one."""
    LOGS.mkdir(parents=True, exist_ok=True)
    words, settings = [str(word) for word in argv], environment()
    program = shutil.which(words[0], path=settings["PATH"])
    if program is None:
        raise ClusterError(
            f"there is no {words[0]}; `python3 -m tools.cluster build` compiles what isn't a Debian package's"
        )
    appended = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    # Not subprocess: it wants to wait for what it started, and these outlive this program.
    pid = os.posix_spawn(
        program,
        words,
        settings,
        setsid=True,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(LOGS / f"{name}.log"), appended, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )
    _remember([*_but_dead(name), Daemon(pid, _start_time(pid), name, tuple(words))])


def restart(name: str, *, kill: bool = False) -> None:
    """Ends a daemon, or kills it, and starts it again as it was. Raises ClusterError if there is none of that name."""
    found = {daemon.name: daemon for daemon in daemons()}
    if name not in found:
        raise ClusterError(f"no {name!r} was started; there are: {', '.join(found) or 'none'}")
    if kill:
        os.kill(found[name].pid, signal.SIGKILL)
    _end([found[name]])
    start(name, found[name].argv)


def wait(what: str, ready: Callable[[], bool], *, seconds: float = 240) -> None:
    """Returns when ``ready`` is true; raises ClusterError after ``seconds``, or as soon as a daemon has died."""
    end = time.monotonic() + seconds
    while not ready():
        dead = [daemon.name for daemon in daemons() if not daemon.lives()]
        if dead:
            raise ClusterError(
                f"{what} can't become ready, since {', '.join(dead)} has ended; see {LOGS}/{dead[0]}.log"
            )
        if time.monotonic() > end:
            raise ClusterError(f"{what} was not ready in {seconds:g} s; see the logs in {LOGS}")
        time.sleep(POLL)


def daemons() -> list[Daemon]:
    """All that were started since the last ``stop_all``, in that order."""
    if not PIDS.exists():
        return []
    records = map(json.loads, PIDS.read_text().splitlines())
    return [Daemon(**(record | {"argv": tuple(record["argv"])})) for record in records]


def stop_all() -> None:
    """Ends every daemon, the last started first, and then what containerd left running in the pods."""
    _end(daemons()[::-1])
    for shim in _shims():
        for pid in [*_children(shim), shim]:  # The first process of a container takes all others with it.
            _kill(pid)
    _wait_for(lambda: not _shims())


def _remember(known: Sequence[Daemon]) -> None:
    beside = PIDS.with_suffix(".new")
    beside.write_text("".join(json.dumps(asdict(daemon)) + "\n" for daemon in known))
    beside.replace(PIDS)


def _but_dead(name: str) -> list[Daemon]:
    return [daemon for daemon in daemons() if daemon.name != name or daemon.lives()]


def _end(ending: Sequence[Daemon]) -> None:
    """In this order; what doesn't listen is killed. A stopped process is woken for it."""
    for numbers in ((signal.SIGTERM, signal.SIGCONT), (signal.SIGKILL,)):
        for daemon in ending:
            for number in numbers:
                if daemon.lives():
                    os.kill(daemon.pid, number)
        _wait_for(lambda: not any(daemon.lives() for daemon in ending))


def _wait_for(done: Callable[[], bool]) -> None:
    end = time.monotonic() + SHUTDOWN
    while not done() and time.monotonic() < end:
        time.sleep(POLL)


def _start_time(pid: int) -> int:
    """Clock ticks after boot; -1 if there's no such process, or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return -1
    return -1 if fields[0] == "Z" else int(fields[19])


def _shims() -> list[int]:
    """The pids of this cluster's containerd shims: each holds a pod, and survives its containerd."""
    return list(_with_arguments(b"containerd-shim-runc-v2", os.fsencode(f"{RUN}/")))


def _with_arguments(*needles: bytes) -> Iterator[int]:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (entry / "cmdline").read_bytes()
        except OSError:  # It has ended.
            continue
        if all(needle in arguments for needle in needles):
            yield int(entry.name)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # It has ended.
        return []


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
