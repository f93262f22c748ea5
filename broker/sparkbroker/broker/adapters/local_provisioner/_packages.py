"""Jars of a driver, brought to this machine before it starts: Maven coordinates by Spark's own resolver (Ivy, from the
jars of Spark), URLs by download, paths as they are. ``java`` directly ignores ``spark.jars.packages``.

Conf keys that are read here, and nowhere else: ``spark.jars``, ``spark.jars.packages``, ``spark.jars.excludes``,
``spark.jars.repositories`` (searched first) and ``spark.jars.ivySettings`` (instead of the repositories).
"""

import asyncio
import hashlib
import os
import re
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from sparkbroker.broker.adapters.local_provisioner import _ivy
from sparkbroker.broker.adapters.local_provisioner._errands import Errands
from sparkbroker.broker.adapters.local_provisioner._toolchain import Toolchain
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.units import Principal
from sparkbroker.broker.ports.metrics import Limit
from sparkbroker.broker.ports.provisioner import DriverRequest

_FETCH: Final = str(Path(__file__).with_name("_fetch.py"))
_LONGEST_ANSWER: Final = 4096


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """``downloads`` at a time, and half of them of one principal; each in ``timeout`` seconds and of ``jar_bytes`` at most.
    Half as many resolutions of packages, likewise: each is a JVM."""

    downloads: int = 4
    timeout: float = 600.0
    jar_bytes: int = 1 << 30


def _nobody(limit: Limit) -> None:
    pass


class Jars:
    """Brings them. ``cache`` keeps what came; ``limited`` is told the name of a bound that a principal has come up to."""

    def __init__(self, cache: Path, bounds: Bounds | None = None, limited: Callable[[Limit], None] = _nobody) -> None:
        self._cache = cache
        self._bounds = bounds = bounds or Bounds()
        share = max(1, bounds.downloads // 2)
        self._downloads: Errands[Path] = Errands(bounds.downloads, share, lambda: limited("downloads_per_principal"))
        self._resolutions: Errands[list[str]] = Errands(
            share, max(1, share // 2), lambda: limited("downloads_per_principal")
        )

    def __repr__(self) -> str:
        return f"<Jars {self._downloads!r} {self._resolutions!r}>"

    async def resolve(self, request: DriverRequest, tools: Toolchain, done: Callable[[], None]) -> tuple[str, ...]:
        """Absolute paths of all jars, in order. Raise ProvisionerFailed naming the coordinate, path or URL; retryable while
        they are being brought: ``done`` is called when some of that is done."""
        conf = _conf(request)
        jars = await self.files(request, done)
        coordinates = tuple(dict.fromkeys([*request.spec.packages, *_ivy.listed(conf, "spark.jars.packages")]))
        if coordinates:
            jars += await self._packages(coordinates, conf, tools, request.principal, done)
        return tuple(dict.fromkeys(jars))

    async def files(self, request: DriverRequest, done: Callable[[], None]) -> list[str]:
        """Of those, the ones that are named by a path or a URL."""
        jars = []
        for jar in (*request.spec.jars, *_ivy.listed(_conf(request), "spark.jars")):
            path = await self._path(jar, request.principal, done)
            jars.append(await asyncio.to_thread(_checked, jar, path))
        return jars

    async def _path(self, jar: str, principal: Principal, done: Callable[[], None]) -> Path:
        try:
            parts = urlsplit(jar)
        except ValueError as error:
            raise _ivy.wrong(f"jars: {jar!r} is not a URL: {error}") from error
        if parts.scheme in ("http", "https"):
            path = _kept(jar, self._cache)
            if not path.exists():
                await self._downloads.run(principal, f"jars: {jar!r}", lambda: self._download(jar, path), done)
            return path
        if parts.scheme in ("", "file", "local"):
            return Path(unquote(parts.path) if parts.scheme else jar)
        raise _ivy.wrong(f"jars: {jar!r} is neither a path nor a file:, http: or https: URL")

    async def _download(self, url: str, path: Path) -> Path:
        try:
            if (new := _begin(path)) is not None:
                try:
                    await self._fetch(url, new)
                    _keep(new, path)
                finally:
                    _clean_up(new)
        except OSError as error:
            raise ProvisionerFailed(f"jars: {url!r} can't be kept: {error}", retryable=True) from error
        return path

    async def _fetch(self, url: str, path: Path) -> None:
        """Into this file, by a process that can be ended at the deadline whatever it waits for."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", _FETCH,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            if process.stdin is None or process.stdout is None:
                raise RuntimeError("a process that was started with pipes has none")
            plan = {"url": url, "path": str(path), "largest": self._bounds.jar_bytes}
            async with asyncio.timeout(self._bounds.timeout):
                process.stdin.write(msgspec.json.encode(plan) + b"\n")
                said = await process.stdout.read(_LONGEST_ANSWER)
                status = await process.wait()
        except TimeoutError as error:
            problem = f"not done after {self._bounds.timeout:g} s"
            raise ProvisionerFailed(f"jars: {url!r} can't be downloaded: {problem}", retryable=True) from error
        finally:
            if process.returncode is None:
                process.kill()
                await asyncio.shield(process.wait())
        if status:
            raise _not_fetched(url, said)

    async def _packages(
        self,
        coordinates: tuple[str, ...],
        conf: dict[str, str],
        tools: Toolchain,
        principal: Principal,
        done: Callable[[], None],
    ) -> list[str]:
        wanted = await asyncio.to_thread(_ivy.wanted, coordinates, conf, tools, self._cache)
        if (known := _ivy.known(wanted.record)) is not None:
            return known
        name = f"packages: {', '.join(coordinates)} ({wanted.record.stem})"
        return await self._resolutions.run(
            principal, name, lambda: _ivy.resolve_packages(wanted, coordinates, tools, self._bounds.timeout), done
        )

    async def close(self) -> None:
        """End what is under way."""
        await self._downloads.close()
        await self._resolutions.close()


def _conf(request: DriverRequest) -> dict[str, str]:
    return {**request.spec.conf, **request.profile.conf}


def _begin(path: Path) -> Path | None:
    """A new file beside this one. None: it is there already."""
    if path.exists():
        return None
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, new = tempfile.mkstemp(dir=path.parent)
    os.close(descriptor)
    return Path(new)


def _keep(new: Path, path: Path) -> None:
    new.replace(path)


def _clean_up(new: Path) -> None:
    new.unlink(missing_ok=True)
    with suppress(OSError):
        new.parent.rmdir()  # empty, if nothing came


def _not_fetched(url: str, said: bytes) -> ProvisionerFailed:
    try:
        told = msgspec.json.decode(said, type=_Told)
    except msgspec.DecodeError:
        told = _Told(message="its process was ended", lasting=False)
    return ProvisionerFailed(
        f"jars: {url!r} can't be downloaded: {told.message}", retryable=not told.lasting, misconfigured=told.lasting
    )


class _Told(msgspec.Struct, frozen=True):
    """What a download's process says of its failure."""

    message: str
    lasting: bool


def _checked(jar: str, path: Path) -> str:
    """The path of a jar, which is one."""
    if not path.is_absolute():
        raise _ivy.wrong(f"jars: {jar!r} is not absolute; write the whole path on the broker's machine")
    if not path.is_file():
        raise _ivy.wrong(f"jars: there is no file {str(path)!r} on the broker's machine")
    if ":" in str(path) or "," in str(path):
        raise _ivy.wrong(f"jars: {str(path)!r} holds a colon or comma, which class paths can't; rename it")
    if not zipfile.is_zipfile(path):
        raise _ivy.wrong(f"jars: {jar!r} is not a jar: it isn't in the zip format")
    return str(path)


def _kept(url: str, cache: Path) -> Path:
    """Where the jar of a URL is kept."""
    name = re.sub(r"[^\w.+-]", "_", Path(urlsplit(url).path).name) or "download.jar"
    return cache / "jars" / hashlib.sha256(url.encode()).hexdigest()[:24] / name[-100:]
