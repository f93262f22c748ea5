"""The text of files that people write with editors of their own. Pure."""

import codecs
from typing import Final

MARK: Final = "\ufeff"
"""The byte order mark, decoded: the same character in every encoding."""
_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "UTF-32"),  # begins with UTF-16's
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


class NotText(ValueError):
    """The content isn't UTF-8. Says what it is, as the end of a sentence about the file."""


def decode(content: bytes) -> str:
    """UTF-8 text without the byte order mark that editors on Windows put before it. Raise NotText.

    A NUL is refused too: no text has one, but UTF-16 without a mark is full of them.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            raise NotText(f"is {encoding}, by its byte order mark, and not UTF-8")
    nul = content.find(0)
    if nul >= 0:
        raise NotText(f"is not UTF-8 text (byte {nul} is NUL, as in UTF-16)")
    try:
        return content.decode().removeprefix(MARK)
    except UnicodeDecodeError as error:
        raise NotText(f"is not UTF-8 (byte {error.start})") from error


def without_mark(content: bytes) -> bytes:
    """For what isn't to be decoded, such as PEM: with a mark before it, a first certificate isn't seen."""
    return content.removeprefix(codecs.BOM_UTF8)
