"""What a machine has for drivers, for whoever asks without starting one. Looks, and changes nothing."""

import subprocess
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from sparkbroker.broker.adapters.local_provisioner._archive import archive_files
from sparkbroker.broker.adapters.local_provisioner._conf import JVM_OPTIONS, LOOPBACK, SMALLEST_HEAP
from sparkbroker.broker.adapters.local_provisioner._launch import Place
from sparkbroker.broker.adapters.local_provisioner._spark import environment, options_for_user
from sparkbroker.broker.adapters.local_provisioner._toolchain import Toolchain
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.lease.log_tail import cause

TRIAL_TIMEOUT: Final = 60.0
_LOGIN: Final = "org.apache.hadoop.security.UserGroupInformation"
"""Its program tells who the user is: what Spark asks first, of which most that keeps a driver from starting is in the way."""


class ArchiveState(StrEnum):
    """``MISSING``: nobody has made it yet. ``FAILED``: it couldn't be made; a day later that is tried again."""

    THERE = "there"
    BUILDING = "building"
    FAILED = "failed"
    MISSING = "missing"


class ClassArchive(msgspec.Struct, frozen=True, kw_only=True):
    """The class archive of one toolchain: where it is or would be; its size in bytes; why it couldn't be made, and what
    its maker wrote meanwhile."""

    path: Path
    state: ArchiveState
    size: int = 0
    why: str = ""
    log: Path | None = None


def class_archive(cache: Path, tools: Toolchain) -> ClassArchive:
    """That of these tools in this cache. Errors: OSError, if a jar of Spark or the cache can't be read."""
    files = archive_files(cache, tools)
    log = files.log if files.log.exists() else None
    if files.there():
        return ClassArchive(path=files.archive, state=ArchiveState.THERE, size=files.archive.stat().st_size, log=log)
    if _is_locked(files.archive.with_name("lock")):
        return ClassArchive(path=files.archive, state=ArchiveState.BUILDING, log=log)
    if files.failed.exists():
        why = files.failed.read_text(errors="replace").strip().partition("\n")[0]
        return ClassArchive(path=files.archive, state=ArchiveState.FAILED, why=why[:300], log=log)
    return ClassArchive(path=files.archive, state=ArchiveState.MISSING, log=log)


def trial(tools: Toolchain, base: Path) -> str:
    """Do what a driver does first: start Java as a driver is started, with Spark's jars, and log in. It takes a second or two,
    and what it writes below ``base`` is removed. What went wrong; empty: nothing."""
    try:
        with tempfile.TemporaryDirectory(prefix="sparkbroker-trial-", dir=base) as folder:
            scratch = Path(folder)
            user = options_for_user(Place(arguments=scratch / "arguments", scratch=scratch))
            done = subprocess.run(
                [tools.java.executable, f"-Xmx{SMALLEST_HEAP >> 20}m", "-XX:-UsePerfData", *user, *JVM_OPTIONS,
                 f"-Djava.io.tmpdir={scratch}", "-cp", f"{tools.spark.home}/jars/*", _LOGIN],
                env=environment(tools, scratch, LOOPBACK), cwd=scratch, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TRIAL_TIMEOUT, check=False,
            )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no answer within {TRIAL_TIMEOUT:g} s"
    except (OSError, ProvisionerFailed) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    lines = done.stdout.decode(errors="replace").splitlines()
    said = [lines[index].strip() for index in cause(lines)] or [line.strip() for line in lines[-1:]]
    return f"it ended with status {done.returncode}: {' / '.join(said)[:500] or 'it said nothing'}"


def _is_locked(path: Path) -> bool:
    """Whether a process holds the lock, told by the kernel's list: to try it would take it from who is about to."""
    try:
        inode = path.stat().st_ino
        locks = Path("/proc/locks").read_text()
    except OSError:
        return False
    return any(f":{inode} " in line for line in locks.splitlines() if " FLOCK " in line)
