"""The environment in which pyspark opens a lease's session: this process's, or that of a program which it starts.

Pure: an environment goes in, variables come out. Promised: nothing that another session has left there makes pyspark open
something else; no web proxy is asked for a Spark server on this machine, and what the user says of proxies holds for
everything else. Not promised: the way to a Spark server on another machine, which is gRPC's own (``grpc_proxy``,
``https_proxy``, ``http_proxy``, ``no_grpc_proxy``, ``no_proxy``).
"""

import json
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from sparkbroker.client import local_settings
from sparkbroker.client._loopback import NAMES, is_loopback
from sparkbroker.client._program_lead import VARIABLE

if TYPE_CHECKING:
    from sparkbroker.client._values import ConnectConnection, LocalConnection

TOKEN: Final = "SPARK_CONNECT_AUTHENTICATE_TOKEN"  # noqa: S105  a name
"""With it a Connect client sends another token than the lease's, and forces TLS."""
MISLEADING: Final = frozenset({
    "DEPLOY_MODE",
    "MASTER",
    "PYSPARK_GATEWAY_PORT",
    "PYSPARK_GATEWAY_SECRET",
    "PYSPARK_SUBMIT_ARGS",
    "SPARK_API_MODE",
    "SPARK_CONNECT_MODE",
    "SPARK_CONNECT_MODE_ENABLED",
    "SPARK_LOCAL_CONNECT_DISCOVERY",
    "SPARK_LOCAL_CONNECT_REUSE",
    "SPARK_LOCAL_REMOTE",
    "SPARK_REMOTE",
    VARIABLE,
    TOKEN,
})  # fmt: skip
"""Variables that make pyspark open something else than what was leased."""
MISLEADING_PREFIX: Final = "PYSPARK_REMOTE_INIT_CONF_"
_NO_PROXY: Final = ("no_grpc_proxy", "no_proxy", "NO_PROXY")
"""Where a user says for which hosts no proxy is asked. gRPC reads the first of the first two; other programs the last, too."""

_WITH_DEFAULTS: Final = ("--load-spark-defaults",)
"""Without it a file of properties would stand in for the user's spark-defaults.conf, instead of over it."""
_PROGRAM: Final = Path(__file__).with_name("program")
_SIZES: Final = ("spark.driver.memory",)
"""What is a LOCAL lease's own, beside the master: a program that sets it gets no more for it."""


def is_misleading(name: str) -> bool:
    """Whether pyspark would take this variable's word over the lease's."""
    return name in MISLEADING or name.startswith(MISLEADING_PREFIX)


def without_misleading(environ: Mapping[str, str]) -> dict[str, str]:
    """The rest of it."""
    return {name: value for name, value in environ.items() if not is_misleading(name)}


def without_proxy(environ: Mapping[str, str], host: str) -> dict[str, str]:
    """What to set so that gRPC asks no proxy for ``host``: nothing unless it is this machine.

    The user's own hosts stay: gRPC reads ``no_proxy`` only where there is no ``no_grpc_proxy``.
    """
    if not is_loopback(host):
        return {}
    said = next((environ[name] for name in _NO_PROXY if name in environ), "")
    hosts = [part for item in said.split(",") if (part := item.strip())]
    return {"no_grpc_proxy": ",".join(dict.fromkeys([*hosts, *NAMES, host]))}


def endpoint_host(endpoint: str) -> str:
    """The host of a Connect endpoint, without brackets; empty: it has none."""
    return urlsplit(endpoint).hostname or ""


def python_path(environ: Mapping[str, str], entries: Sequence[str] = ()) -> str:
    """A child's PYTHONPATH: what leads its pyspark to the lease, then these entries, then the environment's own."""
    return os.pathsep.join([str(_PROGRAM), *entries, *filter(None, [environ.get("PYTHONPATH")])])


def _program(lease: str, settings: Mapping[str, str]) -> dict[str, str]:
    """What ``program/sitecustomize.py`` looks for: what the session has, whatever the program's own builder says."""
    return {VARIABLE: json.dumps({"lease": lease, "settings": dict(settings)})}


def connect_variables(
    environ: Mapping[str, str], connection: "ConnectConnection", *, lease: str, ca_file: str = ""
) -> dict[str, str]:
    """What a child with this environment needs beside it (and beside ``python_path``) to open the lease's session: secret.

    ``ca_file`` holds ``connection.ca_certificate``, which a URL can't carry. Before it is added, the environment goes
    through ``without_misleading``.
    """
    trust = {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": ca_file} if ca_file else {}
    return {
        **without_proxy(environ, endpoint_host(connection.endpoint)),
        **trust,
        **_program(lease, {"spark.remote": connection.url()}),
        "SPARK_REMOTE": connection.url(),
    }


def local_variables(
    environ: Mapping[str, str],
    connection: "LocalConnection",
    *,
    lease: str,
    properties_file: str,
    python: str = "",
    java_home: str | None = None,
) -> dict[str, str]:
    """What a child with this environment needs beside it (and ``python_path``) to open a session of the lease's size.

    ``properties_file`` holds ``spark_properties`` (others can read the command line of a JVM), and its folder lasts as long
    as the child. ``python`` is the child's interpreter, for Python functions too unless the environment names one: pyspark itself takes the first
    python3 of the PATH, which may have other packages, or be of another version. ``java_home``: see
    ``sparkbroker.client.packaged_java``. ``spark-submit`` doesn't read PYSPARK_SUBMIT_ARGS, but takes MASTER.
    """
    variables = {
        # A classic program may start a Connect server for itself, and asks for it at localhost.
        **without_proxy(environ, "localhost"),
        **local_settings.local_variables(environ, connection.conf, Path(properties_file).parent),
        "PYSPARK_SUBMIT_ARGS": shlex.join([*properties_arguments(properties_file), "pyspark-shell"]),
        "MASTER": connection.master,
        **_program(lease, {"spark.master": connection.master, **_sizes(connection.conf)}),
    }
    if python and "PYSPARK_PYTHON" not in environ:
        variables["PYSPARK_PYTHON"] = python
    if java_home:
        variables["JAVA_HOME"] = java_home
    return variables


def _sizes(conf: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in conf.items() if key in _SIZES}


def properties_arguments(file: str) -> list[str]:
    """The launcher's arguments for a file of ``spark_properties``, over the user's own spark-defaults.conf."""
    return [*_WITH_DEFAULTS, "--properties-file", file]


def spark_properties(settings: Iterable[tuple[str, str]]) -> str:
    """The content of a properties file, as ``--properties-file`` reads it (UTF-8)."""
    return "".join(f"{_property(key)}={_property(value)}\n" for key, value in settings)


def _property(text: str) -> str:
    r"""As java.util.Properties reads it: ``a\ b``, ``C\:\\x``."""
    escaped = (
        text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t").replace("\f", "\\f")
    )
    return "".join(f"\\{letter}" if letter in " :=#!" else letter for letter in escaped)
