"""Each promise has a test that carries its number, and the page that explains it names what holds it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "explanation" / "promises.md"

PROMISES = range(1, 16)
LATER = {
    10: "there is no warm pool yet",
    12: "there is no idle timeout and no preemption yet",
}
"""Promises about what doesn't exist yet. A test of one of them is welcome, and then it leaves this list."""


@pytest.mark.parametrize("number", [number for number in PROMISES if number not in LATER])
def test_a_promise_has_a_test(number, docs_generate):
    assert docs_generate.promise_tests(ROOT / "tests").get(number), f"no test carries @pytest.mark.promise({number})"


@pytest.mark.parametrize("number", LATER)
def test_a_promise_for_later_leaves_the_list_when_it_has_a_test(number, docs_generate):
    assert number not in docs_generate.promise_tests(ROOT / "tests")


def test_no_test_carries_a_number_that_is_no_promise(docs_generate):
    assert set(docs_generate.promise_tests(ROOT / "tests")) <= set(PROMISES)


def test_the_page_explains_every_promise_and_its_files_exist():
    text = PAGE.read_text()
    assert [int(number) for number in re.findall(r"^## (\d+)\. ", text, flags=re.MULTILINE)] == list(PROMISES)
    for path in re.findall(r"`((?:broker|client|protos)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), f"{PAGE.name} names {path}, which isn't there"


HELD = re.compile(r"`((?:broker|client)/[\w/.]+)`(?: \(((?:`\w+`(?:, )?)+)\))?")


def held_by(text: str) -> list[tuple[int, str, str]]:
    """(promise, file, function) as the page names them."""
    parts = re.split(r"^## (\d+)\. ", text, flags=re.MULTILINE)[1:]
    return [
        (int(number), path, function)
        for number, part in zip(parts[::2], parts[1::2], strict=True)
        for path, functions in HELD.findall(part)
        for function in re.findall(r"\w+", functions) or [""]
    ]


def test_the_functions_that_hold_a_promise_say_its_number():
    named = held_by(PAGE.read_text())
    assert {number for number, _, _ in named} >= set(PROMISES) - set(LATER)
    for number, path, function in named:
        docstrings = [
            ast.get_docstring(node) or ""
            for node in ast.walk(ast.parse((ROOT / path).read_text()))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == function
        ]
        assert docstrings, f"{PAGE.name} names {path} ({function or 'no function'}), which isn't there"
        assert any(re.search(rf"promise {number}\b", text, re.IGNORECASE) for text in docstrings), f"{path}: {function}"
