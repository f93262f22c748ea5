"""Text of others, as a terminal may show it: what would move its cursor, colour it, hide something or turn it around is escaped.

Leases carry text of their holders and of their programs (labels, keys, messages, ends of logs), and who looks at them is somebody
else. Pure, but for the streams.
"""

import codecs
import io
import logging
import unicodedata
from typing import Any, Final, TextIO

_INVISIBLE: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters and marks, as Unicode counts them, that nobody sees."""
_LINE: Final = frozenset("\t\n")


def visible(text: str, *, lines: bool = True) -> str:
    r"""``text`` with ``\x1b`` for an escape character, ``\u202e`` for one that turns the direction around, and so on.

    Escaped are all characters of Unicode's categories C (control, format, surrogates, private use, unassigned), the separators of
    lines and paragraphs, and what is invisible. Tabs stay, and with ``lines`` line ends. Text without such characters is returned
    as it is, and once escaped it doesn't change any more.
    """
    kept = _LINE if lines else _LINE - {"\n"}
    if text.isprintable() and _INVISIBLE.isdisjoint(text):
        return text
    return "".join(character if character in kept or _is_seen(character) else _escaped(character) for character in text)


def _is_seen(character: str) -> bool:
    return (character.isprintable() or unicodedata.category(character) == "Zs") and character not in _INVISIBLE


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class VisibleText(io.TextIOBase):
    """A text stream in front of another one, ``plain``: what is written to it becomes visible.

    ``buffer`` is the other's for bytes as they are, unless that is a terminal.
    """

    def __init__(self, plain: TextIO) -> None:
        self.plain = plain
        self._bytes = _VisibleBytes(self) if plain.isatty() else plain.buffer

    def write(self, text: str, /) -> int:
        self.plain.write(visible(text))
        return len(text)

    @property
    def buffer(self) -> Any:
        return self._bytes

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.plain.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.plain.errors

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self.plain.isatty()

    def fileno(self) -> int:
        return self.plain.fileno()

    def flush(self) -> None:
        self.plain.flush()


class _VisibleBytes:
    """Bytes for a terminal: UTF-8, whose characters may come in pieces."""

    def __init__(self, text: VisibleText) -> None:
        self._text = text
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(self, data: bytes) -> int:
        self._text.write(self._decoder.decode(data))
        return len(data)

    def flush(self) -> None:
        self._text.flush()


def plain(stream: TextIO) -> TextIO:
    """The stream behind: for who makes visible what it writes, and then colours it."""
    return stream.plain if isinstance(stream, VisibleText) else stream


class VisibleMessages(logging.Filter):
    """Makes the messages of a logger visible."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = visible(record.getMessage()), None
        return True
