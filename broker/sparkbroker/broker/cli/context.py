"""What all commands share: the global options."""

from dataclasses import dataclass
from enum import StrEnum

import typer


class OutputFormat(StrEnum):
    """``-o``."""

    TABLE = "table"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Globals:
    """The options before the command. ``url`` None: the client finds the broker."""

    url: str | None
    output: OutputFormat

    @property
    def json(self) -> bool:
        return self.output is OutputFormat.JSON


def globals_of(context: typer.Context, output: OutputFormat | None = None) -> Globals:
    """The global options; ``-o`` may also stand after the command, where it wins."""
    found = context.find_object(Globals)
    if found is None:
        raise RuntimeError("the root callback sets the globals")
    return found if output is None else Globals(url=found.url, output=output)
