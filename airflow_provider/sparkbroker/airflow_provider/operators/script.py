"""An unchanged PySpark program, run as a child process whose Spark is the task's lease."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sparkbroker.airflow_provider import artifacts, checks, openlineage, request
from sparkbroker.airflow_provider._compat import AirflowException, mask_secret
from sparkbroker.airflow_provider.child import run_child
from sparkbroker.airflow_provider.late import is_late
from sparkbroker.airflow_provider.operators.base import SparkLeaseOperator
from sparkbroker.client import child_environment, submit_files

if TYPE_CHECKING:
    from sparkbroker.client import ConnectConnection, Lease, LocalConnection

_EXIT_TIMEOUT: Final = 30.0
"""Seconds for a Python to tell its version."""


class ScriptFailed(AirflowException):
    """The program has ended with another status than 0."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def _texts(value: Any, name: str) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise request.InvalidArgument(
            name, f"{request.shown(value)} is not a list", "give a list, one item for each argument"
        )
    return [_text(item, f"{name}[{place}]") for place, item in enumerate(value)]


def _text(value: Any, name: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float | os.PathLike):
        raise request.InvalidArgument(name, f"{request.shown(value)} is neither text nor a number", "give a str")
    text = str(os.fspath(value)) if isinstance(value, os.PathLike) else str(value)
    if "\0" in text:
        raise request.InvalidArgument(name, "it has a character NUL, which no program can be given", "leave it out")
    return text


def _environment(env: Any, argument: str = "env") -> dict[str, str]:
    found = request.mapping(env, argument)
    for name in found:
        if child_environment.is_misleading(name):
            raise request.InvalidArgument(argument, f"{name} is set from the lease", "leave it out")
        if not name or "=" in name or "\0" in name:
            raise request.InvalidArgument(argument, f"{name!r} is not a variable's name", "give one without =")
    return {name: _text(value, f"{argument}[{name!r}]") for name, value in found.items()}


def _file(value: Any, name: str) -> str:
    if not isinstance(value, str | os.PathLike) or not str(value).strip():
        raise request.InvalidArgument(name, f"{request.shown(value)} is not a path", "give a str")
    return _text(value, name)


def _optional_file(value: Any, name: str) -> str | None:
    return None if value is None else _file(value, name)


class SparkScriptOperator(SparkLeaseOperator):
    """Runs a PySpark program that knows nothing of leases: ``SparkSession.builder.getOrCreate()`` gives it the lease's.

    ``script`` is a file beside the DAG or on the worker, ``arguments`` its command line, ``env`` is added to the worker's
    environment, ``python`` runs it (None: the worker's own), ``cwd`` is where (None: the script's folder). Its output, both
    streams, is the task's log; its exit status decides; its process group ends with the task, however that ends.

    A CONNECT lease is given by SPARK_REMOTE: one session; a program that stops it can't open another. ``py_files`` are on
    the program's PYTHONPATH and, with ``files`` and ``archives``, in its session. A LOCAL lease gives it a classic session
    (``spark.sparkContext``) of the lease's size in a JVM of its own.
    """

    no_client = "a program of its own can't use the session of the worker's pod"
    template_fields: Sequence[str] = (
        "script",
        "arguments",
        "env",
        "cwd",
        "python",
        *SparkLeaseOperator.template_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **SparkLeaseOperator.template_fields_renderers,
        "env": "json",
    }
    argument_readers: ClassVar[checks.Readers] = {
        **SparkLeaseOperator.argument_readers,
        "script": _file,
        "arguments": _texts,
        "env": _environment,
        "cwd": _optional_file,
        "python": _optional_file,
    }
    late_arguments = (*SparkLeaseOperator.late_arguments, "script", "arguments", "env", "cwd", "python")

    def __init__(
        self,
        *,
        script: str,
        arguments: Sequence[Any] | None = None,
        env: Mapping[str, Any] | None = None,
        cwd: str | None = None,
        python: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.script = os.fspath(script) if isinstance(script, os.PathLike) else script
        self.arguments = arguments
        self.env = env
        self.cwd = os.fspath(cwd) if isinstance(cwd, os.PathLike) else cwd
        self.python = os.fspath(python) if isinstance(python, os.PathLike) else python
        super().__init__(**kwargs)  # last: see AskingOperator.files_are_here

    def check_files(self, folder: str) -> None:
        """See SparkLeaseOperator."""
        super().check_files(folder)
        artifacts.resolve([self.script], "script", folder)
        # Another is found in the program's own folder and environment, which the start alone can tell.
        python, cwd = (None if is_late(value) else value for value in (self.python, self.cwd))
        if python is not None and Path(python).is_absolute() and shutil.which(python) is None:
            raise request.InvalidArgument("python", f"there is no {python!r} that can be run", "give a Python")
        if cwd is not None and not Path(cwd).is_dir():
            raise request.InvalidArgument("cwd", f"there is no folder {cwd!r}", "give one of the worker's")

    def run_with_lease(self, context: Any, lease: "Lease") -> None:
        """Run the program; raise ScriptFailed if its exit status isn't 0."""
        folder = artifacts.dag_folder(context.get("dag"))
        self.check_files(folder)  # in the triggerer nobody could
        (script,) = artifacts.resolve([self.script], "script", folder)
        options = request.options(self.lease_arguments())
        brought = artifacts.find(options, folder)
        command = [self.python or sys.executable, script, *_texts(self.arguments, "arguments")]
        given = _environment(self.env)
        where = self.cwd or str(Path(script).parent)
        python = _Python(command[0], where, {**os.environ, **given})
        self.log.info("Running %s", shlex.join(command))
        with self._spark_variables(context, lease, options.app_name, brought, python) as variables:
            environment = _merged(python.environment, variables, brought.py_files)
            status = run_child(
                command,
                environment=environment,
                folder=where,
                say=lambda line: self.log.info("%s", line),
                check=lambda: _check(lease),
            )
        lease.raise_if_lost(None)
        if status != 0:
            how = f"with exit status {status}" if status > 0 else f"by signal {-status}"
            raise ScriptFailed(f"{self.script} has ended {how}; its output is above", status)

    @contextmanager
    def _spark_variables(
        self, context: Any, lease: "Lease", app_name: str, brought: artifacts.Artifacts, python: "_Python"
    ) -> Iterator[dict[str, str]]:
        """What makes its pyspark open the lease's session; secret."""
        from sparkbroker.client import ClientConnection, ConnectConnection  # noqa: PLC0415  parsing a DAG is to load little
        from sparkbroker.client.installed_pyspark import check_pyspark  # noqa: PLC0415  as above

        if python.name == sys.executable:
            check_pyspark()
        connection = lease.connection()
        if isinstance(connection, ClientConnection):
            problem = "a program of its own can't use the session of the worker's pod (mode CLIENT)"
            raise request.InvalidArgument("mode", problem, "give 'LOCAL' or 'CONNECT'")
        conf = openlineage.parent_conf(context)
        with tempfile.TemporaryDirectory(prefix="sparkbroker-") as folder:
            if not isinstance(connection, ConnectConnection):
                more = {"spark.app.name": app_name or lease.name, **conf}
                yield _local(lease.name, connection, more, brought, python, Path(folder))
                return
            if connection.python_version:
                artifacts.check_python(connection.python_version, _version(python))
            self._push_ui_link(context, lease, connection.ui_url)
            if conf or brought:
                _prepare_session(connection, conf, brought)
            yield _connect(lease.name, connection, python.environment, Path(folder))


@dataclass(frozen=True, slots=True)
class _Python:
    """What runs the program, found from that folder and by that environment's PATH."""

    name: str
    folder: str
    environment: Mapping[str, str]


def _version(python: _Python) -> str:
    if python.name == sys.executable:
        return artifacts.version_of(sys.version_info)
    command = [python.name, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    try:
        done = subprocess.run(
            command, cwd=python.folder, env=python.environment,
            capture_output=True, text=True, check=True, timeout=_EXIT_TIMEOUT,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise request.InvalidArgument("python", f"{python.name!r} can't be run ({error})", "give a Python") from error
    return done.stdout.strip()


def _merged(environ: Mapping[str, str], variables: Mapping[str, str], py_files: Sequence[str]) -> dict[str, str]:
    """The child's environment: the worker's with the user's over it, then the lease's."""
    for path in py_files:
        if os.pathsep in path:
            problem = f"{path!r} has a {os.pathsep!r}, which separates the entries of PYTHONPATH"
            raise request.InvalidArgument("py_files", problem, "rename it")
    merged = {"PYTHONUNBUFFERED": "1", **child_environment.without_misleading(environ), **variables}
    return merged | {"PYTHONPATH": child_environment.python_path(merged, py_files)}


def _check(lease: "Lease") -> None:
    if lease.lost is not None:
        raise lease.lost


def _connect(lease: str, connection: "ConnectConnection", environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    for secret in (connection.url(), *connection.headers.values()):
        mask_secret(secret)
    ca_file = ""
    if connection.ca_certificate:
        ca = folder / "ca.pem"
        ca.write_text(connection.ca_certificate)
        ca_file = str(ca)
    return child_environment.connect_variables(environ, connection, lease=lease, ca_file=ca_file)


def _prepare_session(connection: "ConnectConnection", conf: Mapping[str, str], brought: artifacts.Artifacts) -> None:
    """Give files and conf to the session that the program will have, and leave that session open."""
    from pyspark.sql.connect.session import SparkSession  # noqa: PLC0415  parsing a DAG doesn't load it

    from sparkbroker.client.connect_channel import LeaseChannelBuilder  # noqa: PLC0415  likewise

    # A URL can't carry the certificates to trust, nor keep a proxy away from the loopback interface.
    spark = SparkSession.builder.channelBuilder(LeaseChannelBuilder(connection)).create()
    try:
        artifacts.add(spark, brought)
        for key, value in conf.items():
            spark.conf.set(key, value)
    finally:
        spark.client.close()  # and not ``spark.stop()``, which would end the session


def _local(
    lease: str,
    connection: "LocalConnection",
    more: Mapping[str, str],
    brought: artifacts.Artifacts,
    python: _Python,
    folder: Path,
) -> dict[str, str]:
    from sparkbroker.client.local_settings import local_settings  # noqa: PLC0415  as above
    from sparkbroker.client.nameless_user import java_options, with_java_options  # noqa: PLC0415  as above
    from sparkbroker.client.packaged_java import packaged_java  # noqa: PLC0415  as above

    lists = {
        "spark.submit.pyFiles": [_listable(place, "py_files", folder) for place in brought.py_files],
        "spark.files": [_listable(place, "files", folder) for place in brought.files],
        "spark.archives": [
            _listable(archive.place, "archives", folder) + (f"#{archive.name}" if archive.name else "")
            for archive in brought.archives
        ],
    }
    settings = {**more, **local_settings({**connection.conf, "spark.master": connection.master})}
    settings |= {key: ",".join(paths) for key, paths in lists.items() if paths}
    settings = with_java_options(settings, java_options(folder, python.environment))
    file = folder / "spark.conf"
    file.touch(mode=0o600)
    file.write_text(child_environment.spark_properties(settings.items()), encoding="utf-8")
    return child_environment.local_variables(
        python.environment,
        connection,
        lease=lease,
        properties_file=str(file),
        python=python.name,
        java_home=packaged_java(python.environment, folder),
    )


def _listable(place: str, argument: str, folder: Path) -> str:
    """See ``submit_files.listable``; a URL is given as it is. Raise InvalidArgument."""
    if not artifacts.is_here(place):
        return place
    with artifacts.told_of(argument):
        return submit_files.listable(place, folder)
