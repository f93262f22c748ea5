"""Packages, by Spark's own resolver (Ivy, from the jars of Spark) in a process of its own."""

import asyncio
import hashlib
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Final
from xml.sax.saxutils import quoteattr

import msgspec

from sparkbroker.broker.adapters.local_provisioner._toolchain import Toolchain
from sparkbroker.broker.domain.errors import ProvisionerFailed

_TIED: Final = str(Path(__file__).with_name("_tied.py"))
_COORDINATE: Final = re.compile(r"(?P<group>[\w.-]+):(?P<artifact>[\w.-]+):(?P<version>[\w.+-]+)")
_EXCLUDE: Final = re.compile(r"(?P<group>[\w.*-]+):(?P<artifact>[\w.*-]+)")
_SPARK_JAR: Final = re.compile(r"(?P<artifact>spark-[a-z-]+_[0-9.]+)-[0-9].*\.jar")
_NOT_FOUND: Final = re.compile(
    r"(?:unresolved dependency|module not found): *(?P<group>[^#\s]+)#(?P<artifact>[^;\s]+);(?P<version>[^:\s]+)"
)
_NETWORK_TROUBLE: Final = re.compile(
    r"UnknownHost|Connection (?:refused|reset)|timed out|Host .* not found|SERVER ERROR"
)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Packages as Ivy is asked for them. ``record`` is where what was found is kept."""

    module: str
    settings: str
    given: str | None
    record: Path


def wanted(coordinates: tuple[str, ...], conf: dict[str, str], tools: Toolchain, cache: Path) -> Wanted:
    module = _module(coordinates, listed(conf, "spark.jars.excludes"), tools)
    given = conf.get("spark.jars.ivySettings")
    settings = _given_settings(given) if given else _settings(listed(conf, "spark.jars.repositories"), cache)
    key = hashlib.sha256(f"{module}\0{settings}".encode()).hexdigest()[:24]
    return Wanted(module=module, settings=settings, given=given, record=cache / "packages" / f"{key}.json")


async def resolve_packages(
    package: Wanted, coordinates: tuple[str, ...], tools: Toolchain, timeout: float
) -> list[str]:
    record = package.record
    record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=record.parent) as folder:
        jars = await _run_ivy(Path(folder), package, tools, coordinates, timeout)
        new = Path(folder) / "record"
        new.write_bytes(msgspec.json.encode(jars))
        new.replace(record)
    return jars


def _given_settings(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, ValueError) as error:  # ValueError: it isn't UTF-8
        raise wrong(f"conf spark.jars.ivySettings: the file {path!r} can't be read on the broker's machine") from error


def known(record: Path) -> list[str] | None:
    """What an earlier resolution found, if all of it is still there."""
    try:
        jars = msgspec.json.decode(record.read_bytes(), type=list[str])
    except (OSError, msgspec.DecodeError):
        return None
    return jars if all(Path(jar).exists() for jar in jars) else None


def _module(coordinates: tuple[str, ...], excludes: list[str], tools: Toolchain) -> str:
    """An ivy.xml that depends on the packages, less what Spark itself brings."""
    lines = []
    for coordinate in coordinates:
        match = _COORDINATE.fullmatch(coordinate)
        if match is None:
            raise wrong(f"packages: {coordinate!r} is not a Maven coordinate; write group:artifact:version")
        org, name, rev = (quoteattr(match[part]) for part in ("group", "artifact", "version"))
        lines.append(f'<dependency org={org} name={name} rev={rev} force="true" conf="default->default(runtime)"/>')
    brought = (match["artifact"] for jar in tools.spark.jars if (match := _SPARK_JAR.fullmatch(Path(jar).name)))
    left_out = [("org.scala-lang", "*"), *(("org.apache.spark", artifact) for artifact in brought)]
    for exclude in excludes:
        match = _EXCLUDE.fullmatch(exclude)
        if match is None:
            raise wrong(f"conf spark.jars.excludes: {exclude!r} is wrong; write group:artifact")
        left_out.append((match["group"], match["artifact"]))
    lines += [f"<exclude org={quoteattr(org)} module={quoteattr(name)}/>" for org, name in left_out]
    return (
        '<ivy-module version="2.0"><info organisation="sparkbroker" module="driver"/>'
        '<configurations><conf name="default"/></configurations>'
        f"<dependencies>{''.join(lines)}</dependencies></ivy-module>"
    )


def _settings(repositories: list[str], cache: Path) -> str:
    """An ivysettings.xml: the given repositories, this user's Maven folder, and Ivy's default, Maven Central."""
    local = Path(os.path.expanduser("~/.m2/repository"))  # noqa: PTH111  Path's raises for a user without a home
    roots = [*repositories, *([local.absolute().as_uri()] if local.is_dir() else [])]
    resolvers = [
        f'<ibiblio name="given-{number}" m2compatible="true" root={quoteattr(root.rstrip("/") + "/")}/>'
        for number, root in enumerate(roots)
    ]
    return (
        '<ivysettings><settings defaultResolver="all"/>'
        f'<caches defaultCacheDir={quoteattr(str(cache / "ivy"))} lockStrategy="artifact-lock-nio"/>'
        f'<resolvers><chain name="all" returnFirst="true">{"".join(resolvers)}'
        '<ibiblio name="central" m2compatible="true"/></chain></resolvers></ivysettings>'
    )


async def _run_ivy(
    folder: Path, package: Wanted, tools: Toolchain, coordinates: tuple[str, ...], timeout: float
) -> list[str]:
    ivy = next((jar for jar in tools.spark.jars if Path(jar).name.startswith("ivy-")), None)
    if ivy is None:
        raise wrong(f"packages: the Spark at {tools.spark.home} has no ivy jar, so they can't be resolved")
    (folder / "ivy.xml").write_text(package.module)
    (folder / "settings.xml").write_text(package.settings)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", _TIED, str(os.getpid()), tools.java.executable, "-Xmx512m", "-Djava.net.useSystemProxies=true", "-cp", ivy, "org.apache.ivy.Main",
        "-settings", package.given or str(folder / "settings.xml"), "-ivy", str(folder / "ivy.xml"), "-confs", "default",
        "-types", "jar", "bundle", "test-jar", "eclipse-plugin", "-cachepath", str(folder / "found"),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(timeout):
            output, _ = await process.communicate()
    except TimeoutError as error:
        named = ", ".join(coordinates)
        raise ProvisionerFailed(f"packages: {named} not resolved in {timeout:g} s", retryable=True) from error
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.shield(process.wait())
    text = output.decode(errors="replace")
    if process.returncode or not (folder / "found").exists():
        raise _unresolved(text, coordinates)
    return [path for path in (folder / "found").read_text().strip().split(os.pathsep) if path]


def _unresolved(text: str, coordinates: tuple[str, ...]) -> ProvisionerFailed:
    """What Ivy's output says, shortly."""
    missing = dict.fromkeys(":".join(match.groups()) for match in _NOT_FOUND.finditer(text))
    trouble = _NETWORK_TROUBLE.search(text)
    named = ", ".join(missing or coordinates)
    if trouble is not None:
        line = next(line.strip() for line in text.splitlines() if trouble.group() in line)
        return ProvisionerFailed(f"packages: {named} can't be resolved: {line[:300]}", retryable=True)
    if missing:
        return wrong(f"packages: {named} was not found in any repository")
    tail = " | ".join(line.strip() for line in text.splitlines()[-3:])
    return wrong(f"packages: {named} can't be resolved: {tail[:500]}")


def wrong(message: str) -> ProvisionerFailed:
    return ProvisionerFailed(message, retryable=False, misconfigured=True)


def listed(conf: dict[str, str], key: str) -> list[str]:
    return [part.strip() for part in conf.get(key, "").split(",") if part.strip()]
