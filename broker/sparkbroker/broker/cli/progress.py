"""Tells, on stderr, what a lease waits for: a status line on a terminal, else a line whenever it changes."""

import sys
from types import TracebackType
from typing import Self

from rich.status import Status
from rich.text import Text

from sparkbroker.broker.cli.output import console
from sparkbroker.client import Progress
from sparkbroker.client.visible import visible


def sentence(progress: Progress) -> str:
    """What to tell. Pure, and the same while nothing changes."""
    if progress.broker_unreachable:
        return f"the broker is away, waiting for it: {progress.message}"
    attempt = f" (attempt {progress.attempt})" if progress.attempt > 1 else ""
    match progress.state:
        case "QUEUED":
            place = f" {progress.position} of {progress.queue_length}" if progress.position else ""
            why = ": " + (progress.message or progress.reason) if progress.message or progress.reason else ""
            return f"queued{place}{attempt}{why}"
        case "PROVISIONING":
            return f"starting{attempt}: {progress.message or 'the driver is being created'}"
        case "READY":
            return "ready"
        case _:
            return f"{progress.state.lower()}{attempt}: {progress.message}"


class ProgressDisplay:
    """A context manager; ``show`` after it has begun. Prints nothing twice."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = console(stderr=True, quiet=quiet)
        self._status: Status | None = None
        self._told = ""

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._console.quiet:
            self._status = self._console.status("")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def show(self, progress: Progress) -> None:
        """Tell how far it is."""
        self.say(sentence(progress))

    def say(self, text: str) -> None:
        """Tell something else."""
        if text == self._told:
            return
        self._told = text
        if self._status is not None:
            self._status.update(Text(visible(text, lines=False)))
        elif not self._console.quiet:
            print(f"sparkbroker: {visible(text, lines=False)}", file=sys.stderr, flush=True)
