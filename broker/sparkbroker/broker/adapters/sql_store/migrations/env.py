"""Alembic's environment: one SQLite file, one transaction.

``_schema.migrate`` gives the file; a developer's ``alembic -x database=FILE …`` does too.
"""

import sqlite3
from pathlib import Path

from alembic import context
from sqlalchemy import URL, Connection, NullPool, create_engine, event


def _database() -> Path:
    given = context.config.attributes.get("database") or context.get_x_argument(as_dictionary=True).get("database")
    if given is None:
        raise SystemExit("no database given; say which: alembic -x database=FILE upgrade head")
    return Path(given)


def _make_durable(connection: sqlite3.Connection, _: object) -> None:
    connection.execute("PRAGMA synchronous = FULL")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _upgrade() -> None:
    # AUTOCOMMIT and an explicit BEGIN: by itself Python's sqlite3 begins no transaction before DDL.
    engine = create_engine(
        URL.create("sqlite", database=str(_database())), poolclass=NullPool, connect_args={"isolation_level": None}
    )
    event.listen(engine, "connect", _make_durable)
    event.listen(engine, "begin", _begin)
    with engine.connect() as connection:
        context.configure(connection=connection, transactional_ddl=True, transaction_per_migration=False)
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


_upgrade()
