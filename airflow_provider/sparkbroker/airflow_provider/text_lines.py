"""Bytes of a log, in pieces of any size, as lines of text. Pure."""

from collections.abc import Iterator


class Lines:
    """Whole lines as they come; one that is longer than ``longest`` bytes is cut, never inside of a character."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._rest = b""

    def take(self, piece: bytes) -> Iterator[str]:
        """What this piece completes."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            *parts, last = self._cut(line)
            yield from map(_text, parts)
            yield _text(last).rstrip("\r")
        *parts, self._rest = self._cut(self._rest)
        yield from map(_text, parts)

    def close(self) -> Iterator[str]:
        """A last line that has no end."""
        rest, self._rest = self._rest, b""
        if rest:
            yield _text(rest).rstrip("\r")

    def _cut(self, line: bytes) -> Iterator[bytes]:
        """At least one part."""
        while len(line) > self._longest:
            end = self._longest
            # A byte that goes on with a character begins with the bits 10; a character has at most three of them.
            while end > self._longest - 4 and line[end] & 0xC0 == 0x80:
                end -= 1
            yield line[:end]
            line = line[end:]
        yield line


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")
