"""When an operator's arguments are checked: at parse, as far as they are known; and before a lease is asked for. Pure.

Each argument has a reader, which raises InvalidArgument for a value that can't be used. At parse, templates and XComs aren't
known. A template within a list or a mapping is text then, and the rest can be read.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sparkbroker.airflow_provider.late import has_template, is_late
from sparkbroker.airflow_provider.request import InvalidArgument, shown

Reader = Callable[[Any, str], object]
Readers = Mapping[str, Reader]
_APIS: Final = ("classic", "connect")


def check_known(readers: Readers, given: Mapping[str, Any]) -> None:
    """Raise InvalidArgument for the first of the given arguments that is wrong, whatever its late parts will be."""
    for name, read in readers.items():
        if name in given and not _is_open(given[name]):
            _read_known(read, given[name], name)


def check_all(readers: Readers, given: Mapping[str, Any]) -> None:
    """Likewise, of arguments that are rendered: all of each is known."""
    for name, read in readers.items():
        if name in given:
            read(given[name], name)


def check_mapped(readers: Readers, mapped: object) -> None:
    """Likewise as ``check_known``, of what ``expand`` (a mapping of lists) or ``expand_kwargs`` (a list of mappings) is given."""
    if isinstance(mapped, Mapping):
        for name, values in mapped.items():
            for value in values if isinstance(values, list | tuple) else ():
                check_known(readers, {name: value})
    elif isinstance(mapped, list | tuple):
        for each in mapped:
            if isinstance(each, Mapping):
                check_known(readers, each)


def waits_for_worker(given: Mapping[str, Any]) -> bool:
    """Whether one of these may still turn out wrong when it is rendered to text, or to the value of an XCom."""
    return any(_is_open(value) or _holds_xcom(value) for value in given.values())


def _is_open(value: object) -> bool:
    """Whether nothing at all is known of it."""
    return not isinstance(value, Mapping | list | tuple) and is_late(value)


def _holds_xcom(value: object) -> bool:
    match value:
        case Mapping():
            return any(_holds_xcom(item) for item in value.values())
        case list() | tuple():
            return any(_holds_xcom(item) for item in value)
        case _:
            return is_late(value) and not has_template(value)


def _read_known(read: Reader, value: Any, name: str) -> None:
    part: Any = value
    if isinstance(value, Mapping):
        part = {key: item for key, item in value.items() if not (is_late(item) or _holds_xcom(item))}
    elif isinstance(value, list | tuple):
        part = [item for item in value if not (is_late(item) or _holds_xcom(item))]
        if len(part) < len(value) and (not part or name == "executors"):
            return  # a pair of which one is known
    read(part, name)


# Readers that several operators share.


def text(value: Any, name: str) -> str:
    """Text that isn't empty."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidArgument(name, f"{shown(value)} is not a name", "give a str")
    return value


def flag(value: Any, name: str) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise InvalidArgument(name, f"{shown(value)} is neither True nor False", "give one of them")
    return value


def api(value: Any, name: str) -> str:
    """A kind of session."""
    if value not in _APIS:
        raise InvalidArgument(name, f"{shown(value)} is unknown", "give 'classic' or 'connect'")
    return str(value)


def items(value: Any, name: str) -> Sequence[Any]:
    """A list of anything."""
    if value is None:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise InvalidArgument(name, f"{shown(value)} is not a list", "give a list")
    return value


def names(value: Any, name: str) -> Mapping[str, Any]:
    """A mapping of names to anything."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InvalidArgument(name, f"{shown(value)} is not a mapping", "give a dict with keys that are text")
    return value


def texts(value: Any, name: str) -> Sequence[str]:
    """A list of texts."""
    for place, item in enumerate(items(value, name)):
        text(item, f"{name}[{place}]")
    return items(value, name)
