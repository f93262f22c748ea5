"""From the words of the command line to what is asked of the broker. Pure, but for the files that it reads."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic_core import PydanticCustomError

from sparkbroker.broker.cli.exit_codes import USAGE, Exit
from sparkbroker.broker.cli.properties import lift, parse_assignments, read_properties
from sparkbroker.broker.config.fields import parse_duration
from sparkbroker.client._ask import Ask

_LISTS: Final = ("packages", "jars", "py_files")
_CHOICES: Final = {"mode": ("CONNECT", "LOCAL"), "on_existing": ("FAIL", "REATTACH", "REPLACE")}
CLIENT_REFUSED: Final = (
    "--mode: 'client' makes the pod of the program that asks for the lease its driver, and this command's program is another; "
    'give --mode connect, or --mode local for the classic API; or ask in the program itself, with Broker().session(mode="CLIENT")'
)
_DURATIONS: Final = ("acquire_timeout", "max_duration")
_EXECUTORS: Final = re.compile(r"(?P<low>[0-9]{1,5})(?::(?P<high>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """``ask`` are the arguments of ``AsyncBroker.acquire``; ``config`` is an embedded broker's."""

    url: str | None
    config: Path | None
    ask: Ask
    py_files: tuple[str, ...]
    command: tuple[str, ...]
    quiet: bool = False


def make_ask(
    given: Mapping[str, Any], *, conf: Iterable[str], labels: Iterable[str], properties_file: Path | None
) -> tuple[Ask, tuple[str, ...]]:
    """(what to ask for, the --py-files). Options win over ``--conf``, which wins over the file. Raise Exit."""
    properties = {} if properties_file is None else read_properties(properties_file)
    lifted, rest = lift(properties | parse_assignments(conf))
    ask: dict[str, Any] = lifted | {name: value for name, value in given.items() if value not in (None, [])}
    for name in _LISTS:
        if name in ask:
            ask[name] = [part.strip() for item in ask[name] for part in item.split(",") if part.strip()]
    for name, known in _CHOICES.items():
        if name in ask:
            ask[name] = _choice(name, ask[name], known)
    for name in _DURATIONS:
        if name in ask:
            ask[name] = _duration(name, ask[name])
    if isinstance(ask.get("executors"), str):
        ask["executors"] = _executors(ask["executors"])
    if rest:
        ask["conf"] = rest
    if any(labels := list(labels)):
        ask["labels"] = _labels(labels)
    files = tuple(ask.pop("py_files", ()))
    return ask, files  # type: ignore[return-value]


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _choice(name: str, value: str, known: tuple[str, ...]) -> str:
    if name == "mode" and value.upper() == "CLIENT":
        raise Exit(USAGE, CLIENT_REFUSED)
    if value.upper() not in known:
        raise Exit(USAGE, f"{_option(name)}: {value!r} is none of {', '.join(known).lower()}")
    return value.upper()


def _duration(name: str, value: str) -> float:
    try:
        return parse_duration(value)
    except PydanticCustomError as error:
        raise Exit(USAGE, f"{_option(name)}: {error}") from error


def _executors(value: str) -> int | tuple[int, int]:
    match = _EXECUTORS.fullmatch(value)
    if match is None:
        raise Exit(USAGE, f'--executors: {value!r} is no number; write "4", or fewest and most, "2:8"')
    low = int(match["low"])
    return low if match["high"] is None else (low, int(match["high"]))


def _labels(items: Iterable[str]) -> dict[str, str]:
    labels = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise Exit(USAGE, f"--label: {item!r} is not K=V; write --label team=etl")
        labels[name] = value
    return labels
