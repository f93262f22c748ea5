"""What every test may ask for, and the check that a test run leaves no process behind."""

import fcntl
import importlib.util
import os
import re
import select
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import hypothesis
import pytest

NEEDS_ARE_ERRORS = "CI"
"""The environment variable under which a missing need fails a test instead of skipping it."""
GRACE = 5.0
"""Seconds that a process which was told to end gets after the last test."""


# How long an example takes to be made is the machine's affair: no test asserts times.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(scope="session")
def need() -> Callable[[object, str], None]:
    """``need(condition, why)``: what the machine must have for this test.

    Missing, it is an error where ``CI`` is set, so that no test stops running unseen, and elsewhere a skip that says why.
    """

    def check(condition: object, why: str) -> None:
        if condition:
            return
        if os.environ.get(NEEDS_ARE_ERRORS):
            pytest.fail(f"this machine lacks what the test needs: {why}", pytrace=False)
        pytest.skip(why)

    return check


@pytest.fixture
def state_folder(run_folder: Path) -> Path:
    """An empty folder of mode 0700, with a path short enough for a unix socket in it (107 bytes)."""
    return Path(tempfile.mkdtemp(prefix="s", dir=run_folder))


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder under which this test run keeps everything."""
    return tmp_path_factory.getbasetemp()


@pytest.fixture
def oom_kills(run_folder: Path) -> Iterator[None]:
    """Of the tests that have the kernel kill for want of memory, and those that tell such a kill from others, one at a time.

    The kernel counts them for the whole machine; another process of this run has a folder beside ours.
    """
    shared = run_folder.parent if "PYTEST_XDIST_WORKER" in os.environ else run_folder
    with (shared / "oom-kills.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session", autouse=True)
def signals_as_at_a_terminal() -> None:
    """A run in the background or under nohup begins with signals ignored, and every process that it starts inherits it."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def no_class_archives() -> Iterator[None]:
    """Brokers of the tests don't train archives: each would take a minute of CPU from the tests after it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARKBROKER__STORE__CLASS_ARCHIVES", "false")
        yield


@pytest.fixture(scope="session", autouse=True)
def no_leftovers(run_folder: Path) -> Iterator[None]:
    """After the run nothing lives that was started by it: whatever has its folder in arguments, environment or cwd."""
    yield
    leftovers = {pid: command for pid, command in _started_by(run_folder).items() if not _ends_by_itself(pid)}
    if not leftovers:
        return
    for pid in leftovers:
        _end(pid)
    shown = "\n".join(f"  {pid}: {command}" for pid, command in leftovers.items())
    pytest.fail(f"the run left processes behind (ended now):\n{shown}", pytrace=False)


def _started_by(folder: Path) -> dict[int, str]:
    """Pid -> command line of live processes that carry ``folder``, but for this one and those above it."""
    # As a whole name: another run's folder may begin with this one's.
    needle = re.compile(re.escape(os.fsencode(folder)) + rb"(?![\w.-])")
    spared = _ancestors()
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        if pid in spared:
            continue
        try:
            traces = [(entry / name).read_bytes() for name in ("cmdline", "environ")]
            traces.append(bytes((entry / "cwd").readlink()))
        except OSError:  # It has ended, is a zombie, or isn't ours to read.
            continue
        if any(needle.search(trace) for trace in traces):
            found[pid] = traces[0].replace(b"\0", b" ").decode(errors="replace")[:200]
    return found


def _ancestors() -> set[int]:
    """This process and all above it: a shell that set ``--basetemp`` is no leftover."""
    pids, pid = set(), os.getpid()
    while pid:
        pids.add(pid)
        stat = Path(f"/proc/{pid}/stat").read_text()
        pid = int(stat.rpartition(")")[2].split()[1])
    return pids


def _ends_by_itself(pid: int) -> bool:
    """Whether it is gone within the grace: a driver that was told to end may be at it."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], GRACE)[0])
    finally:
        os.close(process)


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@pytest.fixture(scope="session")
def docs_generate() -> ModuleType:
    """``docs/generate.py``, which isn't in a package."""
    path = Path(__file__).parents[1] / "docs" / "generate.py"
    spec = importlib.util.spec_from_file_location("docs_generate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
