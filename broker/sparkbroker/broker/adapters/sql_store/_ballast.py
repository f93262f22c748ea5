"""Room that is set aside, so that releases can still be written when the disk is full."""

import errno
import os
from pathlib import Path
from typing import Final

import structlog

DEFAULT_BALLAST: Final = 32 << 20
STEP: Final = 256 << 10
"""Bytes that are given back first; what needs more asks again, for twice as much."""

_log = structlog.get_logger(__name__)


class Ballast:
    """A file of ``size`` bytes. Each ``free`` gives a few of them back to the disk: whatever else fills the disk then takes
    only what is left of these. The next start sets them aside again if the disk has room."""

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
        held = self.held
        if not self.size or held >= self.size:
            return True
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, self.size)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            os.ftruncate(descriptor, min(held, self.size))
            _log.warning("store.no_room_for_ballast", path=str(self.path), size=self.size, held=held)
            return False
        finally:
            os.close(descriptor)
        return True

    @property
    def scarce(self) -> bool:
        """Less than half of it is left, or that can't be told."""
        try:
            return self.held < self.size // 2
        except OSError:
            return True

    def free(self, size: int = STEP) -> bool:
        """Give some room back, and log it; False if there is none to give, or it can't be given."""
        try:
            held = self.held
            if not held:
                return False
            os.truncate(self.path, max(0, min(held, self.path.stat().st_size) - size))
            _log.warning("store.ballast_freed", path=str(self.path), left=self.held)
        except OSError as error:
            _log.error("store.ballast_stuck", path=str(self.path), error=str(error))
            return False
        return True
