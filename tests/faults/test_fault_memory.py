"""The kernel ends a driver for want of memory, really: in a control group that has too little."""

import os
import signal

import pytest

from sparkbroker.v1 import broker_pb2 as pb
from tests import control_group


@pytest.fixture
def small_group(need, tools, oom_kills, broker):
    """A control group whose processes may take 32 MiB."""
    group = control_group.make(32 << 20)
    need(group, control_group.WHY)
    assert group is not None
    yield group
    broker.close()
    tools.until("the group to be empty", lambda: not group.pids())
    group.remove()


@pytest.mark.promise(9)
def test_a_driver_that_the_kernel_ends_for_memory_is_told_as_such(broker, small_group):
    lease = broker.ready()
    other = broker.ready(key="other")
    pid = broker.process_record(lease)["driver_pid"]
    small_group.add(pid)
    os.kill(pid, signal.SIGUSR1)
    lost = broker.until_ended(lease.name)
    assert (lost.state, lost.reason) == (pb.LEASE_STATE_FAILED, pb.LEASE_REASON_OUT_OF_MEMORY)
    assert (lost.exit.signal, lost.exit.out_of_memory) == ("SIGKILL", True)
    assert "out of memory: the kernel killed it" in lost.message
    assert not any("took" in line for line in lost.exit.log_tail)
    assert broker.get(other.name).state == pb.LEASE_STATE_READY
    broker.release(other.name)
    broker.until_nothing_is_left()
