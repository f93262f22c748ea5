"""The driver's log in the task's log: live from a level on, and its end when the task fails."""

import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, Final

from sparkbroker.airflow_provider.text_lines import Lines
from sparkbroker.client import ClientClosed, LeaseEnded

TAIL_LINES: Final = 50
TAIL_TIMEOUT: Final = 5.0
"""Seconds that a failing task waits for the end of its driver's log."""
_LONGEST_LINE: Final = 8192
_LEVEL_NUMBER: Final = {
    "ALL": 0, "TRACE": 5, "DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARN": logging.WARNING,
    "ERROR": logging.ERROR, "FATAL": logging.CRITICAL,
}  # fmt: skip
_PLAIN: Final = re.compile(r"^[0-9/.:\- T,]{8,30}\s+(?:\[[^\]]*\]\s+)?(TRACE|DEBUG|INFO|WARN|ERROR|FATAL)\b")
_JSON: Final = re.compile(r'^\{.*?"level"\s*:\s*"(TRACE|DEBUG|INFO|WARN|ERROR|FATAL)"')


def level_of(line: str, before: str) -> str:
    """The level of a line of Spark's log; a line that tells none (a stack trace) has that of the line before."""
    found = _PLAIN.match(line) or _JSON.match(line)
    return found.group(1) if found else before


def lines_of(pieces: Iterable[bytes]) -> Iterator[str]:
    """Whole lines of a log that comes in pieces of any size; a very long one is cut in several."""
    lines = Lines(_LONGEST_LINE)
    for piece in pieces:
        yield from lines.take(piece)
    yield from lines.close()


class LiveLog:
    """Writes the lines from ``level`` on into ``log`` as they come, in a thread of its own, until the log ends.

    It ends by itself with the driver, the lease or the client; an error of reading ends it too, with a line that says so.
    """

    def __init__(self, pieces: Callable[[], Iterable[bytes]], level: str, log: Any) -> None:
        self._pieces = pieces
        self._least = _LEVEL_NUMBER[level]
        self._log = log
        self._thread = threading.Thread(target=self._run, name="sparkbroker-driver-log", daemon=True)
        self._thread.start()

    def wait(self, timeout: float) -> None:
        """Give the last lines a moment, in seconds."""
        self._thread.join(timeout)

    def _run(self) -> None:
        level = "INFO"
        try:
            for line in lines_of(self._pieces()):
                level = level_of(line, level)
                number = _LEVEL_NUMBER[level]
                if number >= self._least:
                    self._log.log(max(number, logging.INFO), "driver: %s", line)
        except BaseException as error:  # noqa: BLE001  a thread's end: nobody is there to raise it to
            said = "The driver's log is no longer followed: %s"
            if isinstance(error, ClientClosed | LeaseEnded):
                self._log.debug(said, error)
            else:
                self._log.warning(said, error)


def read_tail(pieces: Callable[[], Iterable[bytes]], timeout: float) -> list[str]:
    """The lines, if they come within ``timeout`` seconds. Raise TimeoutError or what reading raises."""
    result: Future[list[str]] = Future()

    def run() -> None:
        try:
            result.set_result(list(lines_of(pieces())))
        except BaseException as error:  # noqa: BLE001  it is raised where the result is asked for
            result.set_exception(error)

    threading.Thread(target=run, name="sparkbroker-driver-log-tail", daemon=True).start()
    return result.result(timeout)


def show_tail(log: Any, lease: str, pieces: Callable[[], Iterable[bytes]]) -> None:
    """The end of the driver's log as a group in the task's; what stands against reading it is a line there."""
    try:
        lines = read_tail(pieces, TAIL_TIMEOUT)
    except Exception as error:  # noqa: BLE001  the task fails for another reason, which is not to be hidden
        log.warning("The driver's log of %s could not be read: %s", lease, str(error) or type(error).__name__)
        return
    if not lines:
        log.info("The driver of %s has logged nothing", lease)
        return
    log.info("::group::Spark driver log of %s: the last %d lines", lease, len(lines))
    for line in lines:
        log.info("driver: %s", line)
    log.info("::endgroup::")
