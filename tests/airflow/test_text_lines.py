"""Lines of text from bytes in pieces."""

from hypothesis import given
from hypothesis import strategies as st

from sparkbroker.airflow_provider.text_lines import Lines

TEXTS = st.text(st.sampled_from("aé€😀\n"), max_size=60)


def told(lines, pieces):
    return [line for piece in pieces for line in lines.take(piece)] + list(lines.close())


@given(TEXTS, st.integers(1, 7), st.integers(4, 12))
def test_nothing_is_lost_and_no_character_is_cut(text, size, longest):
    data = text.encode()
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    found = told(Lines(longest), pieces)
    assert "".join(found) == text.replace("\n", "")
    assert all(len(line.encode()) <= longest for line in found)


@given(st.binary(max_size=40), st.integers(1, 7))
def test_what_is_no_text_is_told_all_the_same(data, size):
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    assert told(Lines(8), pieces) == told(Lines(8), [data])


def test_a_line_may_end_as_windows_does():
    assert told(Lines(8), [b"one\r\ntwo\n\nthree"]) == ["one", "two", "", "three"]
