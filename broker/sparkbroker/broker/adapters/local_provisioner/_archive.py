"""Archives of loaded classes (AppCDS; from Java 24 on an AOT cache), which halve a driver's start.

An archive belongs to one build of the JVM and one class path. It is made once, in the background, by a process of the
lowest priority (``_train``) that starts a driver, runs a few queries and ends it; two brokers with one cache make one.
A missing, stale or broken archive only makes the start slower: the JVM checks its header and says so in its log. One that
is shorter than it was made, of which a JVM 17 dies, isn't used, and is made anew.
"""

import asyncio
import hashlib
import os
import sys
from pathlib import Path
from typing import Final

import msgspec
import structlog

from sparkbroker.broker.adapters.local_provisioner._toolchain import Toolchain

FIRST_WITH_AOT_CACHE: Final = 24
KEPT: Final = 4
"""Archives in a cache, about 200 MB each: those used last."""
_RETRY_AFTER: Final = 24 * 3600.0
_BUILD_TIMEOUT: Final = 1800.0
_END_TIMEOUT: Final = 10.0
_TRAINER: Final = "sparkbroker.broker.adapters.local_provisioner._train"

log = structlog.get_logger()


class ArchiveFiles(msgspec.Struct, frozen=True, kw_only=True):
    """The paths of one toolchain's archive. ``base`` is of the JDK's own classes, where the JDK brings none."""

    archive: Path
    size: Path
    base: Path | None
    failed: Path
    log: Path
    aot: bool

    def there(self) -> bool:
        """Whether it can be used: it is there, and as long as it was made."""
        try:
            whole = self.archive.stat().st_size == int(self.size.read_text())
        except (FileNotFoundError, ValueError):
            return False
        return whole and (self.base is None or self.base.exists())

    def use(self) -> tuple[str, ...]:
        """The JVM's options to start with it."""
        if self.aot:
            return (f"-XX:AOTCache={self.archive}",)
        prefix = f"{self.base}:" if self.base is not None else ""
        return (f"-XX:SharedArchiveFile={prefix}{self.archive}", "-Xshare:auto")

    def make(self, path: Path) -> tuple[str, ...]:
        """The JVM's options to write it to ``path`` at exit."""
        if self.aot:
            return (f"-XX:AOTCacheOutput={path}",)
        base = (f"-XX:SharedArchiveFile={self.base}",) if self.base is not None else ()
        # Only classes are kept, and the optimising compiler would take half of the CPU. An AOT cache keeps profiles, too.
        return (*base, f"-XX:ArchiveClassesAtExit={path}", "-XX:TieredStopAtLevel=1")


def archive_files(cache: Path, tools: Toolchain) -> ArchiveFiles:
    """Named after everything that an archive depends on. Looks at each jar's size and time: some milliseconds."""
    digest = hashlib.sha256(tools.java.build.encode())
    for jar in tools.spark.jars:
        status = Path(jar).stat()
        digest.update(f"\n{jar} {status.st_size} {status.st_mtime_ns}".encode())
    name = digest.hexdigest()[:24]
    folder = cache / "archives"
    aot = tools.java.major >= FIRST_WITH_AOT_CACHE
    brings_base = (Path(tools.java.home) / "lib" / "server" / "classes.jsa").exists()
    return ArchiveFiles(
        archive=folder / f"{name}.{'aot' if aot else 'jsa'}",
        size=folder / f"{name}.size",
        base=None if aot or brings_base else folder / f"{name}.base",
        failed=folder / f"{name}.failed",
        log=folder / f"{name}.log",
        aot=aot,
    )


class Archives:
    """Those of one cache."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._wanted: Toolchain | None = None
        self._build: asyncio.Task[None] | None = None

    def options(self, tools: Toolchain, now: float) -> tuple[str, ...]:
        """The JVM's options to start with the archive: none while it is missing, which is then noted as wanted."""
        files = archive_files(self._cache, tools)
        if files.there():
            os.utime(files.archive)
            if self._wanted == tools:
                self._wanted = None  # missed while it was being built
            return files.use()
        failed_lately = files.failed.exists() and now - files.failed.stat().st_mtime < _RETRY_AFTER
        if not failed_lately:
            self._wanted = tools
        return ()

    @property
    def building(self) -> bool:
        return self._build is not None

    def build_wanted(self) -> None:
        """Begin to build the archive that was last missed, unless one is being built."""
        if self._wanted is None or self._build is not None:
            return
        build = self._run(self._wanted)
        self._wanted = None
        self._build = asyncio.get_running_loop().create_task(build, name="build a class archive")
        self._build.add_done_callback(self._built)

    async def built(self) -> None:
        """Build the archive that was last missed, at once, and wait for the end of it; how it ended is logged."""
        self.build_wanted()
        while self._build is not None:
            await asyncio.wait([self._build])

    def _built(self, _: asyncio.Task[None]) -> None:
        self._build = None

    async def _run(self, tools: Toolchain) -> None:
        try:
            async with asyncio.timeout(_BUILD_TIMEOUT):
                await self._train(tools)
        except (OSError, TimeoutError) as error:
            log.warning("archive.failed", java=tools.java.version, spark=tools.spark.version, error=str(error))

    async def _train(self, tools: Toolchain) -> None:
        """The trainer ends when its standard input does: with us, however we end."""
        files = archive_files(self._cache, tools)
        files.archive.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with files.log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", _TRAINER, str(self._cache), msgspec.json.encode(tools).decode(),
                stdin=asyncio.subprocess.PIPE, stdout=output, stderr=output,
            )  # fmt: skip
        try:
            status = await process.wait()
        finally:
            if process.stdin is not None:
                process.stdin.close()
            if process.returncode is None:
                await self._see_off(process)
        if status:
            log.warning("archive.failed", java=tools.java.version, spark=tools.spark.version, log=str(files.log))
        else:
            log.info("archive.ready", path=str(files.archive))

    async def _see_off(self, process: asyncio.subprocess.Process) -> None:
        try:
            async with asyncio.timeout(_END_TIMEOUT):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def close(self) -> None:
        """A build that isn't done ends, and begins anew at the next need."""
        if self._build is not None:
            self._build.cancel()
            await asyncio.gather(self._build, return_exceptions=True)
