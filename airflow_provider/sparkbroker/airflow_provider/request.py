"""A task's arguments, as rendered, made into what the broker is asked for: plain JSON, or an error that names the argument.

Pure. How a value is read is the client's to say (``ask_text``); here is what an argument of a task is called, and which of them
concern the task alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal, TypedDict

from sparkbroker.client import ask_text
from sparkbroker.client.ask_text import InvalidArgument, mapping, read_name, read_text, read_texts, shown, whole

__all__ = [
    "BROKER_ARGUMENTS",
    "FILE_ARGUMENTS",
    "LEASE_ARGUMENTS",
    "READERS",
    "InvalidArgument",
    "LeaseArguments",
    "LogLevel",
    "OnRetry",
    "Options",
    "Seconds",
    "ask",
    "client_ask",
    "mapping",
    "options",
    "shown",
    "whole",
]

Seconds = int | float | str | timedelta
OnRetry = Literal["replace", "reattach"]
LogLevel = Literal["ALL", "TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"]


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

_OWN_NAMES: Final = {"queue": "lease_queue"}
"""Arguments of the client that a task has by another name."""
_OF_THE_BROKER: Final[Mapping[str, str]] = {name: _OWN_NAMES.get(name, name) for name in ask_text.READERS}
_LEVELS: Final = ("ALL", "TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")


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
    return ask_text.read(arguments, _OF_THE_BROKER)


def options(arguments: Mapping[str, Any]) -> Options:
    """The rest of them. Raise InvalidArgument."""
    _check_names(arguments)
    read = {name: reader(arguments.get(name), name) for name, reader in _OF_THE_TASK.items()}
    return Options(**read)


def client_ask(ask: Mapping[str, Any]) -> dict[str, Any]:
    """The same as keyword arguments of the client. ``on_own`` is for ``identity.after_conflict``."""
    return ask_text.keywords({name: value for name, value in ask.items() if name != "on_own"})


def _check_names(arguments: Mapping[str, Any]) -> None:
    for name in arguments:
        if name not in LEASE_ARGUMENTS:
            raise InvalidArgument(name, "there is no such argument", f"known are {', '.join(LEASE_ARGUMENTS)}")


def _level(value: object, name: str) -> str:
    level = (read_text(value, name) or "").upper()
    if level == "WARNING":
        level = "WARN"
    if level and level not in _LEVELS:
        raise InvalidArgument(name, f"{level!r} is not a level", f"give one of {', '.join(_LEVELS)}, or None")
    return level


def _on_retry(value: object, name: str) -> str:
    on_retry = (read_text(value, name) or "replace").lower()
    if on_retry not in ("replace", "reattach"):
        raise InvalidArgument(name, f"{on_retry!r} is unknown", "give 'replace' or 'reattach'")
    return on_retry


def _file_names(value: object, name: str) -> tuple[str, ...]:
    return tuple(read_texts(value, name))


def _own_name(value: object, name: str) -> str:
    return read_name(value, name) or ""


_OF_THE_TASK: Final[dict[str, Callable[[Any, str], Any]]] = {
    "py_files": _file_names,
    "files": _file_names,
    "archives": _file_names,
    "lease_key": _own_name,
    "app_name": _own_name,
    "driver_log_level": _level,
    "on_retry": _on_retry,
}
READERS: Final[Mapping[str, Callable[[Any, str], Any]]] = {
    **{name: ask_text.READERS[argument] for argument, name in _OF_THE_BROKER.items()},
    **_OF_THE_TASK,
}
"""How each of LEASE_ARGUMENTS is read: the value, and the name to call it by. They raise InvalidArgument."""

BROKER_ARGUMENTS: Final = tuple(_OF_THE_BROKER.values())
"""Those that describe the lease itself: of one that is there already they change nothing."""
