"""``--py-files``: modules for the command, and for Python functions on Spark's workers.

The command finds them on PYTHONPATH. The workers get them as artifacts of the Spark session: the session's id is ours
to share, so ``run`` connects to it first, adds them, and lets go without ending the session.
"""

import importlib.util
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from sparkbroker.broker.cli.exit_codes import FAILED, USAGE, Exit
from sparkbroker.client import ConnectConnection

_SUFFIXES: Final = (".py", ".zip", ".egg", ".jar")
ADD_RETRIES: Final = 3


def check(files: Iterable[str], *, connect: bool) -> tuple[Path, ...]:
    """Absolute paths, if all can be used; raise Exit otherwise, before anything is leased."""
    paths = []
    for name in files:
        path = Path(name.removeprefix("file://")).expanduser().absolute()
        if not path.is_file():
            raise Exit(USAGE, f"--py-files: {name} is no file on this machine")
        if path.suffix not in _SUFFIXES:
            raise Exit(USAGE, f"--py-files: {name} is none of {', '.join(_SUFFIXES)}")
        paths.append(path)
    if paths and connect and importlib.util.find_spec("pyspark") is None:
        raise Exit(
            USAGE,
            "--py-files: adding files to a Spark session needs pyspark beside sparkbroker: "
            "pip install 'sparkbroker[pyspark]'",
        )
    return tuple(paths)


def python_path(files: Sequence[Path], folder: Path) -> list[str]:
    """Entries for PYTHONPATH. Single modules are copied into ``folder``, so that nothing beside them comes along."""
    entries = [str(path) for path in files if path.suffix != ".py"]
    modules = [path for path in files if path.suffix == ".py"]
    if modules:
        folder.mkdir(mode=0o700, exist_ok=True)
        for module in modules:
            shutil.copyfile(module, folder / module.name)
        entries.insert(0, str(folder))
    return entries


def add_to_session(connection: ConnectConnection, files: Sequence[Path]) -> None:
    """Add the files to the connection's session, and leave it open. Blocking; raise Exit."""
    from pyspark.errors import PySparkException
    from pyspark.sql.connect.client import SparkConnectClient
    from pyspark.sql.connect.client.retries import DefaultPolicy

    from sparkbroker.client._connect_session import LeaseChannelBuilder

    client = SparkConnectClient(connection=LeaseChannelBuilder(connection))
    try:
        # The default is minutes of retries, for a driver that has just answered.
        client.set_retry_policies([DefaultPolicy(max_retries=ADD_RETRIES)])
        client.add_artifacts(*map(str, files), pyfile=True, archive=False, file=False)
    except (PySparkException, OSError) as error:
        raise Exit(FAILED, f"--py-files: the Spark session did not take them: {error}") from error
    finally:
        # Not release_session: the session is the command's.
        client.close()
