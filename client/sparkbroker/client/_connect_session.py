"""A session on a Spark Connect endpoint: pyspark 4.3 or pyspark-client 4.2. Only imported where there is a pyspark."""

import atexit
import logging
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final, NoReturn

import grpc
from pyspark.errors import PySparkException
from pyspark.sql.connect.client.retries import DefaultPolicy
from pyspark.sql.connect.session import SparkSession

from sparkbroker.client._blocking import start_thread
from sparkbroker.client._errors import SessionEnded, SessionFailed
from sparkbroker.client._fork import after_fork_in_child
from sparkbroker.client._pyspark_hook import opening
from sparkbroker.client._session_base import CONNECT_MODE, SessionBase, describe
from sparkbroker.client._values import ConnectConnection
from sparkbroker.client.connect_channel import LeaseChannelBuilder

_log = logging.getLogger("sparkbroker.client")
PROBE_TIMEOUT: Final = 15.0
CLOSE_TIMEOUT: Final = 5.0
ABORT_TIMEOUT: Final = 2.0
LOOK_TIMEOUT: Final = 5.0
_RETRIES: Final = 9
_LONGEST_BACKOFF_MS: Final = 5000
_INVALID: Final = "INVALID_HANDLE"
"""Spark's class of the errors for a session that is no more, whatever its state was."""


class StoppablePolicy(DefaultPolicy):  # type: ignore[misc]
    """Tries again for about half a minute instead of ten; once stopped, not at all, also in calls under way."""

    def __init__(self) -> None:
        super().__init__(max_retries=_RETRIES, max_backoff=_LONGEST_BACKOFF_MS)
        self.stopped = False

    def can_retry(self, e: BaseException) -> bool:
        return not self.stopped and bool(super().can_retry(e))


def open_connect(connection: ConnectConnection) -> "ConnectSession":
    """Open a session of its own, never one that the process already has. Raise SessionFailed."""
    builder = LeaseChannelBuilder(connection)
    _probe(builder)
    CONNECT_MODE.enter(os.environ)
    try:
        with opening():
            spark = SparkSession.builder.channelBuilder(builder).create()
    except Exception as error:
        CONNECT_MODE.leave(os.environ)
        raise SessionFailed(f"no session could be opened at {connection.endpoint}: {describe(error)}") from error
    _leave_places(spark)
    policy = StoppablePolicy()
    spark.client.set_retry_policies([policy])
    session = ConnectSession(spark, policy)
    _close_at_exit(session)
    return session


def _leave_places(spark: Any) -> None:
    """A lease's session is neither the active nor the default one of pyspark: ``_current`` says which it is, in every thread."""
    with SparkSession._lock:  # noqa: SLF001
        if SparkSession._default_session is spark:  # noqa: SLF001
            SparkSession._default_session = None  # noqa: SLF001
    if getattr(SparkSession._active_session, "session", None) is spark:  # noqa: SLF001
        SparkSession._active_session.session = None  # noqa: SLF001


_open_sessions: "weakref.WeakSet[ConnectSession]" = weakref.WeakSet()
_registered = False


def _close_at_exit(session: "ConnectSession") -> None:
    """A session that the program leaves open is closed before the interpreter waits for pyspark's threads, which may
    be trying to reach a dead server, and before pyspark's own hook makes more such calls."""
    global _registered  # noqa: PLW0603  once per process
    _open_sessions.add(session)
    if not _registered:
        getattr(threading, "_register_atexit", atexit.register)(_close_all)
        _registered = True


def _close_all() -> None:
    for session in list(_open_sessions):
        session.close()


after_fork_in_child(_open_sessions.clear)


def _probe(builder: LeaseChannelBuilder) -> None:
    """Look first: pyspark tries for more than a quarter of an hour to reach an endpoint that isn't there."""
    channel = builder.toChannel()
    try:
        grpc.channel_ready_future(channel).result(timeout=PROBE_TIMEOUT)
    except grpc.FutureTimeoutError as error:
        text = f"the Spark server at {builder.endpoint} could not be reached within {PROBE_TIMEOUT:.0f} s"
        raise SessionFailed(text) from error
    finally:
        channel.close()


class ConnectSession(SessionBase):
    """See OpenSession."""

    uses_session_id = True
    in_process = False

    def __init__(self, spark: Any, policy: StoppablePolicy) -> None:
        super().__init__(spark)
        self._policy = policy
        self._ending = threading.local()

    def explain_errors(self, explain: Callable[[BaseException], None]) -> None:
        client = self._spark.client
        handle = client._handle_error  # noqa: SLF001  where every error of a call to the server passes

        def explained(error: Exception, *rest: Any) -> NoReturn:
            # Our own calls, which end the session, are to meet what the server says.
            if not hasattr(self._ending, "here") and _may_be_the_end(error, self._open and not self.ended):
                explain(error)
                self._explain_end(error)
            handle(error, *rest)
            raise error

        client._handle_error = explained  # noqa: SLF001

    @property
    def ended(self) -> str:
        """See OpenSession."""
        if not self._ended and self._open and self._spark.client.is_closed:
            return "the program has stopped it"
        return self._ended

    def look(self) -> None:
        """See OpenSession."""
        client = self._spark.client
        request = client._config_request_with_metadata()  # noqa: SLF001
        request.operation.get_option.keys.append("spark.app.name")
        try:
            client._stub.Config(request, metadata=client._builder.metadata(), timeout=LOOK_TIMEOUT)  # noqa: SLF001
        except grpc.RpcError as error:
            self._note_end(error)
        except (PySparkException, ValueError):  # its client is closed: ``ended`` says so
            return

    def _note_end(self, error: Exception) -> None:
        """The server doesn't know the session: it has timed out there, was released, or the server is another one."""
        if isinstance(error, grpc.RpcError) and _INVALID in (error.details() or ""):
            self._ended = self._ended or f"its server no longer has it ({_line(error.details())})"

    def _explain_end(self, error: Exception) -> None:
        self._note_end(error)
        ended = self.ended or ("" if self._open else "it was closed with its lease")
        if ended:
            raise SessionEnded(f"this Spark session has ended: {ended}") from error

    def close(self) -> None:
        """Release the session on the server, if it answers, and disconnect.

        A dead server must not hold us up: calls under way end with their next failure; if stopping takes too long,
        the channel is closed under it.
        """
        if self._begin_end():
            self._stop(CLOSE_TIMEOUT)

    def abort(self, reason: str) -> None:
        if not self._begin_end():
            return
        self._ended = reason
        self._policy.stopped = True
        interrupt = start_thread(lambda: self._end_by(self._spark.interruptAll), "interrupt")
        try:
            interrupt.result(ABORT_TIMEOUT)
        except Exception as error:  # noqa: BLE001  the server may be gone: that is why we are here
            _log.info("sparkbroker: the session of a lost lease could not be interrupted: %s", describe(error))
        self._stop(ABORT_TIMEOUT)

    def _stop(self, timeout: float) -> None:
        self._policy.stopped = True
        stop = start_thread(lambda: self._end_by(self._spark.stop), "stop-session")
        try:
            stop.result(timeout)
        except TimeoutError:
            _log.warning("sparkbroker: the Spark server has not answered for %s s; disconnecting", timeout)
            self._disconnect()
        except Exception as error:  # noqa: BLE001  ending is best effort; the broker ends the session with the lease
            _log.warning("sparkbroker: the Spark session was not stopped in good order: %s", describe(error))
            self._disconnect()
        finally:
            CONNECT_MODE.leave(os.environ)

    def _end_by(self, work: Callable[[], object]) -> None:
        self._ending.here = True
        work()

    def _disconnect(self) -> None:
        """What ``stop`` does last. Closed, the client makes no call at the interpreter's exit either."""
        client = self._spark.client
        client._channel.close()  # noqa: SLF001  ``close`` waits for what can't end before
        client._closed = True  # noqa: SLF001


def _may_be_the_end(error: Exception, session_open: bool) -> bool:
    """Whether an error may come of a driver or session that is no more, rather than of the program's query."""
    if not session_open or not isinstance(error, grpc.RpcError):
        return not session_open
    return error.code() is not grpc.StatusCode.INTERNAL or _INVALID in (error.details() or "")


def _line(details: str | None) -> str:
    return (details or "").strip().partition("\n")[0]
