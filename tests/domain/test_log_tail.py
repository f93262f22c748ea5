"""The last lines of a log have the cause among them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkbroker.broker.domain.lease.log_tail import LEFT_OUT, LINES, WIDTH, cause, log_tail

FRAMES = [f"\tat java.base/javax.security.auth.Login${n}.invoke(Login.java:{n})" for n in range(40)]
ENTRY = "26/12/01 05:44:10 ERROR SparkContext: Error initializing SparkContext."


def told(*lines):
    return log_tail("\n".join(lines))


def test_a_short_log_is_told_whole():
    assert told("a", "b") == ("a", "b")
    assert log_tail("") == ()


def test_without_a_trace_it_is_the_last_lines():
    lines = [f"{ENTRY} {n}" for n in range(50)]
    assert told(*lines) == tuple(lines[-LINES:])


def test_the_root_cause_stands_before_the_frames_that_follow_it():
    head = "org.apache.hadoop.security.KerberosAuthException: failure to login:"
    root = "Caused by: java.lang.NullPointerException: invalid null input: name"
    tail = told(ENTRY, head, *FRAMES[:16], root, *FRAMES, "\t... 16 more")
    assert tail[:3] == (head, root, LEFT_OUT)
    assert tail[3:] == (*FRAMES[-16:], "\t... 16 more")
    assert len(tail) == LINES


def test_what_follows_a_trace_does_not_hide_it():
    shutdown = [f"26/12/01 05:44:11 INFO ShutdownHookManager: {n}" for n in range(30)]
    tail = told("old.Error: not this one", *FRAMES, ENTRY, "a.b.MyException", *FRAMES, *shutdown)
    assert tail == ("a.b.MyException", LEFT_OUT, *shutdown[-(LINES - 2) :])


def test_an_error_of_python_within_a_trace_is_a_cause():
    python = ["org.apache.spark.api.python.PythonException: Traceback (most recent call last):",
              '  File "<stdin>", line 1, in f', "ValueError: boom", ""]  # fmt: skip
    assert told(*python, *FRAMES)[:3] == (python[0], "ValueError: boom", LEFT_OUT)


def test_a_trace_without_a_known_head_is_told_from_its_entry_on():
    assert told("26/12/01 05:44:10 ERROR Main: it failed", *FRAMES)[0] == "26/12/01 05:44:10 ERROR Main: it failed"


def test_of_many_causes_the_first_and_the_last_have_room():
    chain = [line for n in range(30) for line in (f"Caused by: x.Error: {n}", "\tat a.b(c.java:1)", "\t... 3 more")]
    tail = told("Exception in thread main x.Error: begin", *FRAMES, *chain)
    assert tail[0].endswith("begin")
    assert tail[LINES // 2 - 1].endswith(": 26")  # the following ones are among the last lines anyway
    assert tail[-3].endswith(": 29")


def test_a_cause_is_not_lost_by_making_room_for_another():
    tail = told("a.BError: begin", *FRAMES, "Caused by: x.Y", *FRAMES[: LINES - 1])
    assert tail[:3] == ("a.BError: begin", "Caused by: x.Y", LEFT_OUT)


LINE = st.one_of(  # mostly frames
    st.sampled_from(FRAMES[:3]), st.sampled_from(FRAMES[:3]),
    st.sampled_from([ENTRY, "Caused by: a.B: c", "a.b.CException: d", "", "\t... 3 more", "x" * 600, *FRAMES[:2]]),
    st.text(max_size=20),
)  # fmt: skip


@given(st.lists(LINE, max_size=60))
def test_it_is_bounded_keeps_the_order_and_loses_no_last_line_and_no_root_cause(lines):
    text = "\n".join(lines)
    lines = [line[:WIDTH] for line in text.splitlines()]
    tail = log_tail(text)
    assert len(tail) <= LINES
    assert all(len(line) <= WIDTH for line in tail)
    rest = iter(lines)
    assert all(line in rest for line in tail if line != LEFT_OUT), "in their order"
    if lines:
        assert tail[-1] == lines[-1]
        assert len(tail) == min(LINES, len(lines)) or LEFT_OUT in tail
    for index in cause(lines)[-1:]:
        assert lines[index] in tail


@pytest.mark.parametrize("line", ["\tat a.b.C$1.d(E.java:3)", "\tat java.base/x.Y.<init>(Z.java)", "\t... 16 more"])
def test_frames_are_known(line):
    assert cause(["a.B: c", line]) == [0]
