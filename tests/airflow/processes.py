"""What tests of Airflow start outside of pytest, and how they wait for it."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


def until(
    what: str, look: Callable[[], T | None], seconds: float, *, said: Callable[[], str] = str, every: float = 0.05
) -> T:
    """What ``look`` returns, once that is something. It is polled: what is waited for happens in other processes."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            pytest.fail(f"still waiting after {seconds:g} s for {what}\n{said()}")
        time.sleep(every)
    return found


class Service:
    """A command in a session of its own that logs to ``FOLDER/NAME.log``; it may be killed and started again.

    ``options`` are Popen's.
    """

    def __init__(self, name: str, command: Sequence[str], env: Mapping[str, str], folder: Path, **options: Any) -> None:
        self.name = name
        self.command = list(command)
        # The folder in its environment is how all that it starts is found: see guard.py.
        self.env = {**env, "SPARKBROKER_TEST_FOLDER": str(folder)}
        self.folder = folder
        self.options = options
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self.options,
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self, number: int = signal.SIGTERM, seconds: float = 20.0) -> None:
        """A signal, and the process's end; then the end of what is left of its session."""
        if self.process is None:
            return
        if self.running:
            self.process.send_signal(number)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(seconds)
        end_session(self.process.pid)

    def said(self, lines: int = 40) -> str:
        """The end of its log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return f"--- {self.name}\n" + "\n".join(text.splitlines()[-lines:])


def end_session(session: int) -> None:
    """KILL to every process of a session, until there is none."""
    while pids := _session(session):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)


def _session(session: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, sid = (entry / "stat").read_text().rpartition(") ")[2].split()[:4]
        except OSError:
            continue  # It has ended.
        if int(sid) == session and state not in "ZX":
            found.append(int(entry.name))
    return found
