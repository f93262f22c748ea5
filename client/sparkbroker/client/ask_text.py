"""Text as arguments of an Ask: what a template, a cell or a command line says, made into plain JSON, or an error that names it.

Pure, and imports nothing heavy. A value that is what is meant already stays; where a number, a list or a mapping is meant, text
that says one is read as one. Each reader takes the value and the name to call it by, and raises InvalidArgument.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from sparkbroker.client.file_text import MARK

SPARK_KEYS: Final[Mapping[str, str]] = {
    "spark.driver.cores": "cores",
    "spark.driver.memory": "memory",
    "spark.driver.memoryOverhead": "memory_overhead",
    "spark.executor.instances": "executors",
    "spark.executor.cores": "executor_cores",
    "spark.executor.memory": "executor_memory",
    "spark.executor.memoryOverhead": "executor_memory_overhead",
    "spark.jars": "jars",
    "spark.jars.packages": "packages",
}
"""Spark's key -> the argument that says the same. The broker takes these as nothing else."""
_MODES: Final = ("CONNECT", "LOCAL", "CLIENT")
_WHOLE: Final = re.compile(r"[+-]?[0-9]+")
_KUBERNETES: Final = re.compile(r"(?<=[0-9])[KMGTP]i$")
_MOST: Final = 2**31 - 1
_SHOWN: Final = 80


class InvalidArgument(ValueError):
    """An argument that can't be used: names it, says what was wrong and what would be right. No retry mends it."""

    def __init__(self, argument: str, problem: str, expected: str) -> None:
        super().__init__(f"{argument}: {problem}; {expected}")
        self.argument = argument


def read_text(value: object, name: str) -> str | None:
    """Text; None stays. Raise InvalidArgument."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidArgument(name, f"{shown(value)} is not text", "give a str")
    return unmarked(value)


def unmarked(text: str) -> str:
    """Without what surrounds it, such as the byte order mark of the file that a template has it from."""
    return text.strip().removeprefix(MARK).strip()


def read_name(value: object, name: str) -> str | None:
    """Text; also what reads as a number, such as a day that was rendered to a native value."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else read_text(value, name)


def _mode(value: object, name: str) -> str | None:
    mode = (read_text(value, name) or "").upper()
    if mode and mode not in _MODES:
        raise InvalidArgument(name, f"{mode!r} is unknown", "give 'CONNECT', 'LOCAL' or 'CLIENT'")
    return mode or None


def _memory(value: object, name: str) -> str | None:
    text = read_text(value, name)
    if text == "":
        raise InvalidArgument(name, "'' is not a memory size", 'write one such as "2g", or leave it out')
    # Kubernetes' binary units are Spark's under other names; its decimal ones ("2G") are not.
    return text if text is None else _KUBERNETES.sub(lambda match: match[0][:-1].lower(), text)


def whole(value: object, name: str, lowest: int = 1) -> int | None:
    """A whole number, also as text; None stays. Raise InvalidArgument."""
    if value is None:
        return None
    number = value
    said_as_text = isinstance(value, str) and _WHOLE.fullmatch(value.strip())
    if said_as_text or (isinstance(value, float) and value.is_integer()):
        number = int(value)  # type: ignore[call-overload]
    if isinstance(number, bool) or not isinstance(number, int) or not lowest <= number <= _MOST:
        raise InvalidArgument(name, f"{shown(value)} is not a count", f"give a whole number, at least {lowest}")
    return number


def _priority(value: object, name: str) -> int | None:
    try:
        return whole(value, name, lowest=-_MOST)
    except InvalidArgument as error:
        expected = "give a whole number: among the waiting, a greater one comes first"
        raise InvalidArgument(name, f"{shown(value)} is not a priority", expected) from error


def _executors(value: object, name: str) -> int | list[int] | None:
    given = value
    if isinstance(value, str):
        parts = value.strip().strip("[]()").split(",")
        given = parts[0] if len(parts) == 1 else parts
    try:
        if not isinstance(given, list | tuple):
            return whole(given, name, lowest=0)
        fewest, most = (whole(item, name, lowest=0) for item in given)
    except ValueError as error:  # one of them, or not two of them
        expected = "give a number, or the fewest and the most: 4, [1, 4] or '1,4'"
        raise InvalidArgument(name, f"{shown(value)} is neither a number nor a pair", expected) from error
    if fewest is None or most is None or fewest > most:
        raise InvalidArgument(name, f"the fewest is {fewest} and the most {most}", "give the fewest first")
    return [fewest, most]


def _seconds(value: object, name: str) -> float | None:
    if value is None:
        return None
    seconds: float
    try:
        seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise InvalidArgument(name, f"{shown(value)} is not a duration", "give seconds or a timedelta") from error
    if isinstance(value, bool) or not math.isfinite(seconds) or seconds <= 0:
        raise InvalidArgument(name, f"{shown(value)} is out of range", "give more than 0 seconds")
    return seconds


def read_texts(value: object, name: str) -> list[str]:
    """A list; text is one, or, as the command line of Spark has it, several with commas between, or JSON."""
    if value is None:
        return []
    items: object = value
    if isinstance(value, str):
        text = unmarked(value)
        items = _json(text, name) if text.startswith("[") else text.split(",")
    if not isinstance(items, Sequence) or isinstance(items, str | bytes) or not all(isinstance(i, str) for i in items):
        raise InvalidArgument(name, f"{shown(value)} is not a list of texts", "give a list of str")
    return [item.strip() for item in items if item.strip()]


def mapping(value: object, name: str) -> dict[str, Any]:
    """A mapping of names, also as JSON; None and empty text are an empty one. Raise InvalidArgument."""
    if value is None or (isinstance(value, str) and not unmarked(value)):
        return {}
    found = _json(value, name) if isinstance(value, str) else value
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise InvalidArgument(name, f"{shown(value)} is not a mapping", "give a dict with keys that are text")
    return dict(found)


def _conf(value: object, name: str) -> dict[str, str | None]:
    return {
        key: None if item is None else _scalar(item, f"{name}[{key!r}]") for key, item in mapping(value, name).items()
    }


def _labels(value: object, name: str) -> dict[str, str]:
    return {key: _scalar(item, f"{name}[{key!r}]") for key, item in mapping(value, name).items()}


def _pod(value: object, name: str) -> dict[str, Any]:
    settings = mapping(value, name)
    try:
        found: dict[str, Any] = json.loads(json.dumps(settings, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidArgument(
            name, f"holds what JSON can't ({error})", "give plain dictionaries, lists and texts"
        ) from error
    return found


def _scalar(value: object, name: str) -> str:
    """Text, as Spark's configuration has it: ``true`` for True."""
    match value:
        case bool():
            return "true" if value else "false"
        case str() | int() | float():
            return str(value)
        case _:
            raise InvalidArgument(name, f"{shown(value)} is neither text nor a number", "give text, a number or a bool")


def _json(text: str, name: str) -> object:
    try:
        return json.loads(unmarked(text))
    except ValueError as error:
        problem = f"{shown(text)} is neither what is meant nor JSON of it ({error})"
        raise InvalidArgument(name, problem, "give a list or a dict, or a template that renders to JSON") from error


def shown(value: object) -> str:
    """A value in a message: not more than its beginning."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


READERS: Final[Mapping[str, Callable[[Any, str], Any]]] = {
    "profile": read_name,
    "queue": read_name,
    "mode": _mode,
    "cores": whole,
    "memory": _memory,
    "memory_overhead": _memory,
    "executors": _executors,
    "executor_cores": whole,
    "executor_memory": _memory,
    "executor_memory_overhead": _memory,
    "conf": _conf,
    "packages": read_texts,
    "jars": read_texts,
    "pod": _pod,
    "priority": _priority,
    "labels": _labels,
    "acquire_timeout": _seconds,
    "max_duration": _seconds,
    "unattended_ttl": _seconds,
}
"""The arguments of an Ask that people write as text, and how each is read."""


def read(arguments: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The Ask of these arguments as JSON, by ``names``: argument -> what it is called where it was written."""
    found = {argument: READERS[argument](arguments.get(name), name) for argument, name in names.items()}
    return {argument: value for argument, value in found.items() if value not in (None, "", [], {})}


def keywords(ask: Mapping[str, Any]) -> dict[str, Any]:
    """The same as arguments of ``acquire``: a pair is a tuple there, and JSON has only lists."""
    pair = ask.get("executors")
    return {**ask, **({"executors": tuple(pair)} if isinstance(pair, list | tuple) else {})}
