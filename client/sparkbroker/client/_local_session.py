"""A session in this process, sized to its lease. Only imported where there is a full pyspark."""

import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final, Literal

from pyspark.find_spark_home import _find_spark_home

from sparkbroker.client import _pyspark_hook, child_environment
from sparkbroker.client._blocking import start_thread
from sparkbroker.client._current import CURRENT
from sparkbroker.client._errors import SessionConflict, SessionFailed, SparkMissing
from sparkbroker.client._jvm import Jvm, start_jvm
from sparkbroker.client._pyspark_hook import opening
from sparkbroker.client._session_base import CONNECT_MODE, SessionBase, describe
from sparkbroker.client._values import LocalConnection
from sparkbroker.client.child_environment import TOKEN

_log = logging.getLogger("sparkbroker.client")
STOP_TIMEOUT: Final = 15.0
LOOK_TIMEOUT: Final = 5.0
_SERVER: Final = "localhost"
"""Where pyspark looks for the Connect server that it has started itself."""


def open_local(
    connection: LocalConnection,
    api: Literal["classic", "connect"],
    app_name: str,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> "LocalSession":
    """Start a JVM with the lease's sizes and open a session in it; it needs a process without one.

    ``variables`` are set in the environment while that happens, and so in the JVM's.

    A local Connect session has pyspark's fixed port, 15002 on loopback: one at a time on a machine. Errors:
    SessionConflict, SessionFailed, SparkMissing.
    """
    _check_process()
    with _environment(variables):
        token = _connect_token() if api == "connect" else None
        jvm = start_jvm(_find_spark_home(), _settings(connection, app_name), os.environ)
        os.environ.update(jvm.environment)
        try:
            if api == "connect":
                _lead_channels()
            # Not create(): it doesn't start the server that a local Connect session needs. There is none to "get".
            with opening():
                spark = _builder(connection, api, app_name).getOrCreate()
            if api == "connect":
                # For the channels of its newSession() and cloneSession(), which come when the environment is as before.
                spark.client._builder.setChannelOption("grpc.enable_http_proxy", 0)  # noqa: SLF001
        except BaseException as error:
            _forget_session()
            jvm.end()
            _forget_token(token)
            if not isinstance(error, Exception):
                raise
            raise SessionFailed(f"no local session could be opened ({connection.master}): {describe(error)}") from error
        finally:
            for name in jvm.environment:
                os.environ.pop(name, None)
    return LocalSession(spark, jvm, token)


def _lead_channels() -> None:
    """Before there is one: it is to go to our own server."""
    import pyspark.sql.connect.client.core  # noqa: F401, PLC0415  only what is loaded is led

    _pyspark_hook.install(CURRENT)


def _connect_token() -> str | None:
    """Give the JVM, which is about to start, the token that pyspark will use. Without one its Connect server would
    serve whoever reaches its port. None: the program has set one."""
    if TOKEN in os.environ:
        return None
    os.environ[TOKEN] = secrets.token_urlsafe(32)
    return os.environ[TOKEN]


def _settings(connection: LocalConnection, app_name: str) -> dict[str, str]:
    """What the JVM has to know when it starts, such as the heap's size, and what it may know then."""
    return {"spark.master": connection.master, "spark.app.name": app_name, **connection.conf}


def _builder(connection: LocalConnection, api: str, app_name: str) -> Any:
    from pyspark.sql import SparkSession  # noqa: PLC0415  after the check that it is there

    builder = SparkSession.builder
    for known in list(builder._options):  # noqa: SLF001  the builder's options are shared by the whole process
        builder._options.pop(known)  # noqa: SLF001
    builder = builder.master(connection.master).appName(app_name).config("spark.api.mode", api)
    for key, value in connection.conf.items():
        builder = builder.config(key, value)
    return builder


def _check_process() -> None:
    try:
        from pyspark import SparkContext  # noqa: PLC0415
        from pyspark.sql.utils import is_remote_only  # noqa: PLC0415
    except ImportError as error:
        raise SparkMissing(
            f"a LOCAL session needs the full pyspark ({error}): pip install 'sparkbroker[pyspark]'"
        ) from error
    if is_remote_only():
        raise SparkMissing(
            "a LOCAL session needs the full pyspark, not pyspark-client: pip install 'sparkbroker[pyspark]'"
        )
    if CONNECT_MODE.users:
        raise SessionConflict("this process has an open CONNECT session; pyspark can't have a LOCAL one beside it")
    if SparkContext._active_spark_context is not None:  # noqa: SLF001
        raise SessionConflict("this process has a SparkContext already; stop it first (spark.stop())")
    if SparkContext._gateway is not None:  # noqa: SLF001
        raise SessionConflict(
            "this process has a JVM already (of an earlier SparkContext), whose memory can't be changed; "
            "use a new process"
        )


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Without what would mislead pyspark, and with a Python, while the session is opened."""
    # A token that the program has set is for the Connect server that a session with that API starts here.
    misleading = [name for name in os.environ if child_environment.is_misleading(name) and name != TOKEN]
    added = child_environment.without_proxy(os.environ, _SERVER)
    added.update(variables)
    hidden = {name: os.environ.pop(name) for name in {*misleading, *added} if name in os.environ}
    if sys.executable and "PYSPARK_PYTHON" not in os.environ and "PYSPARK_PYTHON" not in added:
        # Ours: pyspark would take the first python3 on the PATH, which in a notebook is seldom this environment's.
        added["PYSPARK_PYTHON"] = sys.executable
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
        for name, value in hidden.items():
            os.environ.setdefault(name, value)


class LocalSession(SessionBase):
    """See OpenSession."""

    uses_session_id = False
    in_process = True

    def __init__(self, spark: Any, jvm: Jvm, token: str | None) -> None:
        super().__init__(spark)
        self._jvm = jvm
        self._token = token

    def explain_errors(self, explain: Callable[[BaseException], None]) -> None:
        """Not here: py4j has no place for it. The end of ``with`` tells, and every use of the lease."""

    @property
    def ended(self) -> str:
        """See OpenSession."""
        if self._ended or not self._open:
            return self._ended
        if self._jvm.ended:
            return "its JVM has ended"
        return "the program has stopped it" if _is_stopped(self._spark) else ""

    def look(self) -> None:
        """Spark itself may have stopped its context."""
        if self.ended:
            return
        context = getattr(self._spark, "_sc", None)  # a local Connect session has none
        if context is not None:
            stopped = start_thread(context._jsc.sc().isStopped, "look")  # noqa: SLF001
            try:
                if stopped.result(LOOK_TIMEOUT):
                    self._ended = "Spark has stopped it"
            except Exception as error:  # noqa: BLE001  it is not known, then
                _log.info("sparkbroker: the local session could not be asked: %s", describe(error))

    def close(self) -> None:
        if not self._begin_end():
            return
        try:
            start_thread(self._spark.stop, "stop-session").result(STOP_TIMEOUT)
        except Exception as error:  # noqa: BLE001  the JVM is ended next, whatever state it is in
            _log.warning("sparkbroker: the local session was not stopped in good order: %s", describe(error))
        _forget_session()
        self._jvm.end()
        _forget_token(self._token)

    def abort(self, reason: str) -> None:
        _log.warning("sparkbroker: the local session is ended: %s", reason)
        self._ended = reason
        self.close()


def _is_stopped(spark: Any) -> bool:
    context = getattr(spark, "_sc", None)
    return context._jsc is None if context is not None else bool(spark.is_stopped)  # noqa: SLF001


def _forget_token(token: str | None) -> None:
    if token is not None and os.environ.get(TOKEN) == token:
        del os.environ[TOKEN]


def _forget_session() -> None:
    """So that the next session of the process isn't given one whose JVM is gone."""
    from pyspark import SparkContext  # noqa: PLC0415
    from pyspark.sql import SparkSession  # noqa: PLC0415

    gateway, SparkContext._gateway, SparkContext._jvm = SparkContext._gateway, None, None  # noqa: SLF001
    SparkSession._instantiatedSession = None  # noqa: SLF001
    SparkSession._activeSession = None  # noqa: SLF001
    SparkContext._active_spark_context = None  # noqa: SLF001
    if gateway is not None:
        try:
            gateway.shutdown()
        except Exception as error:  # noqa: BLE001  a dead JVM can't be told
            _log.info("sparkbroker: the JVM could not be told to end: %s", describe(error))
