"""Where a lease is on its way, in words, and when it is worth a line in the task's log."""

from typing import Any


class Teller:
    """Writes each change of a lease's progress into a log, once."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._told: tuple[object, ...] = ()

    def tell(self, progress: Any) -> None:
        """A line, unless it would say nothing new."""
        # Two that are equal in this need no second line. While it is queued the message's numbers alone are no news;
        # while it starts the message is the phase: the process runs, the port is open, an image is pulled.
        phase = progress.message if progress.state == "PROVISIONING" else ""
        news = (
            progress.state,
            progress.reason,
            progress.position,
            progress.attempt,
            progress.broker_unreachable,
            phase,
        )
        if news != self._told:
            self._told = news
            self._log.info("%s", sentence(progress))


def sentence(progress: Any) -> str:
    """One line."""
    words = [f"{progress.lease} is {progress.state}"]
    if progress.attempt > 1:
        words.append(f"attempt {progress.attempt}")
    if progress.position:
        words.append(f"position {progress.position} of {max(progress.queue_length, progress.position)}")
    if progress.broker_unreachable:
        words.append("the broker doesn't answer, trying on")
    if progress.reason and progress.reason != "UNSPECIFIED":
        words.append(progress.reason)
    text = ", ".join(words)
    return f"{text}: {progress.message}" if progress.message else text
