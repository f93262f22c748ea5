"""Text of others can do nothing to a terminal."""

import io
import logging
import os
import pty
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sparkbroker.client._async_broker  # noqa: F401  it makes the logger's messages visible
from sparkbroker.client._progress import lost_error
from sparkbroker.client.visible import VisibleMessages, VisibleText, visible
from sparkbroker.v1 import broker_pb2 as pb


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü é 漢字 [red] \\x1b", "plain ü é 漢字 [red] \\x1b"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x1b]8;;http://x\x1b\\link", "\\x1b]8;;http://x\\x1b\\link"),
        ("\x9b31m", "\\x9b31m"),
        ("over\rwritten\b\x7f", "over\\x0dwritten\\x08\\x7f"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\u200bb\ufeff\u2028\u3164", "a\\u200bb\\ufeff\\u2028\\u3164"),
        ("\U000e0041\ud800", "\\U000e0041\\ud800"),
        ("one\ttwo\nthree\xa0", "one\ttwo\nthree\xa0"),
    ],
)
def test_what_would_act_is_escaped(text, shown):
    assert visible(text) == shown


def test_a_line_stays_one():
    assert visible("a\nb\r\n", lines=False) == "a\\x0ab\\x0d\\x0a"


@given(st.text(st.characters(codec=None)))
def test_nothing_is_left_that_acts_and_doing_it_twice_changes_nothing(text):
    once = visible(text)
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") and c not in "\t\n" for c in once)
    assert visible(once) == once
    once.encode()
    if text.isprintable() and text.isascii():
        assert once == text


def test_bytes_for_a_terminal_are_made_visible_also_where_a_character_comes_in_pieces():
    controller, terminal = pty.openpty()
    with os.fdopen(controller, "rb", buffering=0) as seen, os.fdopen(terminal, "w", encoding="utf-8") as stream:
        text = VisibleText(stream)
        data = "ü\x1b[2J\x9b\n".encode()
        for place in range(len(data)):
            text.buffer.write(data[place : place + 1])
        print("\x1b]0;x\x07", file=text, flush=True)
        text.flush()
        shown = b""
        while shown.count(b"\n") < 2:
            shown += seen.read(100)
        assert shown.decode() == "ü\\x1b[2J\\x9b\r\n\\x1b]0;x\\x07\r\n"


def test_bytes_for_a_pipe_stay_as_they_are_and_text_does_not():
    raw = io.BytesIO()
    text = VisibleText(io.TextIOWrapper(raw, encoding="utf-8"))
    text.buffer.write(b"\x1b[2J\xff")
    print("\x1b[2J", file=text, flush=True)
    assert raw.getvalue() == b"\x1b[2J\xff\\x1b[2J\n"


def test_the_clients_messages_are_visible(caplog):
    logger = logging.getLogger("sparkbroker.client")
    assert any(isinstance(found, VisibleMessages) for found in logger.filters)
    logger.warning("sparkbroker: %s", "\x1b]0;x\x07")
    assert caplog.messages == ["sparkbroker: \\x1b]0;x\\x07"]


def test_a_lost_leases_error_is_visible_and_its_data_are_as_they_were():
    lease = pb.Lease(name="leases/a", message="gone\nfake", exit=pb.DriverExit(log_tail=["\x1b[2J", "b"]))
    error = lost_error(lease)
    assert str(error).endswith(": gone\\x0afake\nThe driver's last log lines:\n  \\x1b[2J\n  b")
    assert error.log_tail == ("\x1b[2J", "b")
