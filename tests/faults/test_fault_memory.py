"""The kernel ends a driver for want of memory, really: in a control group that has too little."""

import contextlib
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkbroker.v1 import broker_pb2 as pb

LIMIT = str(32 << 20)


def hierarchies() -> Iterator[tuple[Path, dict[str, str]]]:
    """Where control groups limit memory here, and what a group of ours is to hold; in brackets: if it is known."""
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        yield Path("/sys/fs/cgroup"), {"memory.max": LIMIT, "[memory.swap.max]": "0"}
    if Path("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists():
        yield Path("/sys/fs/cgroup/memory"), {"memory.limit_in_bytes": LIMIT, "[memory.memsw.limit_in_bytes]": LIMIT}


def made(group: Path, limits: dict[str, str]) -> bool:
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


@pytest.fixture
def small_group(need, tools, oom_kills, broker):
    """The folder of a control group whose processes may take 32 MiB, and none of it from swap."""
    name = f"sparkbroker-test-{uuid.uuid4().hex[:12]}"
    group = next((root / name for root, limits in hierarchies() if made(root / name, limits)), None)
    need(group, "leave to make a control group with a limit of memory: root, and /sys/fs/cgroup to be written to")
    assert group is not None
    yield group
    broker.close()
    tools.until("the group to be empty", lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


@pytest.mark.promise(9)
def test_a_driver_that_the_kernel_ends_for_memory_is_told_as_such(broker, small_group):
    lease = broker.ready()
    other = broker.ready(key="other")
    pid = broker.process_record(lease)["driver_pid"]
    (small_group / "cgroup.procs").write_text(str(pid))
    os.kill(pid, signal.SIGUSR1)
    lost = broker.until_ended(lease.name)
    assert (lost.state, lost.reason) == (pb.LEASE_STATE_FAILED, pb.LEASE_REASON_OUT_OF_MEMORY)
    assert (lost.exit.signal, lost.exit.out_of_memory) == ("SIGKILL", True)
    assert "out of memory: the kernel killed it" in lost.message
    assert not any("took" in line for line in lost.exit.log_tail)
    assert broker.get(other.name).state == pb.LEASE_STATE_READY
    broker.release(other.name)
    broker.until_nothing_is_left()
