"""What a machine has for drivers, for whoever asks without starting one. Looks, and changes nothing."""

from enum import StrEnum
from pathlib import Path

import msgspec

from sparkbroker.broker.adapters.local_provisioner._archive import archive_files
from sparkbroker.broker.adapters.local_provisioner._toolchain import Toolchain


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


def _is_locked(path: Path) -> bool:
    """Whether a process holds the lock, told by the kernel's list: to try it would take it from who is about to."""
    try:
        inode = path.stat().st_ino
        locks = Path("/proc/locks").read_text()
    except OSError:
        return False
    return any(f":{inode} " in line for line in locks.splitlines() if " FLOCK " in line)
