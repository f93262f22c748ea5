"""Durable state. One leader holds the authority in memory and commits groups of changes; a store never decides."""

from enum import StrEnum
from typing import Final, Protocol

import msgspec

from sparkbroker.broker.domain.errors import BrokerError
from sparkbroker.broker.domain.units import Epoch, Revision, ServingTime, WallTime


class RowKind(StrEnum):
    """What a row is. Bodies are JSON text, encoded by ``app.records``; a store doesn't look into them."""

    LEASE = "lease"
    DRIVER = "driver"
    PROFILE = "profile"
    SPEC = "spec"


class RowImage(msgspec.Struct, frozen=True, gc=False):
    """A row as it is to be. ``expected`` is the revision that the store must now hold for it, 0: none.

    ``body`` None deletes the row.
    """

    kind: RowKind
    id: str
    revision: Revision
    expected: Revision
    body: bytes | None


class EventRecord(msgspec.Struct, frozen=True, gc=False):
    """An event, unique by revision, in the order of revisions. ``subject`` is the lease's id."""

    revision: Revision
    subject: str
    body: bytes


class RequestRecord(msgspec.Struct, frozen=True, gc=False):
    """The stored answer of a request id: (principal, request_id) is the key; a body of None deletes it."""

    principal: str
    request_id: str
    created: WallTime
    body: bytes | None


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """One transaction: all of it or nothing. ``revision`` is the highest in it; revisions never repeat or go back.

    ``compact_through``: events up to and including this revision are deleted; a watermark that only grows.
    """

    revision: Revision
    rows: tuple[RowImage, ...] = ()
    events: tuple[EventRecord, ...] = ()
    requests: tuple[RequestRecord, ...] = ()
    serving: ServingTime
    compact_through: Revision | None = None


class Committed(msgspec.Struct, frozen=True):
    """It is durable, also through a power cut."""

    revision: Revision


class Deposed(msgspec.Struct, frozen=True):
    """Nothing was written: another leadership has begun since, or an ``expected`` revision did not match."""

    message: str


class Unknown(msgspec.Struct, frozen=True):
    """It may or may not be written. The broker has to end, and recover from the store."""

    message: str


CommitResult = Committed | Deposed | Unknown


EPOCHS_KEPT: Final = 1000
"""So many leaderships are remembered; a lease that none of them renewed is long past its deadline."""


class StoredRow(msgspec.Struct, frozen=True, gc=False):
    """A row as loaded."""

    kind: RowKind
    id: str
    revision: Revision
    body: bytes


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """All but what was answered, as of ``revision``. Events up to and including ``compacted_through`` are gone."""

    revision: Revision
    serving: ServingTime
    epochs: dict[Epoch, ServingTime]
    """When each of the last leaderships began, this one's included, in serving time."""
    rows: list[StoredRow]
    compacted_through: Revision


EVENT_PAGE_BYTES: Final = 64 << 10
"""Thousands of watches may read on at a time, and each holds its page until its client has taken that."""


class EventPage(msgspec.Struct, frozen=True):
    """Events in the order of revisions; ``complete``: there were no more at the time."""

    events: tuple[EventRecord, ...]
    complete: bool


class RequestPage(msgspec.Struct, frozen=True):
    """Requests, oldest first; ``next_after`` is where the next page begins, None: there is none."""

    requests: tuple[RequestRecord, ...]
    next_after: int | None


class StoreUnusable(BrokerError):
    """The store can't be opened: another broker has it, read-only, full, damaged, or of a newer schema. Says which
    and what to do."""

    reason = "STORE_UNUSABLE"


class Store(Protocol):
    """Calls are made by one task at a time, but for ``answered``, ``events``, ``event_sizes`` and ``room``, which may overlap
    anything."""

    async def lead(self) -> Epoch:
        """Begin a leadership: a larger epoch than any before, durable before it is returned.

        Raise StoreUnusable. A leader's commits fail as Deposed from the moment another call returns.
        """
        ...

    async def load(self) -> Loaded:
        """All rows. Raise StoreUnusable."""
        ...

    async def answered(self, after: int, limit: int) -> RequestPage:
        """The request ids that are remembered, from 0 on: often more than there are rows, and of no use to a renewal.

        Raise StoreUnusable.
        """
        ...

    async def events(self, after: Revision, limit: int, subject: str | None = None) -> EventPage:
        """At most ``limit`` events with a revision greater than ``after`` (of one subject), and no more after
        ``EVENT_PAGE_BYTES`` of them. Raise Compacted."""
        ...

    async def event_sizes(self) -> list[tuple[Revision, int]]:
        """Bytes of the events that are kept, over stretches of revisions in order, each named by its last one.

        Raise StoreUnusable.
        """
        ...

    async def commit(self, epoch: Epoch, batch: Batch) -> CommitResult:
        """Write the batch durably. Never raises for an I/O error: it is Unknown. If cancelled, it goes on."""
        ...

    async def room(self, *, to_use: bool = False) -> str:
        """Empty: there is room for something new. Else why not: what is left is for what has begun, and its end.

        ``to_use``: for what is no lease's end, and yet is kept: new attachments and answers. They may have half of what is
        left, so that a caller who goes on using leases takes from none the room for its end. Asked again, it looks again. Raise Unavailable after ``close``.
        """
        ...

    async def close(self) -> None:
        """Finish what was begun, and let go of the store. Idempotent."""
        ...
