r"""The filter and the order of ListLeases and WatchLeases.

Grammar: terms joined by ``AND`` (in any case). A term is ``field=value`` or ``field!=value``; fields are ``state``,
``queue``, ``profile``, ``principal``, ``key``, ``mode``, ``live`` and ``labels.KEY``; a value is a bare word, or is
quoted, with ``\"`` and ``\\`` for a quote and a backslash. A label that a lease doesn't have is empty.
"""

import re
from collections.abc import Callable
from typing import Final

import msgspec

from sparkbroker.broker.domain.errors import InvalidField
from sparkbroker.broker.domain.lease.event import LeaseEvent
from sparkbroker.broker.domain.lease.lease import Lease, LeaseMode, LeaseState
from sparkbroker.broker.domain.text import shown

MAX_FILTER: Final = 1000
MAX_TERMS: Final = 20

_FIELDS: Final = ("state", "queue", "profile", "principal", "key", "mode", "live")
_KNOWN: Final = ", ".join(_FIELDS) + " and labels.KEY"
_SELECTS_NO_EVENTS: Final = frozenset({"state", "mode", "live"})
_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "state": tuple(LeaseState),
    "mode": tuple(LeaseMode),
    "live": ("true", "false"),
}
_TERM: Final = re.compile(
    r"""\s*(?P<field>[A-Za-z_][A-Za-z0-9_./-]*)\s*(?P<operator>!=|=)\s*
        (?:"(?P<quoted>(?:[^"\\]|\\["\\])*)"|(?P<bare>[^\s"\\=!<>()]+))(?=\s|\Z)""",
    re.VERBOSE,
)
_AND: Final = re.compile(r"\s+AND(?=\s)", re.IGNORECASE)
_ESCAPE: Final = re.compile(r"\\(.)")
_EXPECTED: Final = 'write terms such as state=READY AND key="a/b" AND labels.team!=x'


class Term(msgspec.Struct, frozen=True):
    """One term. ``field`` is ``labels`` for a label, whose key is ``label``."""

    field: str
    value: str
    negated: bool = False
    label: str = ""


_LEASE_VALUE: Final[dict[str, Callable[[Lease], str]]] = {
    "state": lambda lease: lease.state,
    "queue": lambda lease: lease.spec.queue,
    "profile": lambda lease: lease.spec.profile,
    "principal": lambda lease: lease.principal,
    "key": lambda lease: lease.key,
    "mode": lambda lease: lease.spec.mode,
    "live": lambda lease: "true" if lease.live else "false",
}
_EVENT_VALUE: Final[dict[str, Callable[[LeaseEvent], str]]] = {
    "queue": lambda event: event.queue,
    "profile": lambda event: event.profile,
    "principal": lambda event: event.principal,
    "key": lambda event: event.key,
}


class LeaseFilter(msgspec.Struct, frozen=True):
    """All terms have to hold; without terms everything matches."""

    terms: tuple[Term, ...] = ()

    def matches(self, lease: Lease) -> bool:
        """Whether the lease is selected."""
        for term in self.terms:
            value = lease.spec.labels.get(term.label, "") if term.label else _LEASE_VALUE[term.field](lease)
            if (value == term.value) is term.negated:
                return False
        return True

    def matches_event(self, event: LeaseEvent) -> bool:
        """Whether the lease of this event is selected, by what doesn't change: terms on state, live and mode select no
        events, and are passed over."""
        for term in self.terms:
            if term.field in _SELECTS_NO_EVENTS:
                continue
            value = event.labels.get(term.label, "") if term.label else _EVENT_VALUE[term.field](event)
            if (value == term.value) is term.negated:
                return False
        return True


def parse_filter(text: str) -> LeaseFilter:
    """The filter; empty text selects everything. Raise InvalidField that says where it is wrong."""
    if len(text) > MAX_FILTER:
        raise InvalidField("filter", f"has {len(text)} characters", f"it may have {MAX_FILTER}")
    if not text.strip():
        return LeaseFilter()
    terms: list[Term] = []
    position = 0
    while True:
        match = _TERM.match(text, position)
        if match is None:
            raise InvalidField("filter", f"no term at {shown(text[position:])}", _EXPECTED)
        terms.append(_term(match))
        if len(terms) > MAX_TERMS:
            raise InvalidField("filter", "has too many terms", f"it may have {MAX_TERMS}")
        position = match.end()
        if not text[position:].strip():
            return LeaseFilter(tuple(terms))
        joint = _AND.match(text, position)
        if joint is None:
            raise InvalidField("filter", f"no AND at {shown(text[position:])}", _EXPECTED)
        position = joint.end()


def parse_order(text: str) -> bool:
    """Whether the newest come first: ``create_time desc`` (as does empty text), or ``create_time``."""
    words = text.split()
    if not words or words == ["create_time", "desc"]:
        return True
    if words in (["create_time"], ["create_time", "asc"]):
        return False
    raise InvalidField("order_by", f"{shown(text)} is unknown", 'use "create_time" or "create_time desc"')


def _term(match: re.Match[str]) -> Term:
    field, negated = match["field"], match["operator"] == "!="
    quoted = match["quoted"]
    value = match["bare"] if quoted is None else _ESCAPE.sub(r"\1", quoted)
    if field.startswith("labels.") and len(field) > len("labels."):
        return Term("labels", value, negated, field.removeprefix("labels."))
    if field not in _FIELDS:
        raise InvalidField("filter", f"{shown(field)} is not a field", f"known are {_KNOWN}")
    if field in _CHOICES:
        value = _choice(field, value)
    return Term(field, value, negated)


def _choice(field: str, value: str) -> str:
    for choice in _CHOICES[field]:
        if choice.lower() == value.lower():
            return str(choice)
    raise InvalidField("filter", f"{field} {shown(value)} is unknown", f"known are {', '.join(_CHOICES[field])}")
