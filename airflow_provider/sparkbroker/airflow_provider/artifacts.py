"""What a task brings into its Spark session, and what differs between a classic session and one of Spark Connect."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sparkbroker.airflow_provider.late import is_late
from sparkbroker.airflow_provider.request import InvalidArgument, Options
from sparkbroker.client.artifact_urls import archive_url, artifact_url, classic_py_file, path_of

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|(?:file|local):/")
"""How a URL begins. One letter is not a scheme: ``c:/x`` is a path here, too."""


def is_connect(spark: Any) -> bool:
    """Whether it is a session of Spark Connect: one without a ``sparkContext``."""
    return type(spark).__module__.startswith("pyspark.sql.connect")


@dataclass(frozen=True, slots=True)
class Archive:
    """What is unpacked, and the name of the folder; empty: the file's own."""

    place: str
    name: str = ""

    @property
    def url(self) -> str:
        """With the name, as Spark itself has it."""
        return url_of(self.place) + (f"#{self.name}" if self.name else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifacts:
    """The files that a task brings into its session: absolute paths on this machine, whatever they look like, or URLs."""

    py_files: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    archives: tuple[Archive, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.py_files or self.files or self.archives)


def find(options: Options, folder: str) -> Artifacts:
    """Those that the task names; relative ones are looked for as ``resolve`` does. Raise InvalidArgument."""
    return Artifacts(
        py_files=resolve(options.py_files, "py_files", folder),
        files=resolve(options.files, "files", folder),
        archives=tuple(_archive(text, folder) for text in options.archives),
    )


def add(spark: Any, brought: Artifacts) -> None:
    """Add the files to the session. Raise InvalidArgument for a name that Spark would read otherwise, and what Spark raises."""
    if is_connect(spark):
        _add_to_connect(spark, brought)
        return
    context = spark.sparkContext
    with told_of("py_files"):
        for place in brought.py_files:
            context.addPyFile(classic_py_file(place) if is_here(place) else place)
    for place in brought.files:
        context.addFile(url_of(place), recursive=Path(place).is_dir())
    for archive in brought.archives:
        context.addArchive(archive.url)


def _add_to_connect(spark: Any, brought: Artifacts) -> None:
    with told_of("archives"):
        archives = [
            archive_url(archive.place, archive.name) if is_here(archive.place) else archive.url
            for archive in brought.archives
        ]
    py_files, files = (list(map(url_of, places)) for places in (brought.py_files, brought.files))
    for urls, kind in ((py_files, "pyfile"), (files, "file"), (archives, "archive")):
        if urls:
            spark.addArtifacts(*urls, **{kind: True})


def url_of(place: str) -> str:
    """A path of this machine as a URL; a URL as it is."""
    return artifact_url(place) if is_here(place) else place


def is_here(place: str) -> bool:
    """Whether it is a path of this machine, and not a URL."""
    return place.startswith("/")


@contextmanager
def told_of(argument: str) -> Iterator[None]:
    """What the client says of a file's name, said of this argument."""
    try:
        yield
    except ValueError as error:
        if isinstance(error, InvalidArgument):
            raise
        problem, _, expected = str(error).rpartition("; ")
        raise InvalidArgument(argument, problem, expected) from error


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
    """Paths of files: relative ones are looked for beside the DAG, then in the working folder. A ``file:`` URL becomes its
    path; other URLs are left alone, and so is what isn't rendered yet. All else is a path, whatever characters it has.

    Raise InvalidArgument for one that isn't there.
    """
    return tuple(_resolved(path, argument, folder) for path in paths)


def _resolved(path: str, argument: str, folder: str) -> str:
    if is_late(path):
        return path
    with told_of(argument):
        if _URL.match(path) and not path.lower().startswith("file:"):
            return path
        found = _found(path_of(path) if _URL.match(path) else path, folder)
        if found:
            artifact_url(found)  # so that a name which Spark can't be told is said before a driver is started
            return found
    where = f"beside the DAG ({folder}) or " if folder and not path.startswith(("/", "file:")) else ""
    raise InvalidArgument(argument, f"there is no {path!r} {where}on this worker", "give a file that every worker has")


def _archive(text: str, folder: str) -> Archive:
    """``PATH``, or ``PATH#NAME`` if there is no file of that whole name."""
    place, mark, name = text.rpartition("#")
    if not mark or is_late(text) or (not _URL.match(text) and _found(text, folder)):
        return Archive(_resolved(text, "archives", folder))
    return Archive(_resolved(place, "archives", folder), name)


def _found(file: str, folder: str) -> str:
    """The absolute path; empty: there is none."""
    for candidate in (os.path.join(folder, file), file) if folder else (file,):  # noqa: PTH118  Path would raise for a NUL
        if os.path.exists(candidate):  # noqa: PTH110  as above
            return str(Path(candidate).absolute())
    return ""
