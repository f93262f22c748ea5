"""What a batch means as SQL parameters: pure, values in, values out.

Each table's changes become one statement with two parameters, JSON of the short columns (``$[n]``, see ``_statements``)
and one blob of all bodies. Why: every step of a statement gives up the GIL, and a busy event loop then takes up to a
switch interval to give it back; a step per row made commits 4 to 20 times slower than a step per table.
"""

from collections.abc import Iterable

import msgspec

from sparkbroker.broker.adapters.sql_store._schema import PAGE_SIZE
from sparkbroker.broker.ports.store import Batch, EventRecord, RequestRecord, RowImage

_JSON = msgspec.json.Encoder()
_Column = str | int | float


class Packed(msgspec.Struct, frozen=True):
    """``count`` changes: the parameters of one statement. Columns are followed by the body's offset (from 1), length."""

    count: int
    columns: str
    bodies: bytes


class Plan(msgspec.Struct, frozen=True):
    """A batch, sorted by statement. ``absent``: rows that must not exist and don't come to be."""

    inserts: Packed
    updates: Packed
    deletes: Packed
    absent: Packed
    events: Packed
    requests: Packed
    forgotten: Packed

    @property
    def pages(self) -> int:
        """How many pages it writes, roughly: each change touches one, and large bodies fill more."""
        tables = (self.inserts, self.updates, self.deletes, self.events, self.requests, self.forgotten)
        return 1 + sum(table.count + len(table.bodies) // PAGE_SIZE for table in tables)


class Conflict(msgspec.Struct, frozen=True):
    """The batch contradicts itself: a row's second image doesn't expect its first one."""

    message: str


def plan(batch: Batch) -> Plan | Conflict:
    """Sort the changes. Raise ValueError for a text that can't be stored: a lone surrogate, or U+0000 in a key."""
    rows = _coalesce(batch.rows)
    if isinstance(rows, Conflict):
        return rows
    requests = {(request.principal, request.request_id): request for request in batch.requests}.values()
    return Plan(
        inserts=_images(row for row in rows if row.body is not None and not row.expected),
        updates=_images(row for row in rows if row.body is not None and row.expected),
        deletes=_images(row for row in rows if row.body is None and row.expected),
        absent=_images(row for row in rows if row.body is None and not row.expected),
        events=_events(batch.events),
        requests=_requests(request for request in requests if request.body is not None),
        forgotten=_requests(request for request in requests if request.body is None),
    )


def _coalesce(rows: tuple[RowImage, ...]) -> Iterable[RowImage] | Conflict:
    """One image per row: what the first expected, and what the last one is. Statements then need no order."""
    images: dict[tuple[str, str], RowImage] = {}
    for row in rows:
        key = (row.kind, row.id)
        first = images.get(key)
        if first is None:
            images[key] = row
            continue
        held = 0 if first.body is None else first.revision
        if row.expected != held:
            return Conflict(mismatch(row, held, "earlier in the same batch"))
        images[key] = msgspec.structs.replace(row, expected=first.expected)
    return images.values()


def mismatch(row: RowImage, held: int, where: str = "in the store") -> str:
    """The sentence for a row that isn't as expected; ``held`` 0: there is none."""
    found = f"is at revision {held}" if held else "does not exist"
    wanted = f"at revision {row.expected}" if row.expected else "not to exist"
    return f"{row.kind} {row.id} {found} {where}, and was expected {wanted}: another broker has written"


def _images(rows: Iterable[RowImage]) -> Packed:
    return _pack(((row.kind, row.id, row.revision, row.expected), row.body) for row in rows)


def _events(events: Iterable[EventRecord]) -> Packed:
    return _pack(((event.revision, event.subject), event.body) for event in events)


def _requests(requests: Iterable[RequestRecord]) -> Packed:
    # Times as text: SQLite's own reading of a decimal may be off by the last bit.
    return _pack(((request.principal, request.request_id, repr(request.created)), request.body) for request in requests)


def _pack(changes: Iterable[tuple[tuple[_Column, ...], bytes | None]]) -> Packed:
    columns: list[tuple[_Column, ...]] = []
    bodies: list[bytes] = []
    offset = 1
    for keys, body in changes:
        size = 0 if body is None else len(body)
        columns.append((*keys, offset, size))
        if body:
            bodies.append(body)
            offset += size
    encoded = _JSON.encode(columns)
    if b"\\u0000" in encoded and any("\0" in column for keys in columns for column in keys if isinstance(column, str)):
        raise ValueError("a key contains the character U+0000, where SQLite would end it")
    return Packed(len(columns), encoded.decode(), b"".join(bodies))
