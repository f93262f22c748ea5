"""The last lines of a driver's log, as a lease tells them: the cause is among them, however long its stack trace is."""

import re
from collections.abc import Sequence
from typing import Final

LINES: Final = 20
WIDTH: Final = 500
LEFT_OUT: Final = "[…]"
"""Stands for the lines between a cause and the end of the log."""
_FRAME: Final = re.compile(r"\s+(?:at [\w$.<>/@-]+\(|\.\.\. \d+ (?:more|common frames omitted))")
_HEAD: Final = re.compile(
    r"\s*(?:Caused by: |Suppressed: |Exception in thread )|(?:[\w$]+\.)*[\w$]*(?:Exception|Error|Throwable)\b(?::|$)"
)
_ENTRY: Final = re.compile(r"\d{2,4}[-/]\d\d[-/]\d\d[ T]\d\d:\d\d:\d\d|\{\"")
"""How an entry of the log begins, in log4j's pattern or as JSON."""


def log_tail(text: str) -> tuple[str, ...]:
    """At most LINES lines of at most WIDTH characters, of the end of a log.

    They are its last ones, unless the last stack trace begins before these: then the first lines of its exception and of
    what caused it come before, as many as have room in half of the lines, the root cause first of all.
    """
    lines = [line[:WIDTH] for line in text.splitlines()]
    heads = cause(lines)
    kept = LINES
    """So many of the last lines are told: fewer where there are heads before them, which may leave out another head."""
    while missing := [index for index in heads if index < len(lines) - kept]:
        room = LINES - 1 - min(len(missing), LINES // 2)
        if room == kept:
            break
        kept = room
    if not missing:
        return tuple(lines[-kept:])
    chosen = missing[: LINES - 1 - kept]
    if len(missing) > len(chosen):
        chosen = [missing[0], *missing[len(missing) - len(chosen) + 1 :]]
    return (*(lines[index] for index in chosen), LEFT_OUT, *lines[len(lines) - kept :])


def cause(lines: Sequence[str]) -> list[int]:
    """The places of those lines of the last stack trace that say what happened: none, if there is no trace."""
    last = next((index for index in range(len(lines) - 1, -1, -1) if _FRAME.match(lines[index])), None)
    if last is None:
        return []
    first = next((index for index in range(last, -1, -1) if _ENTRY.match(lines[index])), 0)
    heads = [index for index in range(first, last) if _HEAD.match(lines[index])]
    return heads or [first]
