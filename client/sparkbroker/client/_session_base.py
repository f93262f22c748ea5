"""What a lease's Spark session is, whatever its kind. Imports no pyspark."""

import sys
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

from sparkbroker.client._values import Connection


class OpenSession(Protocol):
    """A Spark session of a lease. Both ways to end it are idempotent, bounded in time, and raise nothing."""

    @property
    def spark(self) -> Any: ...
    @property
    def open(self) -> bool: ...
    @property
    def expires(self) -> datetime | None:
        """When its credential ends unless it is renewed (UTC, without a zone); None: with its lease."""
        ...

    def renew(self, connection: Connection) -> None:
        """Take the credential of this newer connection. It may block for a moment."""

    @property
    def ended(self) -> str:
        """How it ended otherwise than by ``close``, such as by ``spark.stop()``. Empty: it did not, as far as is known."""
        ...

    def look(self) -> None:
        """Ask its server whether it still has it; ``ended`` then tells. Blocks for seconds at most; raises nothing."""

    @property
    def in_process(self) -> bool:
        """Its driver is this process's own JVM."""
        ...

    @property
    def uses_session_id(self) -> bool:
        """It uses up the attachment's session id: Spark accepts it for one session only."""
        ...

    def explain_errors(self, explain: Callable[[BaseException], None]) -> None:
        """Show ``explain`` the errors that a use of the session meets, where they may be the lease's end.

        What it raises is raised in their place. It may block.
        """
        ...

    def close(self) -> None:
        """End it in good order."""

    def abort(self, reason: str) -> None:
        """Its lease is lost: interrupt what runs on it, so that the program notices, and end it."""


class SessionBase:
    """What the kinds of session have in common: that they are ended once, and their credential lasts as long as they do."""

    expires: datetime | None = None

    def __init__(self, spark: Any) -> None:
        self._spark = spark
        self._lock = threading.Lock()
        self._open = True
        self._ended = ""

    def look(self) -> None:
        """Nothing to ask: what is known is known here."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} [{'open' if self._open else 'closed'}]>"

    @property
    def spark(self) -> Any:
        return self._spark

    @property
    def open(self) -> bool:
        return self._open

    def renew(self, connection: Connection) -> None:
        """Nothing to do."""

    def _begin_end(self) -> bool:
        """True for the first caller: it is the one to end it."""
        with self._lock:
            was_open, self._open = self._open, False
            return was_open


class ConnectMode:
    """``pyspark.sql.functions`` asks the environment whether this process uses Connect: say so while a session is open."""

    _variable = "SPARK_CONNECT_MODE_ENABLED"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._set_by_us = False

    @property
    def users(self) -> int:
        return self._users

    def enter(self, environ: Any) -> None:
        with self._lock:
            self._users += 1
            if self._variable not in environ:
                environ[self._variable] = "1"
                self._set_by_us = True

    def leave(self, environ: Any) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._set_by_us:
                self._set_by_us = False
                if not _has_own_session():
                    environ.pop(self._variable, None)


def _has_own_session() -> bool:
    """Whether the program has opened a Connect session itself: pyspark would have set the variable for it."""
    session = getattr(sys.modules.get("pyspark.sql.connect.session"), "SparkSession", None)
    own = getattr(session, "_default_session", None)  # never a lease's
    return own is not None and not own.is_stopped


CONNECT_MODE = ConnectMode()


def describe(error: BaseException) -> str:
    """An error of pyspark's or py4j's in one line."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
