"""What this machine lacks to run Spark sessions, and how to get it. Looks, and changes nothing."""

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from sparkbroker.broker.adapters.local_provisioner._machine import machine_capacity
from sparkbroker.broker.adapters.local_provisioner._toolchain import find_java, find_python, find_spark
from sparkbroker.broker.cli.embedded import answers
from sparkbroker.broker.cli.serving import load
from sparkbroker.broker.config import Config, ConfigError, to_profiles
from sparkbroker.broker.domain.errors import BrokerError, ProvisionerFailed
from sparkbroker.broker.domain.profile import Profile
from sparkbroker.broker.domain.resources import CPU, MEMORY, Resources
from sparkbroker.broker.domain.sizing import charge

OLDEST_PYTHON: Final = (3, 11)
LEAST_DISK: Final = 2 << 30
NEEDED: Final = (("grpcio", (1, 76)), ("protobuf", (6, 31)))
BESIDE_SPARK: Final = (
    ("pandas", (2, 2), (3,)),
    ("pyarrow", (18,), None),
    ("grpcio-status", (1, 76), None),
    ("zstandard", (0, 25), None),
)
_LOCAL_EXTRA: Final = "pip install 'sparkbroker[local]'"


class Status(StrEnum):
    """``MISSING``: something needed isn't there, and the exit status says so."""

    OK = "ok"
    WARN = "warn"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``fix`` is empty when it is ok."""

    what: str
    status: Status
    found: str
    fix: str = ""


def examine(config_path: Path | None, env: Mapping[str, str], url: str | None) -> list[Finding]:
    """Everything, in the order in which it is to be mended. Never raises for what it finds."""
    findings = [_python(), *_packages()]
    config, finding = _config(config_path, env)
    findings.append(finding)
    findings += _spark_packages()
    if config is not None:
        findings += _profiles(config)
        findings += _machine(config)
        findings.append(_state_folder(config.store.state_folder))
    findings.append(_broker(url))
    return findings


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Finding("Python", Status.MISSING, found, "install Python 3.11 or newer")
    return Finding("Python", Status.OK, f"{found} ({sys.executable})")


def _packages() -> Iterator[Finding]:
    for name, least in NEEDED:
        yield _package(name, least, None, f"pip install '{name}>={_dotted(least)}'")


def _package(name: str, least: tuple[int, ...], below: tuple[int, ...] | None, fix: str) -> Finding:
    found = _version(name)
    if not found:
        return Finding(name, Status.MISSING, "not installed", fix)
    if _numbers(found) < least:
        return Finding(name, Status.MISSING, f"{found}, older than {_dotted(least)}", fix)
    if below is not None and _numbers(found) >= below:
        return Finding(name, Status.MISSING, f"{found}, not older than {_dotted(below)}", fix)
    return Finding(name, Status.OK, found)


def _spark_packages() -> Iterator[Finding]:
    """The pyspark beside this program: what ``session()`` and ``run --py-files`` use."""
    full, thin = _version("pyspark"), _version("pyspark-client") or _version("pyspark-connect")
    if full and thin:
        fix = f"pip uninstall pyspark-client pyspark-connect pyspark, then {_LOCAL_EXTRA}"
        yield Finding("pyspark", Status.MISSING, f"pyspark {full} and pyspark-client {thin} over each other", fix)
        return
    if not full and not thin:
        fix = f"{_LOCAL_EXTRA} (or 'sparkbroker[pyspark-client]' where the broker is elsewhere)"
        yield Finding("pyspark", Status.WARN, "not installed: sessions can't be opened from this Python", fix)
        return
    yield Finding("pyspark", Status.OK, f"pyspark {full}" if full else f"pyspark-client {thin}")
    for name, least, below in BESIDE_SPARK:
        bounds = f">={_dotted(least)}" + (f",<{_dotted(below)}" if below else "")
        yield _package(name, least, below, f"pip install '{name}{bounds}'")


def _config(path: Path | None, env: Mapping[str, str]) -> tuple[Config | None, Finding]:
    try:
        config = load(path, env, None, None)
    except ConfigError as error:
        return None, Finding("configuration", Status.MISSING, str(error), "mend it; sparkbroker serve --check-config")
    except BrokerError as error:
        return None, Finding("configuration", Status.MISSING, error.message, "mend the token file")
    return config, Finding("configuration", Status.OK, config.source)


def _profiles(config: Config) -> Iterator[Finding]:
    """Spark, Java and Python of every local profile; profiles that share them are looked at once."""
    seen: set[tuple[str | None, ...]] = set()
    for profile in to_profiles(config).values():
        tools = (profile.spark_home, profile.java_home, profile.python)
        if profile.provisioner != "local" or tools in seen:
            continue
        seen.add(tools)
        yield from _toolchain(profile)


def _toolchain(profile: Profile) -> Iterator[Finding]:
    suffix = "" if profile.name == "default" else f" (profile {profile.name})"
    yield _discovered(f"Spark{suffix}", lambda: _spark(profile))
    yield _discovered(f"Java{suffix}", lambda: _java(profile))
    yield _discovered(f"Python of the workers{suffix}", lambda: _worker(profile))


def _spark(profile: Profile) -> str:
    spark = find_spark(profile.spark_home)
    return f"{spark.version} ({spark.home})"


def _java(profile: Profile) -> str:
    java = find_java(profile.java_home)
    return f"{java.version} ({java.home})"


def _worker(profile: Profile) -> str:
    python = find_python(profile.python)
    return f"{python.version} ({python.executable})"


def _discovered(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, Status.OK, look())
    except ProvisionerFailed as error:
        found, _, fix = error.message.rpartition(": ")
        return Finding(what, Status.MISSING, found or error.message, fix or _LOCAL_EXTRA)


def _machine(config: Config) -> Iterator[Finding]:
    capacity = machine_capacity()
    smallest = _smallest(config)
    for what, quantity in (("cores", CPU), ("memory", MEMORY)):
        found = capacity.describe(quantity)
        if smallest[quantity] > capacity[quantity]:
            fix = f"the smallest profile asks {smallest.describe(quantity)}: give it less, or the machine more"
            yield Finding(what, Status.WARN, found, fix)
        else:
            yield Finding(what, Status.OK, found)


def _smallest(config: Config) -> Resources:
    charges = [charge(p.defaults, p) for p in to_profiles(config).values() if p.provisioner == "local"]
    return min(charges, key=lambda asked: asked[MEMORY], default=Resources())


def _state_folder(folder: Path) -> Finding:
    what = "state folder"
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Finding(what, Status.MISSING, f"{existing} can't be written", "set store.state_folder, or chown it")
    if existing == folder:
        status = folder.stat()
        if status.st_uid != os.getuid():
            return Finding(what, Status.MISSING, f"{folder} is another user's", "set store.state_folder")
        if status.st_mode & 0o077:
            return Finding(what, Status.WARN, f"{folder} is open to others", f"chmod 700 {folder}")
    free = shutil.disk_usage(existing).free
    if free < LEAST_DISK:
        gib = f"{free / (1 << 30):.1f} GiB free"
        return Finding(what, Status.WARN, f"{folder}: {gib}", "free some space: Spark spills to the disk")
    state = "" if existing == folder else " (made at the first start)"
    return Finding(what, Status.OK, f"{folder}{state}")


def _broker(url: str | None) -> Finding:
    """Whether something listens; ``run`` does without, so that it is never missing."""
    from sparkbroker.client import BadAddress, resolve_address

    try:
        address = resolve_address(url)
    except BadAddress as error:
        return Finding("broker", Status.WARN, str(error), "mend the address")
    if not address.url.startswith("unix:"):
        return Finding("broker", Status.OK, f"{address.url} ({address.source}); not called")
    if answers(Path(address.target.removeprefix("unix:"))):
        return Finding("broker", Status.OK, f"{address.url} answers")
    fix = "sparkbroker serve; or sparkbroker run, which starts its own"
    return Finding("broker", Status.WARN, f"{address.url} does not answer", fix)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _numbers(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: (2, 2, 3) of "2.2.3rc1"."""
    match = re.match(r"[0-9]+(?:\.[0-9]+)*", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
