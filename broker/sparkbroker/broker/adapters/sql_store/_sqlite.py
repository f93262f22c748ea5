"""Opening SQLite, and what its errors mean. The only place where they are translated."""

import sqlite3
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sparkbroker.broker.adapters.sql_store._schema import MINIMUM_SQLITE, PAGE_SIZE
from sparkbroker.broker.ports.store import StoreUnusable

BUSY_TIMEOUT: Final = 10.0
"""Seconds to wait for another process's lock (an operator's shell, a backup) before a commit is given up."""
_NO_SHARED_MEMORY: Final = frozenset(
    {sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMOPEN, sqlite3.SQLITE_IOERR_SHMMAP}
)
FOLDER: Final = "give another state folder"


def open_writer(path: Path) -> sqlite3.Connection:
    """The connection that writes. Raise StoreUnusable or sqlite3.Error."""
    if sqlite3.sqlite_version_info < MINIMUM_SQLITE:
        needed = ".".join(map(str, MINIMUM_SQLITE))
        raise StoreUnusable(
            f"this Python has SQLite {sqlite3.sqlite_version}, and {needed} is needed; use another Python"
        )
    connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT, cached_statements=64)
    try:
        connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("PRAGMA synchronous = FULL")
        # Checkpoints are ours: SQLite's own happen before a commit returns, and hide their errors.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA cache_size = -16384")
    except BaseException:
        connection.close()
        raise
    if mode != "wal":
        connection.close()
        raise StoreUnusable(f"{path} is on a file system that can't share memory, as SQLite's WAL needs; {FOLDER}")
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that can't write. Raise sqlite3.Error."""
    address = f"file:{quote(str(path))}?mode=ro"
    return sqlite3.connect(address, uri=True, isolation_level=None, timeout=BUSY_TIMEOUT)


def is_full(error: sqlite3.Error) -> bool:
    """The disk is full, and what was asked for is known not to have been done."""
    return _code(error) == sqlite3.SQLITE_FULL


def cannot_open(error: sqlite3.Error) -> bool:
    """The disk is full, or (opening its shared memory) may well be."""
    return is_full(error) or getattr(error, "sqlite_errorcode", 0) in _NO_SHARED_MEMORY


def unusable(path: Path, error: sqlite3.Error) -> StoreUnusable:
    """The sentence for an error of opening or reading."""
    match _code(error):
        case sqlite3.SQLITE_FULL:
            return StoreUnusable(f"the disk that holds {path} is full; free some space, then start the broker again")
        case sqlite3.SQLITE_CANTOPEN if not path.parent.is_dir():
            return StoreUnusable(f"{path} can't be created: {path.parent} doesn't exist; create that, or {FOLDER}")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_CANTOPEN:
            return StoreUnusable(f"{path} is read-only ({error}); make it and its folder writable, or {FOLDER}")
        case sqlite3.SQLITE_NOTADB:
            return StoreUnusable(
                f"{path} is not a database, or its head is damaged; restore it from a backup, or {FOLDER}"
            )
        case sqlite3.SQLITE_CORRUPT:
            return StoreUnusable(f"{path} is damaged ({error}); restore it from a backup, or {FOLDER}")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreUnusable(f"another process holds {path} locked ({error}); end it, then start the broker again")
        case _:
            return StoreUnusable(f"{path} can't be used: {describe(error)}; check the disk, or {FOLDER}")


def describe(error: sqlite3.Error) -> str:
    """The error with SQLite's own name for it, such as ``disk I/O error (SQLITE_IOERR_FSYNC)``."""
    name = getattr(error, "sqlite_errorname", "")
    return f"{error} ({name})" if name else str(error)


def _code(error: sqlite3.Error) -> int:
    """The primary result code; 0 for an error of Python's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
