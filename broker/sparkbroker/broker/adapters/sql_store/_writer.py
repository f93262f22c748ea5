"""The one connection that writes: synchronous, and used by one thread. ``_store`` is its asynchronous face."""

import gc
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import structlog

from sparkbroker.broker.adapters.sql_store import _batch, _schema, _sqlite
from sparkbroker.broker.adapters.sql_store import _statements as sql
from sparkbroker.broker.adapters.sql_store._ballast import STEP, Ballast
from sparkbroker.broker.domain.units import Epoch, ServingTime, WallTime
from sparkbroker.broker.ports.store import (
    EPOCHS_KEPT,
    Batch,
    CommitResult,
    Committed,
    Deposed,
    Loaded,
    RequestPage,
    RequestRecord,
    RowKind,
    StoredRow,
    StoreUnusable,
    Unknown,
)

CHECKPOINT_PAGES: Final = 2000
"""Pages, roughly, after which the WAL is moved into the database."""
WAL_BYTES: Final = 16 << 20
"""And the size of its file, beyond which it is moved too; more only while somebody reads. The ballast has to hold as much:
on a full disk the database needs that before the WAL can be used again."""
CHECKPOINT_PAGES_FULL: Final = 32
"""The same on a full disk, where the WAL must not grow."""

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class Writer:
    """See ``ports.store.Store``: the same calls, without ``events``."""

    def __init__(self, path: Path, ballast: Ballast | None) -> None:
        self._path = path
        self._ballast = ballast
        self._connection: sqlite3.Connection | None = None
        self._failure = ""
        self._pages = 0
        self._wal = path.with_name(path.name + "-wal")
        self._wal_size = 0
        self.full = ""
        """Why there is no room for anything new; any thread may read it."""

    def lead(self, step: int = STEP) -> Epoch:
        try:
            epoch = self._lead()
        except sqlite3.Error as error:
            self.close()
            if not _sqlite.cannot_open(error) or not self._free_ballast(step):
                raise _sqlite.unusable(self._path, error) from error
        except StoreUnusable:
            self.close()
            raise
        else:
            self._look_for_ballast()
            return epoch
        return self.lead(2 * step)  # as often as there is ballast to free

    def _lead(self) -> Epoch:
        if self._failure:
            raise StoreUnusable(self._failure)
        if self._connection is None:
            self._connection = _sqlite.open_writer(self._path)
            _schema.prepare(self._connection, self._path)
        connection = self._connection
        with _transaction(connection, sql.BEGIN):
            connection.execute(sql.LEAD)
            connection.execute(sql.BEGIN_EPOCH)
            connection.execute(sql.DROP_EPOCHS, (EPOCHS_KEPT,))
            epoch, *_ = connection.execute(sql.META).fetchone()
        return Epoch(epoch)

    def load(self) -> Loaded:
        return self._read(_load)

    def answered(self, after: int, limit: int) -> RequestPage:
        return self._read(lambda connection: _answered(connection, after, limit))

    def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._connection
        if connection is None:
            raise StoreUnusable(f"{self._path} is not open; begin with lead()")
        try:
            with _no_collection(), _transaction(connection, sql.READ):
                return read(connection)
        except sqlite3.Error as error:
            raise _sqlite.unusable(self._path, error) from error

    def commit(self, epoch: Epoch, batch: Batch) -> CommitResult:
        if self._failure:
            return Unknown(self._failure)
        if self._connection is None:
            return Deposed(f"{self._path} is not open: no leadership has begun")
        plan = _batch.plan(batch)
        if isinstance(plan, _batch.Conflict):
            return Deposed(plan.message)
        step = STEP
        try:
            while True:
                try:
                    return self._write(self._connection, epoch, batch, plan)
                except sqlite3.Error as error:
                    if not _sqlite.is_full(error) or not self._free_ballast(step):
                        raise
                    step *= 2
        except sqlite3.IntegrityError as error:
            return Deposed(f"an event's revision is taken ({error}): another broker has written")
        except sqlite3.Error as error:
            return self._fail(error)

    def checkpoint(self) -> None:
        """Move the WAL into the database if it has grown. Never raises: its failure fails the commits that follow."""
        if self._connection is None or self._failure or not self._checkpoint_is_due():
            return
        self._pages = 0
        step = STEP
        while True:
            try:
                self._connection.execute(sql.CHECKPOINT).fetchall()
            except sqlite3.Error as error:
                if not _sqlite.is_full(error):
                    self._fail(error)
                elif self._free_ballast(step):
                    step *= 2
                    continue
                else:
                    # All is still in the WAL, and commits say it themselves if they don't fit either.
                    _log.warning("store.checkpoint_delayed", path=str(self._path), error=_sqlite.describe(error))
            break
        self._wal_size = self._size_of_wal()

    def _checkpoint_is_due(self) -> bool:
        """By what was written, and by the WAL's file: that never shrinks, so that growth alone tells of its content."""
        if self._pages >= (CHECKPOINT_PAGES_FULL if self.full else CHECKPOINT_PAGES):
            return True
        return bool(self._pages) and self._size_of_wal() > max(self._wal_size, WAL_BYTES)

    def _size_of_wal(self) -> int:
        try:
            return self._wal.stat().st_size
        except OSError:
            return 0

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _write(self, connection: sqlite3.Connection, epoch: Epoch, batch: Batch, plan: _batch.Plan) -> CommitResult:
        with _transaction(connection, sql.BEGIN) as transaction:
            parameters = (batch.revision, batch.serving, batch.compact_through or 0, epoch)
            if connection.execute(sql.ADVANCE, parameters).rowcount != 1:
                transaction.rollback()
                return Deposed(self._why_fenced(connection, epoch, batch))
            if not _apply_rows(connection, plan):
                transaction.rollback()
                return Deposed(_why_mismatched(connection, batch))
            for statement, packed in (
                (sql.INSERT_EVENTS, plan.events),
                (sql.PUT_REQUESTS, plan.requests),
                (sql.DELETE_REQUESTS, plan.forgotten),
            ):
                _execute(connection, statement, packed)
            if batch.compact_through:
                connection.execute(sql.COMPACT, (batch.compact_through,))
        self._pages += plan.pages
        return Committed(batch.revision)

    def _why_fenced(self, connection: sqlite3.Connection, epoch: Epoch, batch: Batch) -> str:
        current, revision, *_ = connection.execute(sql.META).fetchone()
        if current != epoch:
            return f"leadership {epoch} is over: leadership {current} of {self._path} has begun"
        return f"{self._path} is at revision {revision}, and the batch goes back to {batch.revision}"

    def _fail(self, error: sqlite3.Error) -> Unknown:
        """From now on nothing is written: after a failed fsync SQLite would go on, and later lose what it said is safe."""
        if _sqlite.is_full(error):
            self._failure = (
                f"the disk that holds {self._path} is full, and there is no ballast left to free; free some space, then "
                "start the broker again"
            )
        else:
            self._failure = (
                f"writing {self._path} failed: {_sqlite.describe(error)}; check the disk, then start the broker again: it "
                "recovers from what is there"
            )
        _log.error("store.failed", path=str(self._path), error=_sqlite.describe(error))
        return Unknown(self._failure)

    def _free_ballast(self, size: int) -> bool:
        freed = self._ballast is not None and self._ballast.free(size)
        if freed:
            self.full = self._full()
        return freed

    def _look_for_ballast(self) -> None:
        """A disk that had no room for it at the start is as full as one on which it was freed."""
        try:
            missing = self._ballast is not None and self._ballast.held < self._ballast.size
        except OSError:
            missing = True
        self.full = self._full() if missing else ""

    def make_room(self, *, to_use: bool) -> str:
        """``full``, once it was tried to set the ballast aside again: the disk may have room by now.

        ``to_use``: for that there is room until half of the ballast is used.
        """
        if self.full and self._ballast is not None:
            try:
                # As much again is to stay free: else the next commit would take it back.
                room = os.statvfs(self._path.parent)
                if room.f_bavail * room.f_frsize >= 2 * self._ballast.size and self._ballast.fill():
                    _log.info("store.ballast_set_aside", path=str(self._ballast.path), size=self._ballast.size)
                    self.full = ""
            except OSError as error:
                _log.warning("store.ballast_not_set_aside", path=str(self._ballast.path), error=str(error))
        if to_use and self.full:
            return self._scarce() if self._ballast is not None and self._ballast.scarce else ""
        return self.full

    def _full(self) -> str:
        return f"the disk that holds {self._path} is full: leases can be used and released, and none be asked for; free some space"

    def _scarce(self) -> str:
        return f"the disk that holds {self._path} is full: leases can be renewed and released; free some space"


class _Transaction:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rollback(self) -> None:
        # SQLite has rolled back by itself after some errors.
        if self._connection.in_transaction:
            self._connection.execute(sql.ROLLBACK)


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[_Transaction]:
    """Commits at the end unless it was rolled back; rolls back on any error, and raises that of the rollback first."""
    transaction = _Transaction(connection)
    connection.execute(begin)
    try:
        yield transaction
        if connection.in_transaction:
            connection.execute(sql.COMMIT)
    except BaseException:
        transaction.rollback()
        raise


@contextmanager
def _no_collection() -> Iterator[None]:
    """100,000 new values that all live on: the collector would go over them again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _load(connection: sqlite3.Connection) -> Loaded:
    _, revision, serving, compacted_through = connection.execute(sql.META).fetchone()
    kinds = {kind.value: kind for kind in RowKind}
    rows = [
        StoredRow(kinds[kind], identity, row_revision, body)
        for kind, identity, row_revision, body in connection.execute(sql.LOAD_ROWS)
    ]
    return Loaded(
        revision=revision,
        serving=serving,
        epochs={Epoch(epoch): ServingTime(began) for epoch, began in connection.execute(sql.LOAD_EPOCHS)},
        rows=rows,
        compacted_through=compacted_through,
    )


def _answered(connection: sqlite3.Connection, after: int, limit: int) -> RequestPage:
    rows = connection.execute(sql.LOAD_REQUESTS, (after, limit + 1)).fetchall()
    requests = tuple(
        RequestRecord(principal, request_id, WallTime(float(created)), body)
        for _, principal, request_id, created, body in rows[:limit]
    )
    return RequestPage(requests, rows[limit - 1][0] if len(rows) > limit else None)


def _apply_rows(connection: sqlite3.Connection, plan: _batch.Plan) -> bool:
    """Whether every row was as expected; if not, some may have been changed, and the transaction is to be rolled back."""
    for statement, packed in (
        (sql.INSERT_ROWS, plan.inserts),
        (sql.UPDATE_ROWS, plan.updates),
        (sql.DELETE_ROWS, plan.deletes),
    ):
        if _execute(connection, statement, packed) != packed.count:
            return False
    if not plan.absent.count:
        return True
    (present,) = connection.execute(sql.COUNT_ROWS, (plan.absent.columns,)).fetchone()
    return not present


def _execute(connection: sqlite3.Connection, statement: str, packed: _batch.Packed) -> int:
    """How many rows it changed. A statement for nothing isn't made: each costs a round through the GIL."""
    if not packed.count:
        return 0
    uses_bodies = "?2" in statement
    parameters = (packed.columns, packed.bodies) if uses_bodies else (packed.columns,)
    return connection.execute(statement, parameters).rowcount


def _why_mismatched(connection: sqlite3.Connection, batch: Batch) -> str:
    """Which row it was: the first that isn't as its first image in the batch expects."""
    seen: set[tuple[str, str]] = set()
    for row in batch.rows:
        key = (row.kind, row.id)
        if key in seen:
            continue
        seen.add(key)
        held = connection.execute(sql.HELD, (row.kind.value, row.id)).fetchone()
        if (held[0] if held else 0) != row.expected:
            return _batch.mismatch(row, held[0] if held else 0)
    return "a row changed while the batch was refused: another broker has written"
