"""A control group that limits memory, on machines with either version of control groups."""

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

WHY: Final = "leave to make a control group with a limit of memory: root, and /sys/fs/cgroup to be written to"
_UNIFIED: Final = Path("/sys/fs/cgroup")
_MEMORY: Final = Path("/sys/fs/cgroup/memory")


class ControlGroup:
    """Its processes may take ``limit`` bytes of memory together, and none of it from swap."""

    def __init__(self, folder: Path, peak: str) -> None:
        self.folder = folder
        self._peak = folder / peak

    def __repr__(self) -> str:
        return f"<ControlGroup {self.folder}>"

    def add(self, pid: int) -> None:
        (self.folder / "cgroup.procs").write_text(str(pid))

    def pids(self) -> list[int]:
        return [int(pid) for pid in (self.folder / "cgroup.procs").read_text().split()]

    def peak(self) -> int:
        """The most bytes that it held so far, caches of files included; 0 where the kernel doesn't tell."""
        try:
            return int(self._peak.read_text())
        except OSError:
            return 0

    def remove(self) -> None:
        """Raise OSError while a process is in it."""
        self.folder.rmdir()


def make(limit: int) -> ControlGroup | None:
    """None: this process may not make one."""
    name = f"sparkbroker-test-{uuid.uuid4().hex[:12]}"
    for root, limits, peak in _hierarchies(str(limit)):
        if _made(root / name, limits):
            return ControlGroup(root / name, peak)
    return None


def _hierarchies(limit: str) -> Iterator[tuple[Path, dict[str, str], str]]:
    """Where control groups limit memory here, what a group of ours is to hold (in brackets: if it is known), and where its
    peak is."""
    if (_UNIFIED / "cgroup.controllers").exists():
        yield _UNIFIED, {"memory.max": limit, "[memory.swap.max]": "0"}, "memory.peak"
    if (_MEMORY / "memory.limit_in_bytes").exists():
        limits = {"memory.limit_in_bytes": limit, "[memory.memsw.limit_in_bytes]": limit}
        yield _MEMORY, limits, "memory.max_usage_in_bytes"


def _made(group: Path, limits: dict[str, str]) -> bool:
    try:
        group.mkdir()
        for name, value in limits.items():
            file = group / name.strip("[]")
            if file.exists() or not name.startswith("["):
                file.write_text(value)
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        return False
    return True
