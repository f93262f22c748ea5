"""The check of wording finds its habits in every kind of file, and leaves good sentences alone."""

import importlib.machinery
import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "check-words"


@pytest.fixture(scope="module")
def check_words():
    loader = importlib.machinery.SourceFileLoader("check_words", str(SCRIPT))
    spec = importlib.util.spec_from_loader("check_words", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def found(check_words, tmp_path, capsys):
    """The lines that the check names in a file."""

    def run(name, content):
        path = tmp_path / name
        path.write_text(content)
        failed = check_words.main([str(path)])
        *lines, _ = capsys.readouterr().out.splitlines()
        assert failed == bool(lines)
        return [int(line.removeprefix(f"{path}:").partition(":")[0]) for line in lines]

    return run


@pytest.mark.parametrize(
    "text",
    [
        "A worker is no pod.",
        "It ends. Of these, the last wins.",
        "Whoever asks waits.",
        "Then nobody waits.",
        "It waits. What is left is removed.",
        "The end is told as an error.",
        "It is made anew.",
    ],
)
def test_a_habit_is_found(found, text):
    assert found("page.md", f"# Title\n\n{text}\n") == [3]


@pytest.mark.parametrize(
    "text",
    [
        "There is no pod. It is no longer there. It is no larger than that.",
        "The end of these. What is left?",
        "What happens when it ends",
        "The account is `test/nobody`, `Of` is code.",
        "```\nOf code that is no text.\n```",
    ],
)
def test_good_sentences_are_left_alone(found, text):
    assert found("page.md", f"# Title\n\n{text}\n") == []


def test_a_sentence_may_span_lines(found):
    assert found("page.md", "Before.\n\nA worker is\nno pod.\n") == [3]
    assert found("page.md", "The end\nOf nothing.\n") == [1]
    assert found("page.md", "- one\n- It is\n  no pod\n") == [2]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.proto", "syntax = 3;\n// A worker is\n// no pod.\nint32 a = 1;\n"),
        ("a.yaml", "a: 1\n# -- A worker is\n# no pod.\nb: 2\n"),
        ("a.txt", "first\nA worker is no pod.\n"),
        ("a.py", "first = 1\nsecond = 'a worker is no pod'\n"),
        ("b.py", "first = 1\nthird = 3  # A worker is no pod.\n"),
        ("c.py", 'def f():\n    """A worker is\n    no pod.\n    """\n'),
    ],
)
def test_every_kind_of_file_is_read(found, name, content):
    assert found(name, content) == [2]


def test_code_is_not_read(found):
    assert found("a.py", "Of = 1\n") == []
    assert found("a.proto", "int32 nobody = 1;\n") == []
    assert found("a.yaml", "nobody: Of\n") == []


def test_it_reads_the_descriptions_of_a_schema(found):
    assert found("a.json", '{"a": {"description": "A worker is no pod."}, "b": "is no pod"}') == [1]


def test_each_path_of_the_check_has_files(check_words):
    for glob in check_words.PATHS:
        assert any(check_words.ROOT.glob(glob)), glob
