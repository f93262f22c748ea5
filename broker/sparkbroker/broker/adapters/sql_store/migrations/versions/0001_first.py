"""The first schema. Frozen: a released migration never changes."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Tables of rows, events, requests, and the one row of meta."""
    op.execute("""CREATE TABLE meta (
    epoch INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    serving REAL NOT NULL,
    compacted_through INTEGER NOT NULL
)""")
    op.execute("INSERT INTO meta (epoch, revision, serving, compacted_through) VALUES (0, 0, 0.0, 0)")
    op.execute("""CREATE TABLE epochs (
    epoch INTEGER NOT NULL PRIMARY KEY,
    serving REAL NOT NULL
)""")
    op.execute("""CREATE TABLE rows (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (kind, id)
)""")
    op.execute("""CREATE TABLE events (
    revision INTEGER NOT NULL PRIMARY KEY,
    subject TEXT NOT NULL,
    body TEXT NOT NULL
)""")
    op.execute("CREATE INDEX events_by_subject ON events (subject, revision)")
    op.execute("""CREATE TABLE requests (
    principal TEXT NOT NULL,
    request_id TEXT NOT NULL,
    created TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (principal, request_id)
)""")
    op.execute(f"PRAGMA application_id = {0x5370426B}")
