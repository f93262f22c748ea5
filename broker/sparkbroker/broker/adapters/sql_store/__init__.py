"""The embedded store: SQLite in a folder that one broker owns.

Promises: what ``commit`` calls Committed survives a power cut (WAL, ``synchronous=FULL``); a batch is written whole or not
at all; a commit of an old leadership is never written; after one failure whose result isn't known nothing more is
written, since SQLite itself would go on after a failed fsync; reads of events never wait for a commit.

Not promised: a network file system (SQLite's WAL needs shared memory), or detection of flipped bits inside a value
(SQLite has no checksums): a damaged page is found when it is read, and ``load`` reads every row and request.
"""

from sparkbroker.broker.adapters.sql_store._ballast import Ballast
from sparkbroker.broker.adapters.sql_store._state_folder import StateFolder
from sparkbroker.broker.adapters.sql_store._store import SqlStore

__all__ = ["Ballast", "SqlStore", "StateFolder"]
