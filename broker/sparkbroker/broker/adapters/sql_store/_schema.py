"""The schema that this code knows, and how a database comes to have it.

A new database gets it directly, since Alembic takes a second to import; a test holds it equal to what the migrations make.
An older one is migrated.
"""

import sqlite3
from pathlib import Path
from typing import Final

import structlog

from sparkbroker.broker.ports.store import StoreUnusable

HEAD: Final = "0002"
"""The newest revision in ``migrations/versions``. Revisions are numbers, so that a newer one can be told as such."""
APPLICATION_ID: Final = 0x5370426B
"""Marks a SQLite file as ours ("SpBk")."""
MINIMUM_SQLITE: Final = (3, 33, 0)
"""The first with UPDATE ... FROM."""
PAGE_SIZE: Final = 8192
SHRINK_FROM: Final = 64 << 20
"""Free bytes in the file, after a migration, that are worth a rewrite of it."""

_STATEMENTS: Final = (
    """CREATE TABLE meta (
    epoch INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    serving REAL NOT NULL,
    compacted_through INTEGER NOT NULL
)""",
    "INSERT INTO meta (epoch, revision, serving, compacted_through) VALUES (0, 0, 0.0, 0)",
    """CREATE TABLE epochs (
    epoch INTEGER NOT NULL PRIMARY KEY,
    serving REAL NOT NULL
)""",
    """CREATE TABLE rows (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (kind, id)
)""",
    """CREATE TABLE events (
    revision INTEGER NOT NULL PRIMARY KEY,
    subject TEXT NOT NULL,
    body TEXT NOT NULL
)""",
    "CREATE INDEX events_by_subject ON events (subject, revision)",
    """CREATE TABLE requests (
    principal TEXT NOT NULL,
    request_id TEXT NOT NULL,
    created TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (principal, request_id)
)""",
    f"PRAGMA application_id = {APPLICATION_ID}",
    "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)",
)

_log = structlog.get_logger(__name__)


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Create or migrate what is there. Raise StoreUnusable for another program's or a newer schema; sqlite3.Error."""
    revision = stored_revision(connection, path)
    if revision is None:
        _create(connection)
    elif revision == HEAD:
        return
    elif int(revision) > int(HEAD):
        raise StoreUnusable(
            f"{path} was made by a newer sparkbroker (schema {revision}; this one knows {HEAD}); install that version, or "
            "give another state folder"
        )
    else:
        _log.info("store.migrating", path=str(path), stored=revision, target=HEAD)
        migrate(path)
        _shrink(connection, path)
        _log.info("store.migrated", path=str(path), revision=HEAD)


def stored_revision(connection: sqlite3.Connection, path: Path) -> str | None:
    """The revision that the database is at; None: it is new. Raise StoreUnusable if it isn't ours."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables:
        return None
    (mark,) = connection.execute("PRAGMA application_id").fetchone()
    if mark != APPLICATION_ID:
        raise StoreUnusable(f"{path} is another program's database; move it away, or give another state folder")
    rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    if len(rows) != 1 or not str(rows[0][0]).isdecimal():
        raise StoreUnusable(f"{path} has no valid schema revision ({rows}); restore the state folder from a backup")
    return str(rows[0][0])


def migrate(path: Path) -> None:
    """Bring the database to ``HEAD``, in one transaction. SQLAlchemy and Alembic are imported here and nowhere else."""
    from alembic import command  # noqa: PLC0415 - takes a second
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415

    config = Config()
    # Alembic expands %(here)s in it.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["database"] = path
    try:
        command.upgrade(config, "head")
    except DBAPIError as error:
        if isinstance(error.orig, sqlite3.Error):
            raise error.orig from error
        raise
    except CommandError as error:
        raise StoreUnusable(f"{path} can't be migrated to schema {HEAD}: {error}; restore it from a backup") from error


def _shrink(connection: sqlite3.Connection, path: Path) -> None:
    """Give back what a migration has freed, if that is much. The disk may have no room for it: then it is used again."""
    (free,), (all_pages,) = (
        connection.execute(f"PRAGMA {name}").fetchone() for name in ("freelist_count", "page_count")
    )
    if free * PAGE_SIZE < SHRINK_FROM or free < all_pages // 2:
        return
    try:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.Error as error:
        _log.warning("store.not_shrunk", path=str(path), error=str(error))


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for statement in _STATEMENTS:
        connection.execute(statement)
    connection.execute("INSERT INTO alembic_version (version_num) VALUES (?)", (HEAD,))
    connection.execute("COMMIT")
