"""What this machine, or the control group that we are in, has."""

import math
import os
from pathlib import Path
from typing import Final

from sparkbroker.broker.domain.capacity.resources import Resources

_GROUP2: Final = Path("/sys/fs/cgroup")
_GROUP1_MEMORY: Final = Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")
_GROUP1_QUOTA: Final = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
_GROUP1_PERIOD: Final = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")


def machine_capacity() -> Resources:
    """The processors that we may use, and the memory: the smaller of the machine's and the control group's."""
    processors = min(len(os.sched_getaffinity(0)), _group_processors())
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Resources.of(cores=processors, memory=int(min(total, _group_memory())))


def _group_processors() -> float:
    quota = _read(_GROUP2 / "cpu.max")
    if quota is not None:
        limit, _, period = quota.partition(" ")
        return math.inf if limit == "max" else max(int(limit) / int(period or 100_000), 0.1)
    limit_us, period_us = _read(_GROUP1_QUOTA), _read(_GROUP1_PERIOD)
    if limit_us is None or period_us is None or int(limit_us) <= 0:
        return math.inf
    return max(int(limit_us) / int(period_us), 0.1)


def _group_memory() -> float:
    limit = _read(_GROUP2 / "memory.max") or _read(_GROUP1_MEMORY)
    return math.inf if limit in (None, "max") else int(limit)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
