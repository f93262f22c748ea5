"""Jars of a driver, brought to this machine before it starts: Maven coordinates by Spark's own resolver (Ivy, from the
jars of Spark), URLs by download, paths as they are. ``java`` directly ignores ``spark.jars.packages``.

Conf keys that are read here, and nowhere else: ``spark.jars``, ``spark.jars.packages``, ``spark.jars.excludes``,
``spark.jars.repositories`` (searched first) and ``spark.jars.ivySettings`` (instead of the repositories).
"""

import asyncio
import hashlib
import http.client
import os
import re
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import unquote, urlsplit
from xml.sax.saxutils import quoteattr

import msgspec

from sparkbroker.broker.adapters.local_provisioner._toolchain import Toolchain
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.ports.clock import Clock
from sparkbroker.broker.ports.provisioner import DriverRequest

RESOLVE_TIMEOUT: Final = 600.0
DOWNLOAD_TIMEOUT: Final = 600.0
LARGEST_JAR: Final = 1 << 30
_BLOCK: Final = 1 << 20
_LASTING: Final = frozenset({400, 401, 403, 404, 410})
"""Answers of a server that won't differ the next time."""
_COORDINATE: Final = re.compile(r"(?P<group>[\w.-]+):(?P<artifact>[\w.-]+):(?P<version>[\w.+-]+)")
_EXCLUDE: Final = re.compile(r"(?P<group>[\w.*-]+):(?P<artifact>[\w.*-]+)")
_SPARK_JAR: Final = re.compile(r"(?P<artifact>spark-[a-z-]+_[0-9.]+)-[0-9].*\.jar")
_NOT_FOUND: Final = re.compile(
    r"(?:unresolved dependency|module not found): *(?P<group>[^#\s]+)#(?P<artifact>[^;\s]+);(?P<version>[^:\s]+)"
)
_NETWORK_TROUBLE: Final = re.compile(
    r"UnknownHost|Connection (?:refused|reset)|timed out|Host .* not found|SERVER ERROR"
)


async def resolve(request: DriverRequest, tools: Toolchain, cache: Path, clock: Clock) -> tuple[str, ...]:
    """Absolute paths of all jars, in order. Raise ProvisionerFailed naming the coordinate, path or URL."""
    conf = {**request.spec.conf, **request.profile.conf}
    named = [*request.spec.jars, *_listed(conf, "spark.jars")]
    coordinates = [*request.spec.packages, *_listed(conf, "spark.jars.packages")]
    jars = [await asyncio.to_thread(_fetch, jar, cache, clock) for jar in named]
    if coordinates:
        jars += await _resolve_packages(tuple(dict.fromkeys(coordinates)), conf, tools, cache)
    return tuple(dict.fromkeys(jars))


def _listed(conf: dict[str, str], key: str) -> list[str]:
    return [part.strip() for part in conf.get(key, "").split(",") if part.strip()]


def _fetch(jar: str, cache: Path, clock: Clock) -> str:
    """The local path of a jar, which is one."""
    parts = urlsplit(jar)
    if parts.scheme in ("http", "https"):
        path = _download(jar, cache, clock)
    elif parts.scheme in ("", "file", "local"):
        path = Path(unquote(parts.path) if parts.scheme else jar)
    else:
        raise _wrong(f"jars: {jar!r} is neither a path nor a file:, http: or https: URL")
    if not path.is_absolute():
        raise _wrong(f"jars: {jar!r} is not absolute; write the whole path on the broker's machine")
    if not path.is_file():
        raise _wrong(f"jars: there is no file {str(path)!r} on the broker's machine")
    if ":" in str(path) or "," in str(path):
        raise _wrong(f"jars: {str(path)!r} holds a colon or comma, which class paths can't; rename it")
    if not zipfile.is_zipfile(path):
        raise _wrong(f"jars: {jar!r} is not a jar: it isn't in the zip format")
    return str(path)


def _download(url: str, cache: Path, clock: Clock) -> Path:
    folder = cache / "jars" / hashlib.sha256(url.encode()).hexdigest()[:24]
    name = re.sub(r"[^\w.+-]", "_", Path(urlsplit(url).path).name) or "download.jar"
    path = folder / name
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, new = tempfile.mkstemp(dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _copy(url, file, clock.monotonic() + DOWNLOAD_TIMEOUT, clock)
        if not zipfile.is_zipfile(new):  # an error page, which must not stay in the cache
            raise _wrong(f"jars: {url!r} is not a jar: it isn't in the zip format")
        Path(new).replace(path)
    except urllib.error.HTTPError as error:
        with error:
            lasting = error.code in _LASTING
        raise ProvisionerFailed(
            f"jars: {url!r} can't be downloaded: {error}", retryable=not lasting, misconfigured=lasting
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise ProvisionerFailed(f"jars: {url!r} can't be downloaded: {error}", retryable=True) from error
    finally:
        Path(new).unlink(missing_ok=True)
    return path


def _copy(url: str, file: BinaryIO, deadline: float, clock: Clock) -> None:
    """All of it: a connection that ends early is an error, which ``read`` with a size doesn't tell."""
    with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 (http or https)
        expected = response.headers.get("Content-Length")
        while block := response.read(_BLOCK):
            file.write(block)
            if file.tell() > LARGEST_JAR:
                raise _wrong(f"jars: {url!r} is larger than 1 GiB")
            if clock.monotonic() > deadline:
                raise TimeoutError(f"not done after {DOWNLOAD_TIMEOUT:g} s")
    if expected is not None and file.tell() != int(expected):
        raise OSError(f"it ended after {file.tell()} of {expected} bytes")


async def _resolve_packages(
    coordinates: tuple[str, ...], conf: dict[str, str], tools: Toolchain, cache: Path
) -> list[str]:
    module = _module(coordinates, _listed(conf, "spark.jars.excludes"), tools)
    given = conf.get("spark.jars.ivySettings")
    settings = _given_settings(given) if given else _settings(_listed(conf, "spark.jars.repositories"), cache)
    key = hashlib.sha256(f"{module}\0{settings}".encode()).hexdigest()[:24]
    record = cache / "packages" / f"{key}.json"
    known = _known(record)
    if known is not None:
        return known
    record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=record.parent) as folder:
        jars = await _run_ivy(Path(folder), module, settings, given, tools, coordinates)
        new = Path(folder) / "record"
        new.write_bytes(msgspec.json.encode(jars))
        new.replace(record)
    return jars


def _given_settings(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError as error:
        raise _wrong(f"conf spark.jars.ivySettings: the file {path!r} can't be read on the broker's machine") from error


def _known(record: Path) -> list[str] | None:
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
            raise _wrong(f"packages: {coordinate!r} is not a Maven coordinate; write group:artifact:version")
        org, name, rev = (quoteattr(match[part]) for part in ("group", "artifact", "version"))
        lines.append(f'<dependency org={org} name={name} rev={rev} force="true" conf="default->default(runtime)"/>')
    brought = (match["artifact"] for jar in tools.spark.jars if (match := _SPARK_JAR.fullmatch(Path(jar).name)))
    left_out = [("org.scala-lang", "*"), *(("org.apache.spark", artifact) for artifact in brought)]
    for exclude in excludes:
        match = _EXCLUDE.fullmatch(exclude)
        if match is None:
            raise _wrong(f"conf spark.jars.excludes: {exclude!r} is wrong; write group:artifact")
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
    folder: Path, module: str, settings: str, given: str | None, tools: Toolchain, coordinates: tuple[str, ...]
) -> list[str]:
    ivy = next((jar for jar in tools.spark.jars if Path(jar).name.startswith("ivy-")), None)
    if ivy is None:
        raise _wrong(f"packages: the Spark at {tools.spark.home} has no ivy jar, so they can't be resolved")
    (folder / "ivy.xml").write_text(module)
    (folder / "settings.xml").write_text(settings)
    process = await asyncio.create_subprocess_exec(
        tools.java.executable, "-Xmx512m", "-Djava.net.useSystemProxies=true", "-cp", ivy, "org.apache.ivy.Main",
        "-settings", given or str(folder / "settings.xml"), "-ivy", str(folder / "ivy.xml"), "-confs", "default",
        "-types", "jar", "bundle", "test-jar", "eclipse-plugin", "-cachepath", str(folder / "found"),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT):
            output, _ = await process.communicate()
    except TimeoutError as error:
        named = ", ".join(coordinates)
        raise ProvisionerFailed(f"packages: {named} not resolved in {RESOLVE_TIMEOUT:g} s", retryable=True) from error
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
        return _wrong(f"packages: {named} was not found in any repository")
    tail = " | ".join(line.strip() for line in text.splitlines()[-3:])
    return _wrong(f"packages: {named} can't be resolved: {tail[:500]}")


def _wrong(message: str) -> ProvisionerFailed:
    return ProvisionerFailed(message, retryable=False, misconfigured=True)
