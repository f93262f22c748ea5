"""Brings a DAG's own code to Spark's Python, where no DAG file can be imported.

The functions and classes of the DAG file are pickled by value: Airflow has given its module a name that is known nowhere else.
The modules beside it travel as a zip and are imported there under their own names, as with ``py_files``; but what needs
Airflow to be imported is pickled by value, too, as far as it is imported when the session is opened.
"""

import hashlib
import io
import logging
import sys
import tempfile
import threading
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from sparkbroker.airflow_provider import artifacts, modules_beside
from sparkbroker.airflow_provider._compat import code_folders

log = logging.getLogger(__name__)
_MOST: Final = 32 * 1024 * 1024
"""Bytes of source that are sent with a session. More is told in the log, and left out."""
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


@contextmanager
def brought(spark: Any, dag: Any, ti: Any) -> Iterator[None]:
    """For the body, functions of the DAG's file and of the modules beside it can be used in this session.

    ``dag`` may be None: then there is nothing to bring. Afterwards this process is as it was.
    """
    file = getattr(dag, "fileloc", None)
    if not file:
        yield
        return
    sources = modules_beside.beside(file, code_folders(file, ti))
    with ExitStack() as stack:
        stack.enter_context(_by_value(_without_import(file, sources)))
        if sources:
            _send(spark, sources, stack.enter_context(tempfile.TemporaryDirectory(prefix="sparkbroker-")))
        yield


def _without_import(file: str, sources: dict[str, modules_beside.Source]) -> Sequence[ModuleType]:
    """The loaded modules that a driver can't import."""
    needing = modules_beside.need_airflow(sources)
    return [
        module
        for name, module in sorted(sys.modules.items())
        if isinstance(module, ModuleType)
        and module.__name__ == name != "__main__"  # which is pickled by value in any case
        and (name in needing or vars(module).get("__file__") == file)
    ]


def _send(spark: Any, sources: dict[str, modules_beside.Source], folder: str) -> None:
    size = sum(len(source.text) for source in sources.values())
    if size > _MOST:
        log.warning(
            "Functions of the %d modules beside the DAG can't be used in Spark's Python: they are %d bytes, more than %d",
            len(sources), size, _MOST,
        )  # fmt: skip
        return
    content = packed(sources.values())
    path = Path(folder) / f"dag-{hashlib.sha256(content).hexdigest()[:32]}.zip"
    path.write_bytes(content)
    before = list(sys.path)
    try:
        artifacts.add(spark, artifacts.Artifacts(py_files=(str(path),)))
    finally:
        sys.path[:] = before  # a classic session adds it here, too, where the files themselves are


def packed(sources: Iterable[modules_beside.Source]) -> bytes:
    """A zip from which they can be imported; the same bytes for the same modules."""
    files = {source.path: source.text for source in sources}
    folders = {f"{parent.as_posix()}/" for path in files for parent in Path(path).parents if parent != Path()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folders):  # without them, packages that have no __init__.py aren't found in a zip
            archive.writestr(zipfile.ZipInfo(path, _EPOCH), b"")
        for path in sorted(files):
            archive.writestr(zipfile.ZipInfo(path, _EPOCH), files[path], zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


_lock: Final = threading.Lock()
_users: Final[Counter[str]] = Counter()
"""How many open sessions have registered a module, by its name; it is left alone if somebody else has."""


@contextmanager
def _by_value(modules: Sequence[ModuleType]) -> Iterator[None]:
    """What these modules define is pickled by value, in this process. pyspark has a copy of cloudpickle, with its own list."""
    from pyspark import cloudpickle  # noqa: PLC0415  parsing a DAG doesn't load it

    ours: list[ModuleType] = []
    with _lock:
        theirs = cloudpickle.list_registry_pickle_by_value()
        for module in modules:
            if module.__name__ not in theirs or _users[module.__name__]:
                cloudpickle.register_pickle_by_value(module)
                _users[module.__name__] += 1
                ours.append(module)
    try:
        yield
    finally:
        with _lock:
            for module in ours:
                _users[module.__name__] -= 1
                if not _users[module.__name__] and module.__name__ in cloudpickle.list_registry_pickle_by_value():
                    cloudpickle.unregister_pickle_by_value(module)
