"""The SQL of commits, loading and events. ``json_each`` feeds whole tables: see ``_batch``.

Only column numbers are put into the text of a statement; every value is a parameter.
"""

# ruff: noqa: S608

from typing import Final

BEGIN: Final = "BEGIN IMMEDIATE"
READ: Final = "BEGIN"
COMMIT: Final = "COMMIT"
ROLLBACK: Final = "ROLLBACK"

LEAD: Final = "UPDATE meta SET epoch = epoch + 1"
BEGIN_EPOCH: Final = "INSERT INTO epochs (epoch, serving) SELECT epoch, serving FROM meta"
DROP_EPOCHS: Final = "DELETE FROM epochs WHERE epoch <= (SELECT epoch FROM meta) - ?1"
LOAD_EPOCHS: Final = "SELECT epoch, serving FROM epochs"
META: Final = "SELECT epoch, revision, serving, compacted_through FROM meta"
# The fence: no row of this epoch, no write.
ADVANCE: Final = """UPDATE meta SET revision = ?1, serving = ?2, compacted_through = max(compacted_through, ?3)
WHERE epoch = ?4 AND revision <= ?1"""


def _column(index: int) -> str:
    return f"json_extract(value, '$[{index}]')"


def _body(offset: int) -> str:
    return f"CAST(substr(?2, {_column(offset)}, {_column(offset + 1)}) AS TEXT)"


# "WHERE true": else the parser takes ON CONFLICT for a join's ON.
INSERT_ROWS: Final = f"""INSERT INTO rows (kind, id, revision, body)
SELECT {_column(0)}, {_column(1)}, {_column(2)}, {_body(4)} FROM json_each(?1) WHERE true ON CONFLICT DO NOTHING"""

UPDATE_ROWS: Final = f"""UPDATE rows SET revision = new.revision, body = new.body FROM (
SELECT {_column(0)} AS kind, {_column(1)} AS id, {_column(2)} AS revision, {_column(3)} AS expected, {_body(4)} AS body
FROM json_each(?1)) AS new
WHERE rows.kind = new.kind AND rows.id = new.id AND rows.revision = new.expected"""

DELETE_ROWS: Final = f"""DELETE FROM rows WHERE rowid IN (
SELECT rows.rowid FROM json_each(?1) CROSS JOIN rows
ON rows.kind = {_column(0)} AND rows.id = {_column(1)} AND rows.revision = {_column(3)})"""

COUNT_ROWS: Final = f"""SELECT count(*) FROM json_each(?1) CROSS JOIN rows
ON rows.kind = {_column(0)} AND rows.id = {_column(1)}"""

INSERT_EVENTS: Final = f"""INSERT INTO events (revision, subject, body)
SELECT {_column(0)}, {_column(1)}, {_body(2)} FROM json_each(?1)"""

PUT_REQUESTS: Final = f"""INSERT OR REPLACE INTO requests (principal, request_id, created, body)
SELECT {_column(0)}, {_column(1)}, {_column(2)}, {_body(3)} FROM json_each(?1)"""

DELETE_REQUESTS: Final = f"""DELETE FROM requests WHERE rowid IN (
SELECT requests.rowid FROM json_each(?1) CROSS JOIN requests
ON requests.principal = {_column(0)} AND requests.request_id = {_column(1)})"""

COMPACT: Final = "DELETE FROM events WHERE revision <= ?"
CHECKPOINT: Final = "PRAGMA wal_checkpoint(PASSIVE)"

HELD: Final = "SELECT revision FROM rows WHERE kind = ? AND id = ?"
# As blobs: decoding 100,000 bodies into str, only to encode them again, would cost as much as reading them.
LOAD_ROWS: Final = "SELECT kind, id, revision, CAST(body AS BLOB) FROM rows ORDER BY rowid"
LOAD_REQUESTS: Final = """SELECT rowid, principal, request_id, created, CAST(body AS BLOB) FROM requests
WHERE rowid > ? ORDER BY rowid LIMIT ?"""
EVENTS: Final = "SELECT revision, subject, CAST(body AS BLOB) FROM events WHERE revision > ? ORDER BY revision LIMIT ?"
EVENTS_OF: Final = """SELECT revision, subject, CAST(body AS BLOB) FROM events
WHERE revision > ? AND subject = ? ORDER BY revision LIMIT ?"""
