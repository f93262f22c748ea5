"""Files that others replace while the broker runs: whether they have changed since they were read.

Nobody tells of a change: a Secret that Kubernetes mounts is renewed by turning a link to another folder. So a file is
known by the status of what its path leads to.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from sparkbroker.broker.domain.errors import BrokerError

T = TypeVar("T")
Stamps = tuple[tuple[int, ...], ...]
"""Of each file, what differs once it is another or was written; of one that can't be looked at, why."""


class LastRead(msgspec.Struct, frozen=True):
    """How the files were when they were read, and what was wrong with them, if they couldn't be used."""

    stamps: Stamps
    problem: str = ""

    def due(self, stamps: Stamps) -> bool:
        """Whether to read them again.

        What couldn't be used is tried again as it is: why needn't show in a stamp (no file descriptor was left, or the
        rest was written within the same tick of the file system's clock).
        """
        return bool(self.problem) or stamps != self.stamps


class FollowedFiles:
    """Files that are read together, and again when one has changed. For one thread at a time."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._before = self._last = LastRead(())

    def __repr__(self) -> str:
        return f"<FollowedFiles {', '.join(map(str, self._paths))} [{self._last.problem or 'read'}]>"

    @property
    def news(self) -> bool:
        """Whether the last ``read`` was of other files than the one before, or ended otherwise."""
        return self._last != self._before

    def stamps(self) -> Stamps:
        return tuple(map(_stamp, self._paths))

    def changed(self) -> bool:
        """Whether to ``read``: a file isn't as it was, or couldn't be used."""
        return self._last.due(self.stamps())

    def read(self, load: Callable[[], T]) -> T:
        """What ``load`` returns. Raise the BrokerError that it raises, by which the files can't be used."""
        # Before the content: what changes while it is read is seen as a change afterwards.
        stamps = self.stamps()
        self._before = self._last
        try:
            value = load()
        except BrokerError as error:
            self._last = LastRead(stamps, error.message)
            raise
        self._last = LastRead(stamps)
        return value


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError as error:
        return (error.errno or 0,)
    # The change time as well: a copy in place may keep its source's modification time and be as large as what was there.
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
