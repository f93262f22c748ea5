"""What a task brings into its Spark session, and what differs between a classic session and one of Spark Connect."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparkbroker.airflow_provider.late import is_late
from sparkbroker.airflow_provider.request import InvalidArgument, Options


def is_connect(spark: Any) -> bool:
    """Whether it is a session of Spark Connect: one without a ``sparkContext``."""
    return type(spark).__module__.startswith("pyspark.sql.connect")


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifacts:
    """The files that a task brings into its session: absolute paths on this machine, or URLs."""

    py_files: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    archives: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.py_files or self.files or self.archives)


def find(options: Options, folder: str) -> Artifacts:
    """Those that the task names; relative ones are looked for as ``resolve`` does. Raise InvalidArgument."""
    return Artifacts(
        py_files=resolve(options.py_files, "py_files", folder),
        files=resolve(options.files, "files", folder),
        archives=resolve(options.archives, "archives", folder),
    )


def add(spark: Any, brought: Artifacts) -> None:
    """Add the files to the session. Raises what Spark raises."""
    if is_connect(spark):
        for paths, kind in ((brought.py_files, "pyfile"), (brought.files, "file"), (brought.archives, "archive")):
            if paths:
                spark.addArtifacts(*paths, **{kind: True})
        return
    context = spark.sparkContext
    for path in brought.py_files:
        context.addPyFile(path)
    for path in brought.files:
        context.addFile(path, recursive=Path(path).is_dir())
    for path in brought.archives:
        context.addArchive(path)


def version_of(info: Sequence[Any]) -> str:
    """``sys.version_info`` as brokers tell a driver's Python: "3.12"."""
    return f"{info[0]}.{info[1]}"


def check_python(there: str, ours: str, who: str = "driver runs") -> None:
    """Raise InvalidArgument if functions of our Python can't run in the driver's, or the executors' (``who``); empty: the
    broker doesn't know it."""
    if there and there != ours:
        raise InvalidArgument(
            "profile",
            f"its {who} Python {there} and this task Python {ours}, so that Python functions would fail there",
            f"use a profile (or an image in pod) with Python {ours}, or a worker with Python {there}",
        )


def ui_of(spark: Any, connection: Any) -> str:
    """Where the Spark UI of a session is; empty: unknown. ``connection``: of a driver elsewhere; None: it is here."""
    if connection is not None:
        return str(connection.ui_url)
    return "" if is_connect(spark) else spark.sparkContext.uiWebUrl or ""


def cancel(spark: Any) -> None:
    """Cancel what runs in the session. Raises what Spark raises."""
    if is_connect(spark):
        spark.interruptAll()
    else:
        spark.sparkContext.cancelAllJobs()


def dag_folder(dag: Any) -> str:
    """Where the DAG's file is, on this machine; empty: unknown."""
    fileloc = getattr(dag, "fileloc", None)
    return str(Path(fileloc).parent) if fileloc else ""


def resolve(paths: Sequence[str], argument: str, folder: str) -> tuple[str, ...]:
    """Paths of files: relative ones are looked for beside the DAG, then in the working folder. URLs are left alone, and so is
    what isn't rendered yet.

    A name after ``#`` (of an archive) stays. Raise InvalidArgument for one that isn't there.
    """
    return tuple(path if is_late(path) or "://" in path else _found(path, argument, folder) for path in paths)


def _found(path: str, argument: str, folder: str) -> str:
    file, mark, name = path.partition("#")
    for candidate in ((Path(folder) / file) if folder else Path(file), Path(file)):
        if candidate.exists():
            return f"{candidate.absolute()}{mark}{name}"
    where = f"beside the DAG ({folder}) or " if folder and not Path(file).is_absolute() else ""
    raise InvalidArgument(argument, f"there is no {file!r} {where}on this worker", "give a file that every worker has")
