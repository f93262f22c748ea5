"""Whether this environment has a pyspark that can open sessions. Imports nothing of it before it is asked."""

from importlib import import_module
from typing import Final

from sparkbroker.client._errors import SparkConflict, SparkMissing

INSTALL: Final = "install one of them: pip install 'sparkbroker[pyspark]' or pip install 'sparkbroker[pyspark-client]'"
"""What to do, for the end of a message."""


def check_pyspark() -> None:
    """Raise SparkMissing or SparkConflict."""
    from importlib import metadata  # noqa: PLC0415 - 20 ms of the client's import, for what is asked once a session

    installed = {}
    for name in ("pyspark", "pyspark-client"):
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if len(set(installed.values())) > 1:
        found = " and ".join(f"{name} {version}" for name, version in installed.items())
        raise SparkConflict(
            f"{found} are installed over each other: they write the same files. Uninstall both, then {INSTALL}"
        )
    try:
        import_module("pyspark")
    except ImportError as error:
        raise SparkMissing(f"a Spark session needs pyspark ({error}); {INSTALL}") from error
