"""What a logged event carries, and what it never does."""

import io
import json
import logging
from collections.abc import Iterator
from contextvars import copy_context

import pytest
import structlog

from sparkbroker.broker import log_setup


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    yield stream
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_events_carry_what_the_call_is_about(lines):
    log_setup.set_up(form="json", stream=lines)

    def call():
        log_setup.bind_lazily(lambda: {"lease": "leases/1", "rpc": "GetLease"})
        structlog.get_logger().info("lease.read", rpc="mine")

    copy_context().run(call)
    structlog.get_logger().info("elsewhere")
    first, second = (json.loads(line) for line in lines.getvalue().splitlines())
    assert (first["event"], first["lease"], first["rpc"], first["level"]) == ("lease.read", "leases/1", "mine", "info")
    assert first["timestamp"].endswith("Z")
    assert "lease" not in second


def test_fields_of_calls_that_log_nothing_are_never_made(lines):
    log_setup.set_up(form="json", level="warning", stream=lines)

    def call():
        log_setup.bind_lazily(lambda: pytest.fail("made"))
        structlog.get_logger().info("quiet")

    copy_context().run(call)
    assert lines.getvalue() == ""


@pytest.mark.promise(11)
@pytest.mark.parametrize("form", ["json", "console"])
def test_secrets_are_hidden(lines, form):
    log_setup.set_up(form=form, stream=lines)
    log = structlog.get_logger()
    log.info("x", authorization="hunter2", token="hunter2", headers={"authorization": "hunter2"})
    log.info("x", endpoint={"url": "sc://", "headers": "hunter2"})
    logging.getLogger("lib").error("shown %s", "as it is", extra={"token": "hunter2"})
    text = lines.getvalue()
    assert "hunter2" not in text
    assert "sc://" in text
    assert "shown as it is" in text


def test_exceptions_are_logged_in_full(lines):
    log_setup.set_up(form="console", stream=lines)
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger().exception("rpc.failed")
    assert "ValueError: broken" in lines.getvalue()


def test_a_console_shows_what_others_write_and_does_not_obey_it(lines):
    log_setup.set_up(form="console", stream=lines)
    structlog.get_logger().warning("x\x1b[2J", message="a\nb\x9b31m", parts=["\x1b]0;x"], **{"k\x1b": "v"})
    logging.getLogger("lib").error("said %s", "\x1b]0;x\x07")
    try:
        raise ValueError("broken \x1b[2J")
    except ValueError:
        structlog.get_logger().exception("failed")
    text = lines.getvalue()
    assert not set(text) & {"\x1b", "\x9b", "\x07"}, text
    for shown in ("x\\x1b[2J", "a\\x0ab\\x9b31m", "said \\x1b]0;x\\x07", "ValueError: broken \\x1b[2J"):
        assert shown in text
