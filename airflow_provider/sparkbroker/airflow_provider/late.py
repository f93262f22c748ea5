"""What of an argument is known only when its task runs: templates and XComs. Pure."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

_BEGINS: Final = ("{{", "{%", "{#")


def has_template(value: object) -> bool:
    """Whether text in it, at any depth, is a template of Jinja's. Keys of mappings are rendered nowhere."""
    match value:
        case str():
            return any(mark in value for mark in _BEGINS)
        case Mapping():
            return any(has_template(item) for item in value.values())
        case list() | tuple():
            return any(has_template(item) for item in value)
        case _:
            return False


def is_plain(value: object) -> bool:
    """Whether a value survives JSON: text, numbers, lists, mappings of them, durations. XComs don't."""
    match value:
        case None | str() | bool() | int() | float() | timedelta():
            return True
        case Mapping():
            return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
        case list() | tuple():
            return all(is_plain(item) for item in value)
        case _:
            return False


def is_late(value: Any) -> bool:
    """Whether it is known only when the task runs: a template, or an XCom."""
    return has_template(value) or (hasattr(value, "resolve") and hasattr(value, "iter_references"))
