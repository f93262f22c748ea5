"""``--py-files``: modules for the command, and for Python functions on Spark's workers.

The command finds them on PYTHONPATH. The workers get them as artifacts of the Spark session: the session's id is ours
to share, so ``run`` connects to it first, adds them, and lets go without ending the session.
"""

import importlib.util
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sparkbroker.broker.cli.exit_codes import FAILED, USAGE, Exit
from sparkbroker.client import ConnectConnection
from sparkbroker.client.artifact_urls import artifact_url, path_of
from sparkbroker.client.submit_files import special_character

_SUFFIXES: Final = (".py", ".zip", ".egg", ".jar")
ADD_RETRIES: Final = 3


def check(files: Iterable[str], *, connect: bool) -> tuple[Path, ...]:
    """Absolute paths, if all can be used; raise Exit otherwise, before anything is leased."""
    paths = []
    for name in files:
        path = _path(name)
        if not path.is_file():
            raise Exit(USAGE, f"--py-files: {name} is not a file on this machine")
        if path.suffix not in _SUFFIXES:
            raise Exit(USAGE, f"--py-files: {name} has another suffix than {', '.join(_SUFFIXES)}")
        _check_name(path, connect=connect)
        paths.append(path)
    if paths and connect and importlib.util.find_spec("pyspark") is None:
        raise Exit(
            USAGE,
            "--py-files: adding files to a Spark session needs pyspark beside sparkbroker: "
            "pip install 'sparkbroker[pyspark]'",
        )
    return tuple(paths)


def _path(name: str) -> Path:
    """A ``file:`` URL is read as a URL; everything else is a path, whatever it looks like. Raise Exit."""
    try:
        if name.lower().startswith("file:"):
            return Path(path_of(name))
        return Path(name).expanduser().absolute()
    except (ValueError, RuntimeError) as error:
        raise Exit(USAGE, f"--py-files: {error}") from error


def _check_name(path: Path, *, connect: bool) -> None:
    """Raise Exit where the file couldn't be told to Spark."""
    if connect:
        try:
            artifact_url(path)
        except ValueError as error:
            raise Exit(USAGE, f"--py-files: {error}") from error
    elif path.suffix == ".py" and (found := special_character(path.name)):
        raise Exit(USAGE, f"--py-files: {path} has {found!r} in its name, by which no module is imported; rename it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """The files under names that are safe in lists and URLs. ``python_path``: entries for the command's PYTHONPATH."""

    python_path: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


def stage(files: Sequence[Path], folder: Path) -> Staged:
    """Single modules are copied into one folder, so that nothing beside them comes along. Archives are copied, too:
    spark-submit follows a link, and reads the name of what it leads to."""
    if not files:
        return Staged()
    modules, archives = folder / "modules", folder / "archives"
    modules.mkdir(mode=0o700, parents=True)
    archives.mkdir(mode=0o700)
    staged: list[Path] = []
    for number, file in enumerate(files):
        if file.suffix == ".py":
            staged.append(Path(shutil.copyfile(file, modules / file.name)))
        else:
            staged.append(Path(shutil.copyfile(file, archives / f"{number}{file.suffix}")))
    entries = [str(modules)] if any(file.suffix == ".py" for file in files) else []
    entries += [str(path) for path in staged if path.parent == archives]
    return Staged(python_path=tuple(entries), files=tuple(map(str, staged)))


def add_to_session(connection: ConnectConnection, files: Sequence[Path]) -> None:
    """Add the files to the connection's session, and leave it open. Blocking; raise Exit."""
    from pyspark.errors import PySparkException
    from pyspark.sql.connect.client import SparkConnectClient
    from pyspark.sql.connect.client.retries import DefaultPolicy

    from sparkbroker.client.connect_channel import LeaseChannelBuilder

    client = SparkConnectClient(connection=LeaseChannelBuilder(connection))
    try:
        # The default is minutes of retries, for a driver that has just answered.
        client.set_retry_policies([DefaultPolicy(max_retries=ADD_RETRIES)])
        client.add_artifacts(*map(artifact_url, files), pyfile=True, archive=False, file=False)
    except (PySparkException, OSError) as error:
        raise Exit(FAILED, f"--py-files: the Spark session did not take them: {error}") from error
    finally:
        # Not release_session: the session is the command's.
        client.close()
