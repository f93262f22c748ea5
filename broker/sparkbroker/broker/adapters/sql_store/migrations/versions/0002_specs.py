"""Specs have rows of their own, each once. Frozen: a released migration never changes.

What has ended beyond 64 MiB of different specs is forgotten, the oldest first: a database could have more than a broker's memory.
Rows are read one at a time, so that its size doesn't matter.
"""

from hashlib import blake2b
from typing import Any

import msgspec
from alembic import op
from sqlalchemy import Connection

revision = "0002"
down_revision = "0001"

TERMINAL_BYTES = 64 << 20
_ENCODER = msgspec.json.Encoder(order="sorted")

ENDED = frozenset({"RELEASED", "EXPIRED", "FAILED", "PREEMPTED"})
# The newest first.
LEASES = "SELECT id FROM rows WHERE kind = 'lease' ORDER BY rowid DESC"
DRIVERS = """SELECT json_extract(body, '$.lease_id'), id, json_extract(body, '$.state') = 'GONE' FROM rows
WHERE kind = 'driver'"""


def upgrade() -> None:
    """Move the specs; forget what is too much."""
    connection = op.get_bind()
    drivers: dict[str, list[tuple[str, bool]]] = {}
    for lease_id, driver_id, gone in connection.exec_driver_sql(DRIVERS):
        drivers.setdefault(lease_id, []).append((driver_id, gone))
    known: set[str] = set()
    left = TERMINAL_BYTES
    for (lease_id,) in connection.exec_driver_sql(LEASES).fetchall():
        revision_of, lease = _read(connection, lease_id)
        spec = lease.pop("spec", None)
        if spec is None:
            continue
        over = lease["state"] in ENDED
        body = _ENCODER.encode(spec)
        name = blake2b(body, digest_size=16).hexdigest()
        if name not in known:
            own = drivers.get(lease_id, [])
            if over and len(body) > left and all(gone for _, gone in own):
                _forget(connection, lease_id, [driver_id for driver_id, _ in own])
                continue
            left -= len(body) if over else 0
            known.add(name)
            connection.exec_driver_sql(
                "INSERT OR IGNORE INTO rows (kind, id, revision, body) VALUES ('spec', ?, ?, ?)",
                (name, revision_of, body.decode()),
            )
        lease["spec_id"] = name
        connection.exec_driver_sql(
            "UPDATE rows SET body = ? WHERE kind = 'lease' AND id = ?", (_ENCODER.encode(lease).decode(), lease_id)
        )


def _read(connection: Connection, lease_id: str) -> tuple[int, dict[str, Any]]:
    statement = "SELECT revision, body FROM rows WHERE kind = 'lease' AND id = ?"
    ((revision_of, body),) = connection.exec_driver_sql(statement, (lease_id,)).fetchall()
    return revision_of, msgspec.json.decode(body)


def _forget(connection: Connection, lease_id: str, driver_ids: list[str]) -> None:
    for kind, name in (("lease", lease_id), *(("driver", driver_id) for driver_id in driver_ids)):
        connection.exec_driver_sql("DELETE FROM rows WHERE kind = ? AND id = ?", (kind, name))
