"""In a folder without an ``__init__.py``, with an import relative to it."""

from .one import ONE  # noqa: TID252  that is what it is for


def plus_one(x: int) -> int:
    return x + ONE
