"""Splitting SQL text into statements. Pure; no parser: it knows what a semicolon can be part of, and no more.

That is text in quotes (with Spark's escapes), comments (bracketed ones nest), and a compound statement, from BEGIN to its
END. Statements keep their comments and their text, without the semicolon. A byte order mark, which stands where one file was
put before or into another, becomes a space: Spark would refuse it. What isn't closed reaches to the end of the text: Spark
then says where it stands.
"""

import re
from collections.abc import Iterator
from typing import Final

_TOKEN: Final = re.compile(
    r"""
      (?P<raw> [rR](?: '[^']*(?:'|\Z) | "[^"]*(?:"|\Z) ) )
    | (?P<quoted> '(?:[^'\\]|\\.)*(?:'|\Z) | "(?:[^"\\]|\\.)*(?:"|\Z) | `(?:[^`]|``)*(?:`|\Z) )
    | (?P<comment> --[^\n]* )
    | (?P<bracket> /\* )
    | (?P<word> [^\W\d]\w* )
    | (?P<space> \s+ )
    | (?P<mark> \ufeff )
    | (?P<end> ; )
    | (?P<other> \d\w* | . )
    """,
    re.VERBOSE | re.DOTALL,
)
_NO_CLOSERS: Final = frozenset({"IF", "LOOP", "WHILE", "REPEAT", "FOR"})
"""END IF and its like end what BEGIN's count never counted."""


def split_statements(text: str) -> list[str]:
    """The statements of the text, in order, without those that are nothing but comments."""
    statements: list[str] = []
    pieces: list[str] = []
    compound = _Compound()
    empty = True
    for kind, token in _tokens(text):
        if kind == "end":
            compound.take(token)
        if kind == "end" and not compound.open:
            if not empty:
                statements.append("".join(pieces).strip())
            pieces, empty, compound = [], True, _Compound()
            continue
        pieces.append(" " if kind == "mark" else token)
        if kind not in ("comment", "space", "mark", "end"):
            empty = False
            compound.take(token.upper() if kind == "word" else token)
    if not empty:
        statements.append("".join(pieces).strip())
    return statements


class _Compound:
    """How deep we are in BEGIN … END, for a statement that is one: one that begins with BEGIN or with a label and BEGIN.

    CASE … END (CASE) counts there too, as it may hold no semicolon outside of one.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._begun: list[str] = []
        self._after_end = False

    @property
    def open(self) -> bool:
        return self._depth > 0

    def take(self, piece: str) -> None:
        if self._depth == 0:
            self._begin(piece)
            return
        if self._after_end:
            self._after_end = False
            if piece in _NO_CLOSERS:
                return
            self._depth -= 1
            if piece == "CASE" or self._depth == 0:
                return
        if piece in ("BEGIN", "CASE"):
            self._depth += 1
        elif piece == "END":
            self._after_end = True

    def _begin(self, piece: str) -> None:
        if len(self._begun) < 3:
            self._begun.append(piece)
            if piece == "BEGIN" and (len(self._begun) == 1 or self._begun[1:2] == [":"]):
                self._depth = 1


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """Kind and text of each token; a bracketed comment is one, of the kind comment."""
    place = 0
    while (match := _TOKEN.match(text, place)) is not None:
        kind = match.lastgroup or "other"
        end = match.end()
        if kind == "bracket":
            kind, end = "comment", _after_comment(text, place)
        yield kind, text[place:end]
        place = end


_BRACKETS: Final = re.compile(r"/\*|\*/")


def _after_comment(text: str, start: int) -> int:
    depth = 0
    for match in _BRACKETS.finditer(text, start):
        depth += 1 if match.group() == "/*" else -1
        if depth == 0:
            return match.end()
    return len(text)
