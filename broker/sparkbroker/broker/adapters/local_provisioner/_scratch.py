"""Folders in places where others may write."""

import os
import stat
import tempfile
from pathlib import Path

import structlog

log = structlog.get_logger()


def scratch_base() -> Path:
    """The folder below which drivers spill and shuffle, unless a provisioner is told another."""
    return Path(tempfile.gettempdir())


def private_folder(path: Path) -> None:
    """Make it if need be, for this user alone. PermissionError if what is there is a link, or somebody else's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            raise PermissionError(f"{path} exists, and is not a folder of this user's") from None
        path.chmod(0o700)


def find_scratch(owner: str) -> Path:
    """This user's folder, made if need be. Where somebody else has taken its name, one that nobody could: anybody may make
    folders there. ``owner`` tells this broker from others."""
    wanted = scratch_base() / f"sparkbroker-{os.getuid()}"
    try:
        private_folder(wanted)
    except PermissionError as error:
        found = _another(wanted.with_name(f"{wanted.name}-{owner}"))
        log.warning("scratch.elsewhere", folder=str(found), message=str(error))
        return found
    return wanted


def _another(named: Path) -> Path:
    try:
        private_folder(named)
    except PermissionError:
        return Path(tempfile.mkdtemp(prefix=f"{named.name}-", dir=named.parent))
    return named
