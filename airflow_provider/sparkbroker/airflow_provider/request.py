"""A task's arguments, as rendered, made into what the broker is asked for: plain JSON, or an error that names the argument.

Pure. Templates render to text; where a number, a flag, a list or a mapping is meant, text that says one is read as one.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal, TypedDict

from sparkbroker.client.file_text import MARK

Seconds = int | float | str | timedelta
OnRetry = Literal["replace", "reattach"]
LogLevel = Literal["ALL", "TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"]


class InvalidArgument(ValueError):
    """An argument that can't be used: names it, says what was wrong and what would be right. No retry mends it."""

    def __init__(self, argument: str, problem: str, expected: str) -> None:
        super().__init__(f"{argument}: {problem}; {expected}")
        self.argument = argument


class LeaseArguments(TypedDict, total=False):
    """The arguments that make a lease. All may be templates; what is left out (or None) takes the profile's default.

    ``cores`` and ``memory`` are the driver's; memory in Spark's notation ("2g"). ``executors`` is how many, or the fewest
    and the most: ``4``, ``[1, 4]``, ``"1,4"``. ``lease_queue`` is the broker's queue: ``queue`` is Airflow's own word, for
    the workers of its executor. Durations are seconds or timedelta. In ``conf``, None goes without a key
    that the profile sets. ``pod`` are plain dictionaries. ``on_retry`` says what a retry does with a lease of the try
    before: ``replace`` it, or ``reattach`` to its live driver. ``driver_log_level``: lines of the driver's log from this
    level on appear in the task's log while it runs; None: only its end, when the task fails.
    """

    profile: str | None
    lease_queue: str | None
    mode: str | None
    cores: int | str | None
    memory: str | None
    memory_overhead: str | None
    executors: int | str | Sequence[int] | None
    executor_cores: int | str | None
    executor_memory: str | None
    executor_memory_overhead: str | None
    conf: Mapping[str, Any] | str | None
    packages: Sequence[str] | str | None
    jars: Sequence[str] | str | None
    py_files: Sequence[str] | str | None
    files: Sequence[str] | str | None
    archives: Sequence[str] | str | None
    pod: Mapping[str, Any] | str | None
    priority: int | str | None
    labels: Mapping[str, Any] | str | None
    lease_key: str | None
    acquire_timeout: Seconds | None
    max_duration: Seconds | None
    unattended_ttl: Seconds | None
    app_name: str | None
    driver_log_level: str | None
    on_retry: str


LEASE_ARGUMENTS: Final = tuple(LeaseArguments.__annotations__)
"""Their names: the template fields of every operator that takes a lease."""

FILE_ARGUMENTS: Final[tuple[str, ...]] = ("py_files", "files", "archives")
"""Those that name files of the worker's."""

_BROKERS_NAME: Final = {"lease_queue": "queue"}
_LEVELS: Final = ("ALL", "TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
_WHOLE: Final = re.compile(r"[+-]?[0-9]+")
_KUBERNETES: Final = re.compile(r"(?<=[0-9])[KMGTP]i$")
_MOST: Final = 2**31 - 1
_SHOWN: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What of the arguments concerns the task and its session, and not the broker."""

    py_files: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    archives: tuple[str, ...] = ()
    lease_key: str = ""
    app_name: str = ""
    driver_log_level: str = ""
    on_retry: OnRetry = "replace"


def ask(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What the broker is to be asked for, as JSON that ``client_ask`` takes. Raise InvalidArgument."""
    _check_names(arguments)
    found = {_BROKERS_NAME.get(name, name): read(arguments.get(name), name) for name, read in _OF_THE_BROKER.items()}
    return {name: value for name, value in found.items() if value not in (None, "", [], {})}


def options(arguments: Mapping[str, Any]) -> Options:
    """The rest of them. Raise InvalidArgument."""
    _check_names(arguments)
    read = {name: reader(arguments.get(name), name) for name, reader in _OF_THE_TASK.items()}
    return Options(**read)


def client_ask(ask: Mapping[str, Any]) -> dict[str, Any]:
    """The same as keyword arguments of the client: a pair is a tuple there, and JSON has only lists. ``on_own`` is for
    ``identity.after_conflict``."""
    pair = ask.get("executors")
    given = {name: value for name, value in ask.items() if name != "on_own"}
    return given | ({"executors": tuple(pair)} if isinstance(pair, list | tuple) else {})


def _check_names(arguments: Mapping[str, Any]) -> None:
    for name in arguments:
        if name not in LEASE_ARGUMENTS:
            raise InvalidArgument(name, "there is no such argument", f"known are {', '.join(LEASE_ARGUMENTS)}")


def _text(value: object, name: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidArgument(name, f"{shown(value)} is not text", "give a str")
    return _unmarked(value)


def _unmarked(text: str) -> str:
    """Without what surrounds it, such as the byte order mark of the file that a template has it from."""
    return text.strip().removeprefix(MARK).strip()


def _name(value: object, name: str) -> str | None:
    """Text; also what reads as a number, such as a day that was rendered to a native value."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(value, name)


def _mode(value: object, name: str) -> str | None:
    mode = (_text(value, name) or "").upper()
    if mode not in ("", "CONNECT", "LOCAL", "CLIENT"):
        raise InvalidArgument(name, f"{mode!r} is unknown", "give 'CONNECT', 'LOCAL' or 'CLIENT'")
    return mode or None


def _memory(value: object, name: str) -> str | None:
    text = _text(value, name)
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


def _texts(value: object, name: str) -> list[str]:
    """A list; text is one, or, as the command line of Spark has it, several with commas between, or JSON."""
    if value is None:
        return []
    items: object = value
    if isinstance(value, str):
        text = _unmarked(value)
        items = _json(text, name) if text.startswith("[") else text.split(",")
    if not isinstance(items, Sequence) or isinstance(items, str | bytes) or not all(isinstance(i, str) for i in items):
        raise InvalidArgument(name, f"{shown(value)} is not a list of texts", "give a list of str")
    return [item.strip() for item in items if item.strip()]


def mapping(value: object, name: str) -> dict[str, Any]:
    """A mapping of names, also as JSON; None and empty text are an empty one. Raise InvalidArgument."""
    if value is None or (isinstance(value, str) and not _unmarked(value)):
        return {}
    found = _json(value, name) if isinstance(value, str) else value
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise InvalidArgument(name, f"{shown(value)} is not a mapping", "give a dict with keys that are text")
    return dict(found)


def _level(value: object, name: str) -> str:
    level = (_text(value, name) or "").upper()
    if level == "WARNING":
        level = "WARN"
    if level and level not in _LEVELS:
        raise InvalidArgument(name, f"{level!r} is not a level", f"give one of {', '.join(_LEVELS)}, or None")
    return level


def _on_retry(value: object, name: str) -> str:
    on_retry = (_text(value, name) or "replace").lower()
    if on_retry not in ("replace", "reattach"):
        raise InvalidArgument(name, f"{on_retry!r} is unknown", "give 'replace' or 'reattach'")
    return on_retry


def _file_names(value: object, name: str) -> tuple[str, ...]:
    return tuple(_texts(value, name))


def _own_name(value: object, name: str) -> str:
    return _name(value, name) or ""


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
        return json.loads(_unmarked(text))
    except ValueError as error:
        problem = f"{shown(text)} is neither what is meant nor JSON of it ({error})"
        raise InvalidArgument(name, problem, "give a list or a dict, or a template that renders to JSON") from error


def shown(value: object) -> str:
    """A value in a message: not more than its beginning."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


_OF_THE_BROKER: Final[dict[str, Callable[[Any, str], Any]]] = {
    "profile": _name,
    "lease_queue": _name,
    "mode": _mode,
    "cores": whole,
    "memory": _memory,
    "memory_overhead": _memory,
    "executors": _executors,
    "executor_cores": whole,
    "executor_memory": _memory,
    "executor_memory_overhead": _memory,
    "conf": _conf,
    "packages": _texts,
    "jars": _texts,
    "pod": _pod,
    "priority": _priority,
    "labels": _labels,
    "acquire_timeout": _seconds,
    "max_duration": _seconds,
    "unattended_ttl": _seconds,
}

_OF_THE_TASK: Final[dict[str, Callable[[Any, str], Any]]] = {
    "py_files": _file_names,
    "files": _file_names,
    "archives": _file_names,
    "lease_key": _own_name,
    "app_name": _own_name,
    "driver_log_level": _level,
    "on_retry": _on_retry,
}
READERS: Final[Mapping[str, Callable[[Any, str], Any]]] = {**_OF_THE_BROKER, **_OF_THE_TASK}
"""How each of LEASE_ARGUMENTS is read: the value, and the name to call it by. They raise InvalidArgument."""

BROKER_ARGUMENTS: Final = tuple(_OF_THE_BROKER)
"""Those that describe the lease itself: of one that is there already they change nothing."""
