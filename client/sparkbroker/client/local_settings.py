"""What a LOCAL session has of this machine: the loopback interface, a folder of its own, and nothing that nobody asked for.

Promised: it listens to this machine only and depends on no name of it, also in a network whose names mean nothing to Spark,
such as ``my_host_1``; it opens no UI, draws no progress, and its scratch files end with it. What the lease's configuration
says of any of these goes over it. Not promised: a warehouse of its own; tables are where the program runs.
"""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final

LOOPBACK: Final = "127.0.0.1"
_OWN: Final = {
    "spark.driver.host": LOOPBACK,
    "spark.driver.bindAddress": LOOPBACK,
    "spark.connect.grpc.binding.address": LOOPBACK,
    "spark.ui.enabled": "false",
    "spark.ui.port": "0",
    "spark.ui.showConsoleProgress": "false",
}

_JVM_OPTIONS: Final = "SPARK_SUBMIT_OPTS"
"""What Spark's launcher adds to those of the configuration."""


def is_local(master: str) -> bool:
    """Whether all of it is one process on this machine."""
    return master.startswith("local")


def local_settings(conf: Mapping[str, str]) -> dict[str, str]:
    """Spark's configuration for the JVM of ``spark.master``. Another master's is as it is."""
    return {**(_OWN if is_local(conf.get("spark.master", "")) else {}), **conf}


def local_variables(environ: Mapping[str, str], conf: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The environment's part of it; ``folder`` lasts as long as the JVM.

    Spark binds addresses before it reads its configuration, the UI's too; and it warns of ``spark.local.dir``. It keeps
    artifacts and native libraries in Java's temporary folder, where the JVM's end leaves some of them.
    """
    own = {"SPARK_LOCAL_IP": LOOPBACK}
    if "spark.local.dir" not in conf:
        own["SPARK_LOCAL_DIRS"] = str(folder / "scratch")
    # Before the user's, of which the last wins.
    temporary = shlex.join([f"-Djava.io.tmpdir={folder}"])
    return {
        **{name: value for name, value in own.items() if name not in environ},
        _JVM_OPTIONS: " ".join(filter(None, [temporary, environ.get(_JVM_OPTIONS)])),
    }
