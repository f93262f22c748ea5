"""A laptop sleeps for an hour: broker, drivers and holders stand still, and the clocks that count sleep go on."""

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from sparkbroker.v1 import broker_pb2 as pb

pytestmark = pytest.mark.timeout(120)

SHIFTED = str(Path(__file__).with_name("shifted_broker.py"))
HOUR = 3600

HOLDER = """
import sys, time
from pathlib import Path

slept, real = Path(sys.argv[2]), time.clock_gettime
def clock_gettime(clock):
    return real(clock) + (float(slept.read_text()) if clock == time.CLOCK_BOOTTIME else 0.0)
time.clock_gettime = clock_gettime

from sparkbroker.client import Broker, LeaseLost
with Broker(sys.argv[1]) as broker:
    lease = broker.acquire(mode=sys.argv[3])
    lease.wait_ready(timeout=30)
    lease.connection()
    print(lease.name, flush=True)
    for line in sys.stdin:
        try:
            lease.raise_if_lost()
            print("held", flush=True)
        except LeaseLost as lost:
            print("lost", lost.reason, flush=True)
    lease.release()
"""


class Asleep:
    """What the machine has slept, in a file that broker and holder read as their clock's."""

    def __init__(self, folder):
        self.file = folder / "slept"
        self.file.write_text("0")

    def sleep(self, seconds):
        new = self.file.with_suffix(".new")
        new.write_text(str(float(self.file.read_text()) + seconds))
        new.replace(self.file)


@pytest.fixture
def machine(make_broker):
    """A broker with a ttl of five seconds, and its machine's sleep."""
    broker = make_broker(ttl=5, wait_ttl=10)
    asleep = Asleep(broker.folder)
    wall = broker.folder / "wall"
    wall.write_text("0")
    broker.command = [sys.executable, SHIFTED, str(broker.config), str(wall), str(asleep.file)]
    return broker.start(), asleep


@pytest.mark.promise(3)
@pytest.mark.promise(4)
@pytest.mark.parametrize("mode", ["CONNECT", "LOCAL"])
def test_an_hour_of_sleep_costs_no_holder_its_lease(machine, tools, mode):
    broker, asleep = machine
    holder = subprocess.Popen(
        [sys.executable, "-P", "-c", HOLDER, f"unix://{broker.socket}", str(asleep.file), mode],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=broker.env,
    )  # fmt: skip
    with holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            name = holder.stdout.readline().strip()
            asleep.sleep(HOUR)

            def renewed():
                # Beyond the ttl of the last renewal before the sleep, by the broker's own time.
                short = broker.acquire(mode=pb.LEASE_MODE_LOCAL, ttl=Duration(seconds=7)).name
                broker.attach(short)
                return broker.until_ended(short).reason == pb.LEASE_REASON_HOLDER_LOST

            assert renewed()
            holder.stdin.write("?\n")
            holder.stdin.flush()
            assert holder.stdout.readline() == "held\n"
            assert broker.get(name).state == pb.LEASE_STATE_READY
        finally:
            holder.kill()
    # What it slept is not given to a dead holder's lease: that ends after its ttl.
    assert broker.until_ended(name).reason == pb.LEASE_REASON_HOLDER_LOST
    broker.until_nothing_is_left()


@pytest.mark.promise(4)
def test_an_hour_of_sleep_while_a_driver_starts_and_others_wait(machine, tools):
    broker, asleep = machine
    starting = broker.acquire(conf={"spark.small.delay": "2"}).name
    broker.until_state(starting, pb.LEASE_STATE_PROVISIONING)
    waiting = [broker.acquire(mode=pb.LEASE_MODE_LOCAL).name for _ in range(4)][-1]
    assert broker.get(waiting).state == pb.LEASE_STATE_QUEUED
    asleep.sleep(HOUR)
    ready = broker.until_state(starting, pb.LEASE_STATE_READY, pb.LEASE_STATE_FAILED)
    assert (ready.state, ready.attempt) == (pb.LEASE_STATE_READY, 1)
    assert broker.get(waiting).state == pb.LEASE_STATE_QUEUED
