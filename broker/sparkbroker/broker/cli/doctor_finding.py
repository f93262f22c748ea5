"""What ``doctor`` says of one thing that it looked at."""

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """``MISSING``: something needed isn't there, and the exit status says so."""

    OK = "ok"
    WARN = "warn"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``fix`` is empty when it is ok."""

    what: str
    status: Status
    found: str
    fix: str = ""
