"""Room that is set aside, so that releases can still be written when the disk is full."""

import errno
import os
from pathlib import Path
from typing import Final

import structlog

DEFAULT_BALLAST: Final = 8 << 20

_log = structlog.get_logger(__name__)


class Ballast:
    """A file of ``size`` bytes. One ``free`` gives them back to the disk; the next start fills it again if it can."""

    def __init__(self, path: Path, size: int = DEFAULT_BALLAST) -> None:
        if size < 0:
            raise ValueError(f"size: {size} is negative; it must be a number of bytes")
        self.path = path
        self.size = size

    def __repr__(self) -> str:
        return f"<Ballast [{self.held} of {self.size} bytes]>"

    @property
    def held(self) -> int:
        """Bytes of disk that it holds now; raise OSError if that can't be told."""
        try:
            return self.path.stat().st_blocks * 512
        except FileNotFoundError:
            return 0

    def fill(self) -> bool:
        """Take the room; False if the disk hasn't got it. Raise OSError for any other failure."""
        if not self.size or self.held >= self.size:
            return True
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, self.size)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            os.ftruncate(descriptor, 0)
            _log.warning("store.no_room_for_ballast", path=str(self.path), size=self.size)
            return False
        finally:
            os.close(descriptor)
        return True

    def free(self) -> bool:
        """Give the room back, and log it; False if there was none to give, or it can't be given."""
        try:
            if not self.held:
                return False
            os.truncate(self.path, 0)
            _log.warning("store.ballast_freed", path=str(self.path), size=self.size)
        except OSError as error:
            _log.error("store.ballast_stuck", path=str(self.path), error=str(error))
            return False
        return True
