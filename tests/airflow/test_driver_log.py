"""The driver's log in the task's log: what is a line, what is loud enough, and what stands against reading it."""

import logging
import threading

import pytest

from sparkbroker.airflow_provider import driver_log


class Log:
    """As a task's, remembering."""

    def __init__(self):
        self.lines: list[tuple[int, str]] = []

    def log(self, level, form, *values):
        self.lines.append((level, form % values))

    def info(self, form, *values):
        self.log(logging.INFO, form, *values)

    def warning(self, form, *values):
        self.log(logging.WARNING, form, *values)

    debug = info


def test_lines_come_in_pieces_of_any_size():
    assert list(driver_log.lines_of([b"a\nb", b"c\r\n", b"", b"\xc3", b"\xbc end"])) == ["a", "bc", "ü end"]
    long = list(driver_log.lines_of([b"x" * 20_000, b"\n"]))
    assert "".join(long) == "x" * 20_000
    assert max(map(len, long)) <= 8192


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("26/11/21 16:15:28 INFO SessionHolder: x", "INFO"),
        ("2026-11-21T16:15:28.434 [main] ERROR Executor: x", "ERROR"),
        ('{"ts":"2026-11-21","level":"WARN","msg":"x"}', "WARN"),
        ("\tat java.base/java.lang.Thread.run", "FATAL"),
        ("an ERROR in the middle", "FATAL"),
    ],
)
def test_a_line_has_a_level_or_that_of_the_line_before(line, level):
    assert driver_log.level_of(line, "FATAL") == level


def test_lines_from_the_level_on_are_told_as_they_come():
    log, more = Log(), threading.Event()

    def pieces():
        yield b"26/11/21 16:15:28 WARN A: loud\n\tand more\n"
        more.wait(30)
        yield b"26/11/21 16:15:29 INFO A: quiet\n\tand more\n26/11/21 16:15:30 ERROR A: last"

    live = driver_log.LiveLog(pieces, "WARN", log)
    while len(log.lines) < 2:
        live.wait(0.01)
    more.set()
    live.wait(30)
    assert [text.removeprefix("driver: ") for _, text in log.lines] == [
        "26/11/21 16:15:28 WARN A: loud",
        "\tand more",
        "26/11/21 16:15:30 ERROR A: last",
    ]
    assert [level for level, _ in log.lines] == [logging.WARNING, logging.WARNING, logging.ERROR]


def test_the_tail_is_a_group():
    log = Log()
    driver_log.show_tail(log, "leases/a", lambda: iter([b"one\ntwo\n"]))
    assert [text for _, text in log.lines] == [
        "::group::Spark driver log of leases/a: the last 2 lines",
        "driver: one",
        "driver: two",
        "::endgroup::",
    ]


def test_a_log_that_cant_be_read_hides_no_other_error(monkeypatch):
    log, never = Log(), threading.Event()

    def fails():
        raise OSError("no way")

    def hangs():
        never.wait(30)
        return iter([])

    driver_log.show_tail(log, "leases/a", lambda: iter([]))
    driver_log.show_tail(log, "leases/a", fails)
    monkeypatch.setattr(driver_log, "TAIL_TIMEOUT", 0.01)
    driver_log.show_tail(log, "leases/a", hangs)
    never.set()
    assert [text for _, text in log.lines] == [
        "The driver of leases/a has logged nothing",
        "The driver's log of leases/a could not be read: no way",
        "The driver's log of leases/a could not be read: TimeoutError",
    ]


def test_a_live_log_that_breaks_off_says_so():
    log = Log()
    driver_log.LiveLog(lambda: (_ for _ in ()).throw(OSError("cut off")), "INFO", log).wait(30)
    assert log.lines == [(logging.WARNING, "The driver's log is no longer followed: cut off")]
