"""What is wrong with a configuration, as data and as sentences."""

import difflib
import types
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Final, Union, get_args, get_origin

import msgspec
from pydantic import BaseModel
from pydantic_core import ErrorDetails

from sparkbroker.broker.domain.errors import BrokerError
from sparkbroker.broker.domain.text import shown_value

Path = tuple[str | int, ...]

_TYPES: Final = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": 'text in quotes, such as "abc"',
    "tuple": 'a list, such as ["a", "b"]',
    "list": 'a list, such as ["a", "b"]',
    "dict": "a table",
    "model": "a table",
    "path": "a path in quotes",
}
_BOUNDS: Final = {
    "greater_than_equal": ("ge", "it must be at least {}"),
    "less_than_equal": ("le", "it must be at most {}"),
    "greater_than": ("gt", "it must be more than {}"),
    "less_than": ("lt", "it must be less than {}"),
}


class Problem(msgspec.Struct, frozen=True):
    """One: the field's TOML path, what was wrong, what would be right, and where it was said."""

    field: str
    problem: str
    expected: str
    origin: str = ""
    """An environment variable's name, if that said it."""

    def __str__(self) -> str:
        origin = f" (from {self.origin})" if self.origin else ""
        section = self.field.split(".", 1)[0]
        named = self.problem.startswith(f"{section}.")
        return f"{self.problem if named else f'{self.field}{origin}: {self.problem}'}; {self.expected}"


class ConfigError(BrokerError):
    """The configuration can't be used: ``problems`` says all that is wrong with it, ``source`` where it was read."""

    reason = "MISCONFIGURED"

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        if len(self.problems) == 1:
            message = f"{source}: {self.problems[0]}"
        else:
            message = "\n  ".join([f"{source}: {len(self.problems)} errors", *map(str, self.problems)])
        super().__init__(message)


def dotted(path: Path) -> str:
    """A path as TOML writes it: ``profiles.small.endpoints[0].url``; names with dots in quotes."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = f'"{part}"' if "." in part or not part else part
            text += f".{name}" if text else name
    return text


def suggest(word: str, known: Collection[str]) -> str:
    """The sentence after "there is no such …"."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return f"known are {', '.join(sorted(known))}" if known else "none is known"


def explain(error: ErrorDetails, model: type[BaseModel], origins: Mapping[Path, str]) -> Problem:
    """A validation error of pydantic as a sentence of ours."""
    path = tuple(part for part in error["loc"] if part != "[key]")
    problem, expected = _sentence(error, path, model)
    within = str(error.get("ctx", {}).get("within", ""))
    return Problem(f"{dotted(path)}{within}" or "the file", problem, expected, _origin(path, origins))


def _sentence(error: ErrorDetails, path: Path, model: type[BaseModel]) -> tuple[str, str]:
    kind, value, context = error["type"], error.get("input"), error.get("ctx", {})
    secret = "conf" in path
    said = "the value" if secret or isinstance(value, dict) else shown_value(value)
    match kind:
        case "wrong":
            return str(context["problem"]), str(context["expected"])
        case "extra_forbidden":
            return "there is no such key", _hint(path, model)
        case "missing":
            return "it is missing", "set it"
        case "literal_error":
            return f"{said} is not one of them", f"it must be {context['expected']}"
        case "too_long" | "string_too_long":
            return "it is too long", f"at most {context['max_length']}"
        case _:
            return _ordinary(error, said)


def _ordinary(error: ErrorDetails, said: str) -> tuple[str, str]:
    """Bounds and types."""
    kind = error["type"]
    if kind in _BOUNDS:
        name, text = _BOUNDS[kind]
        return f"{said} is out of range", text.format(error["ctx"][name])
    expected = next((text for name, text in _TYPES.items() if kind.startswith(name)), "")
    if expected:
        return f"{said} is not {expected.split(',')[0].removesuffix(' in quotes')}", f"write {expected}"
    return f"{said} can't be used", error["msg"][:1].lower() + error["msg"][1:]


def _hint(path: Path, model: type[BaseModel]) -> str:
    owner = _model_at(path[:-1], model)
    names = list(owner.model_fields) if owner else []
    hint = suggest(str(path[-1]), names)
    prefix = dotted(path[:-1])
    if hint.startswith("did you mean ") and prefix:
        return hint.replace("did you mean ", f"did you mean {prefix}.", 1)
    return hint


def _model_at(path: Path, model: type[BaseModel]) -> type[BaseModel] | None:
    """The section that a path leads to."""
    current: Any = model
    for part in path:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(part))
            current = field.annotation if field else None
        else:
            current = _unwrap(current)
            current = next((arg for arg in reversed(get_args(current)) if arg is not Ellipsis), None)
        current = _optional(current)
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def _unwrap(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _optional(annotation: Any) -> Any:
    """``Section | None`` -> ``Section``."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next((arg for arg in get_args(annotation) if arg is not type(None)), None)
    return annotation


def _origin(path: Path, origins: Mapping[Path, str]) -> str:
    for length in range(len(path), 0, -1):
        if path[:length] in origins:
            return origins[path[:length]]
    return ""
