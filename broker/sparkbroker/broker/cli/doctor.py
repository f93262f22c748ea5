"""What this machine lacks to run Spark sessions, and how to get it. Looks, and changes nothing."""

import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from sparkbroker.broker.bootstrap import read_tokens
from sparkbroker.broker.cli.doctor_cluster import of_cluster
from sparkbroker.broker.cli.doctor_finding import Finding, Status
from sparkbroker.broker.cli.doctor_machine import LOCAL_EXTRA, of_machine, of_profiles
from sparkbroker.broker.cli.embedded import answers
from sparkbroker.broker.cli.serving import load
from sparkbroker.broker.config import NO_HOME, Config, ConfigError, default_cache_folder, default_state_folder
from sparkbroker.broker.domain.errors import BrokerError

OLDEST_PYTHON: Final = (3, 11)
NEEDED: Final = (("grpcio", (1, 76)), ("protobuf", (6, 31)))
BESIDE_SPARK: Final = (
    ("pandas", (2, 2), (3,)),
    ("pyarrow", (18,), None),
    ("grpcio-status", (1, 76), None),
    ("zstandard", (0, 25), None),
)
BROKER_PATIENCE: Final = 3.0
"""Seconds for a broker that doesn't answer."""
_SHOWN: Final = 8


def examine(config_path: Path | None, env: Mapping[str, str], url: str | None) -> list[Finding]:
    """Everything, in the order in which it is to be mended. Never raises for what it finds."""
    findings = [_python(), *_packages()]
    config, finding = _config(config_path, env)
    findings.append(finding)
    findings += _spark_packages()
    if config is not None:
        served = finding.status is Status.OK
        findings += of_profiles(config, default_cache_folder(env), served=served)
        chosen = config.store.state_folder != default_state_folder(env)
        findings += of_machine(config, served=served, chosen=chosen)
        findings += of_cluster(config)
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
        fix = f"pip uninstall pyspark-client pyspark-connect pyspark, then {LOCAL_EXTRA}"
        yield Finding("pyspark", Status.MISSING, f"pyspark {full} and pyspark-client {thin} over each other", fix)
        return
    if not full and not thin:
        fix = f"{LOCAL_EXTRA} (or 'sparkbroker[pyspark-client]' where the broker is elsewhere)"
        yield Finding("pyspark", Status.WARN, "not installed: sessions can't be opened from this Python", fix)
        return
    yield Finding("pyspark", Status.OK, f"pyspark {full}" if full else f"pyspark-client {thin}")
    for name, least, below in BESIDE_SPARK:
        bounds = f">={_dotted(least)}" + (f",<{_dotted(below)}" if below else "")
        yield _package(name, least, below, f"pip install '{name}{bounds}'")


def _config(path: Path | None, env: Mapping[str, str]) -> tuple[Config | None, Finding]:
    """Without a home ``serve`` has no place for its state, but a broker that ``run`` starts has: a warning, then."""
    try:
        try:
            config = load(path, env, None, None)
            finding = Finding("configuration", Status.OK, config.source)
        except ConfigError as error:
            if error.problems != (NO_HOME,):
                raise
            config = load(path, env, Path(tempfile.gettempdir()), None)
            finding = Finding("configuration", Status.WARN, str(error), "sparkbroker run does without; serve doesn't")
        read_tokens(config)
    except ConfigError as error:
        return None, Finding("configuration", Status.MISSING, str(error), "mend it; sparkbroker serve --check-config")
    except BrokerError as error:
        return None, Finding("configuration", Status.MISSING, error.message, "mend the token file")
    return config, finding


def _broker(url: str | None) -> Finding:
    """Whether a broker answers us. ``run`` starts its own where none is configured, so that it isn't missing then."""
    from sparkbroker.client import BadAddress, Broker, NoDefaultAddress, SparkbrokerError, resolve_address

    try:
        address = resolve_address(url)
    except NoDefaultAddress as error:
        return Finding("broker", Status.WARN, str(error), "sparkbroker run starts its own")
    except BadAddress as error:
        return Finding("broker", Status.MISSING, str(error), "mend the address")
    configured = address.source != "the default"
    if not configured and not answers(Path(address.target.removeprefix("unix:"))):
        fix = "sparkbroker serve; or sparkbroker run, which starts its own"
        return Finding("broker", Status.WARN, f"{address.url} does not answer", fix)
    named = f"{address.url} ({address.source})"
    try:
        with Broker(address, patience=BROKER_PATIENCE) as broker:
            profiles = sorted(profile.name.partition("/")[2] for profile in broker.profiles())
    except SparkbrokerError as error:
        return Finding("broker", Status.MISSING, f"{named}: {error}", "start it, or mend the address or the token")
    return Finding("broker", Status.OK, f"{named} serves you the profiles {_shortened(profiles)}")


def _shortened(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


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
