"""JSON that holders bring: what every broker can store, load, send and hand on, and no more than that."""

from collections.abc import Mapping
from typing import Any, Final

from sparkbroker.broker.domain.errors import InvalidField

MAX_DEPTH: Final = 24
"""Objects and lists within each other. A pod has some ten; protobuf reads no message that nests more than 100, three for
each of these."""
MAX_VALUES: Final = 5_000
MAX_WHOLE: Final = 2**53
"""Up to here JSON's numbers are exact everywhere, protobuf's (all floats) included."""


def check_values(value: Mapping[str, Any], field: str) -> None:
    """Raise InvalidField, naming the place, for what isn't JSON, or nests too deeply, or is too much or too large."""
    left = [MAX_VALUES]
    for name, item in value.items():
        _check(item, _within(field, name), MAX_DEPTH, left)


def count_values(value: object) -> int:
    """How many values there are, objects and lists included."""
    if isinstance(value, Mapping):
        return 1 + sum(map(count_values, value.values()))
    if isinstance(value, list | tuple):
        return 1 + sum(map(count_values, value))
    return 1


def _check(value: object, field: str, depth: int, left: list[int]) -> None:
    left[0] -= 1
    if left[0] < 0:
        raise InvalidField(field, "is one value too many", f"at most {MAX_VALUES} are taken")
    match value:
        case None | bool():
            pass
        case str():
            _check_text(value, field)
        case int() | float():
            # Not a number (NaN) is not within any bounds.
            if not -MAX_WHOLE <= value <= MAX_WHOLE:
                expected = "give a number from -2^53 to 2^53, or write it as text"
                raise InvalidField(field, f"{value:g} is out of range", expected)
        case Mapping() | list() | tuple():
            if not depth:
                raise InvalidField(field, "is nested too deeply", f"at most {MAX_DEPTH} objects and lists may nest")
            pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
            for name, item in pairs:
                _check(item, _within(field, name), depth - 1, left)
        case _:
            raise InvalidField(field, f"{type(value).__name__} is not a JSON type", "use text, numbers, lists and maps")


def _check_text(text: str, field: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidField(field, "holds a lone surrogate, which is not text", "write Unicode text") from None


def _within(field: str, name: object) -> str:
    if not isinstance(name, str):
        return f"{field}[{name}]"
    _check_text(name, field)
    shown = name if len(name) <= 40 else name[:37] + "…"
    return f"{field}[{shown!r}]"
