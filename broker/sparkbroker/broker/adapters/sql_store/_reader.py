"""The connection that reads events, in a thread of its own: a watch never waits for a commit, nor a commit for it."""

import sqlite3
from pathlib import Path

from sparkbroker.broker.adapters.sql_store import _sqlite
from sparkbroker.broker.adapters.sql_store import _statements as sql
from sparkbroker.broker.domain.errors import Compacted
from sparkbroker.broker.domain.units import Revision
from sparkbroker.broker.ports.store import EVENT_PAGE_BYTES, EventPage, EventRecord


class Reader:
    """Synchronous, and used by one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def events(self, after: Revision, limit: int, subject: str | None) -> EventPage:
        """See ``ports.store.Store.events``. The watermark and the events are of the same moment."""
        try:
            connection = self._open()
            connection.execute(sql.READ)
            try:
                *_, compacted_through = connection.execute(sql.META).fetchone()
                rows = _select(connection, after, limit + 1, subject)
            finally:
                connection.execute(sql.COMMIT)
        except sqlite3.Error as error:
            raise _sqlite.unusable(self._path, error) from error
        if after < compacted_through:
            raise compacted(after, compacted_through)
        complete = len(rows) <= limit and sum(len(body) for *_, body in rows) < EVENT_PAGE_BYTES
        return EventPage(tuple(EventRecord(*row) for row in rows[:limit]), complete=complete)

    def event_sizes(self) -> list[tuple[Revision, int]]:
        """See ``ports.store.Store.event_sizes``."""
        try:
            return self._open().execute(sql.EVENT_SIZES).fetchall()
        except sqlite3.Error as error:
            raise _sqlite.unusable(self._path, error) from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = _sqlite.open_reader(self._path)
        return self._connection

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def compacted(after: Revision, through: Revision) -> Compacted:
    """The error for a reader that comes too late."""
    return Compacted(
        f"the events up to revision {through} are no longer kept, and those after {after} were asked for; read the leases "
        "again, and watch from the revision that this tells",
        compacted_through=str(through),
    )


def _select(
    connection: sqlite3.Connection, after: Revision, limit: int, subject: str | None
) -> list[tuple[Revision, str, bytes]]:
    if subject is None:
        cursor = connection.execute(sql.EVENTS, (after, limit))
    else:
        cursor = connection.execute(sql.EVENTS_OF, (after, subject, limit))
    rows, size = [], 0
    for row in cursor:
        rows.append(row)
        size += len(row[2])
        if size >= EVENT_PAGE_BYTES:
            cursor.close()
            break
    return rows
