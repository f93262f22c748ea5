"""What the command of ``run`` finds in its environment. Pure: values in, values out.

Secrets stand in the environment of the command only, never in an argument list.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Final

# Left over from another session, each of these would win over what we set, or force TLS on a plaintext endpoint.
_REMOVED: Final = (
    "SPARK_REMOTE",
    "SPARK_LOCAL_REMOTE",
    "SPARK_CONNECT_MODE_ENABLED",
    "SPARK_CONNECT_AUTHENTICATE_TOKEN",
    "SPARK_API_MODE",
    "MASTER",
    "PYSPARK_SUBMIT_ARGS",
)
_REMOVED_PREFIX: Final = "PYSPARK_REMOTE_INIT_CONF_"


def connect_environment(
    base: Mapping[str, str], *, remote: str, broker_url: str, lease: str, python_path: Sequence[str] = ()
) -> dict[str, str]:
    """For a Connect session at ``remote``, the URL with its secrets."""
    return _common(base, broker_url, lease, python_path) | {"SPARK_REMOTE": remote}


def local_environment(
    base: Mapping[str, str],
    *,
    master: str,
    conf: Mapping[str, str],
    broker_url: str,
    lease: str,
    python_path: Sequence[str] = (),
    python_files: Sequence[str] = (),
    python: str = "",
) -> dict[str, str]:
    """For a session in the command's own process: pyspark starts its JVM with PYSPARK_SUBMIT_ARGS.

    ``python``: the command's interpreter, for the workers too unless the caller says otherwise; pyspark itself takes
    the first python3 on the PATH, which may have other packages, or be of another version.

    ``spark-submit`` as the command doesn't read it, but takes MASTER.
    """
    arguments = ["--master", master]
    for key, value in sorted(conf.items()):
        arguments += ["--conf", f"{key}={value}"]
    if python_files:
        arguments += ["--py-files", ",".join(python_files)]
    arguments.append("pyspark-shell")
    workers = {"PYSPARK_PYTHON": python} if python and "PYSPARK_PYTHON" not in base else {}
    return (
        _common(base, broker_url, lease, python_path)
        | workers
        | {
            "PYSPARK_SUBMIT_ARGS": shlex.join(arguments),
            "MASTER": master,
        }
    )


def _common(base: Mapping[str, str], broker_url: str, lease: str, python_path: Sequence[str]) -> dict[str, str]:
    kept = {
        name: value for name, value in base.items() if name not in _REMOVED and not name.startswith(_REMOVED_PREFIX)
    }
    kept |= {"SPARKBROKER_URL": broker_url, "SPARKBROKER_LEASE": lease}
    if python_path:
        inherited = base.get("PYTHONPATH", "")
        kept["PYTHONPATH"] = ":".join([*python_path, *([inherited] if inherited else [])])
    return kept
