"""SIGKILL and SIGSTOP of each process, and of all of them: what is told is true, and nothing is left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from sparkbroker.v1 import broker_pb2 as pb

pytestmark = pytest.mark.timeout(120)

HOLDER = """
import sys, threading
from sparkbroker.client import Broker, LeaseLost
with Broker(sys.argv[1]) as broker:
    lease = broker.acquire(mode=sys.argv[2])
    lease.wait_ready(timeout=30)
    lease.connection()
    print(lease.name, flush=True)
    print(sys.stdin.readline().strip(), flush=True)
    try:
        lease.raise_if_lost()
        print("held", flush=True)
        lease.release()
    except LeaseLost as lost:
        print("lost", lost.state, lost.reason, flush=True)
"""


class Holder:
    """A program that holds a lease through the real client."""

    def __init__(self, broker, mode="CONNECT"):
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", HOLDER, f"unix://{broker.socket}", mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=broker.env,
        )
        self.name = self.line()

    def line(self):
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self):
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        assert self.line() == "go"
        return self.line()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture
def hold():
    made = []

    def make(broker, **how):
        made.append(Holder(broker, **how))
        return made[-1]

    yield make
    for holder in made:
        holder.close()


def pass_time(tools, seconds):
    """Time itself is what these tests need: it makes deadlines pass."""
    end = time.clock_gettime(time.CLOCK_BOOTTIME) + seconds
    tools.until(f"{seconds:g} s to pass", lambda: time.clock_gettime(time.CLOCK_BOOTTIME) >= end, seconds + 10)


# -- the driver


@pytest.mark.promise(9)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_driver_that_is_killed_is_told_with_its_signal_and_log(broker, tools, how):
    lease = broker.ready()
    generation = broker.attach(lease.name)
    os.kill(broker.process_record(lease)["driver_pid"], how)
    lost = broker.until_ended(lease.name)
    assert (lost.state, lost.reason) == (pb.LEASE_STATE_FAILED, pb.LEASE_REASON_DRIVER_LOST)
    assert lost.exit.signal == how.name
    assert not lost.exit.HasField("exit_code")
    assert any("small driver listens" in line for line in lost.exit.log_tail)
    assert how.name in lost.message
    refusal = tools.refused(lambda: broker.renew(lease.name, generation))
    assert (refusal.reason, refusal.metadata["lease_reason"]) == ("LEASE_ENDED", "DRIVER_LOST")
    assert broker.get(lease.name).attempt == 1, "a lost session was replaced by a silently fresh one"
    broker.until_nothing_is_left()


def test_a_driver_that_ends_while_it_starts_is_told_with_its_status_and_log(broker):
    name = broker.acquire(conf={"spark.small.exit": "7"}).name
    failed = broker.until_ended(name)
    assert (failed.state, failed.reason) == (pb.LEASE_STATE_FAILED, pb.LEASE_REASON_START_FAILED)
    assert (failed.exit.exit_code, failed.exit.signal) == (7, "")
    assert list(failed.exit.log_tail) == ["ending as told"]
    broker.until_nothing_is_left()


@pytest.mark.promise(5)
def test_a_driver_that_is_killed_leaves_none_of_its_children(broker):
    """They left its session and ignore SIGTERM, as a worker of a Python function may."""
    lease = broker.ready(conf={"spark.small.children": "3"})
    assert len(broker.processes()) == 5
    os.kill(broker.process_record(lease)["driver_pid"], signal.SIGKILL)
    assert broker.until_ended(lease.name).reason == pb.LEASE_REASON_DRIVER_LOST
    broker.until_nothing_is_left()


@pytest.mark.promise(7)
def test_a_driver_that_is_stopped_is_a_doubt_and_no_verdict(broker, tools):
    """Also to the next broker, which looks at everything."""
    lease = broker.ready(ttl=Duration(seconds=60))
    generation = broker.attach(lease.name)
    driver = broker.process_record(lease)["driver_pid"]
    os.kill(driver, signal.SIGSTOP)
    tools.until("the driver to stop", lambda: tools.process_state(driver) == "T")
    broker.kill()
    broker.start()
    assert broker.renew(lease.name, generation).state == pb.LEASE_STATE_READY
    other = broker.ready()  # the inventory is complete: something was admitted
    broker.release(other.name)
    assert broker.get(lease.name).state == pb.LEASE_STATE_READY
    os.kill(driver, signal.SIGCONT)
    assert broker.renew(lease.name, generation).state == pb.LEASE_STATE_READY
    assert tools.alive(driver)
    os.kill(driver, signal.SIGSTOP)
    broker.release(lease.name)
    assert broker.until_ended(lease.name).state == pb.LEASE_STATE_RELEASED
    broker.until_nothing_is_left()


def test_a_driver_that_is_stopped_while_it_starts_fails_in_time(make_broker, tools):
    broker = make_broker(start_timeout=3).start()
    name = broker.acquire(conf={"spark.small.delay": "2"}).name
    lease = broker.until_state(name, pb.LEASE_STATE_PROVISIONING)

    def driver():
        try:
            return broker.process_record(lease)["driver_pid"]
        except FileNotFoundError:
            return 0

    pid = tools.until("the driver's process", driver)
    os.kill(pid, signal.SIGSTOP)
    failed = broker.until_ended(name)
    assert (failed.state, failed.reason) == (pb.LEASE_STATE_FAILED, pb.LEASE_REASON_START_FAILED)
    assert "not ready in time" in failed.message
    broker.until_nothing_is_left()


# -- the shim


def test_a_shim_that_is_killed_takes_no_session_with_it(broker, tools):
    lease = broker.ready(ttl=Duration(seconds=60))
    generation = broker.attach(lease.name)
    record = broker.process_record(lease)
    os.kill(record["pid"], signal.SIGKILL)
    tools.until("the shim to end", lambda: not tools.alive(record["pid"]))
    broker.kill()
    broker.start()
    assert broker.renew(lease.name, generation).state == pb.LEASE_STATE_READY
    assert tools.alive(record["driver_pid"])
    # Its end is now unseen, and is told as that.
    os.kill(record["driver_pid"], signal.SIGKILL)
    lost = broker.until_ended(lease.name)
    assert (lost.state, lost.reason) == (pb.LEASE_STATE_FAILED, pb.LEASE_REASON_DRIVER_LOST)
    assert "unseen" in lost.message
    assert lost.exit.log_tail
    broker.until_nothing_is_left()


def test_the_driver_of_a_killed_shim_can_be_released(broker):
    lease = broker.ready(conf={"spark.small.children": "2"})
    os.kill(broker.process_record(lease)["pid"], signal.SIGKILL)
    broker.release(lease.name)
    assert broker.until_ended(lease.name).state == pb.LEASE_STATE_RELEASED
    broker.until_nothing_is_left()


@pytest.mark.parametrize("end", ["driver killed", "released"])
def test_a_shim_that_is_stopped_holds_nothing_up(broker, tools, end):
    lease = broker.ready(ttl=Duration(seconds=60))
    generation = broker.attach(lease.name)
    record = broker.process_record(lease)
    os.kill(record["pid"], signal.SIGSTOP)
    tools.until("the shim to stop", lambda: tools.process_state(record["pid"]) == "T")
    assert broker.renew(lease.name, generation).state == pb.LEASE_STATE_READY
    if end == "released":
        broker.release(lease.name)
        assert broker.until_ended(lease.name).state == pb.LEASE_STATE_RELEASED
    else:
        os.kill(record["driver_pid"], signal.SIGKILL)
        lost = broker.until_ended(lease.name)
        assert (lost.state, lost.reason) == (pb.LEASE_STATE_FAILED, pb.LEASE_REASON_DRIVER_LOST)
    broker.until_nothing_is_left()


# -- the client


@pytest.mark.parametrize("mode", ["CONNECT", "LOCAL"])
def test_a_killed_client_loses_its_lease_after_its_ttl(broker, hold, mode):
    holder = hold(broker, mode=mode)
    assert broker.get(holder.name).attachments
    holder.process.kill()
    killed = time.clock_gettime(time.CLOCK_BOOTTIME)
    lease = broker.until_ended(holder.name)
    assert (lease.state, lease.reason) == (pb.LEASE_STATE_EXPIRED, pb.LEASE_REASON_HOLDER_LOST)
    assert time.clock_gettime(time.CLOCK_BOOTTIME) - killed >= 1.5, "before its ttl had passed"
    broker.until_nothing_is_left()


@pytest.mark.promise(3)
def test_a_client_that_was_stopped_for_too_long_learns_that_it_lost(broker, hold, tools):
    holder = hold(broker)
    holder.process.send_signal(signal.SIGSTOP)
    lease = broker.until_ended(holder.name)
    assert (lease.state, lease.reason) == (pb.LEASE_STATE_EXPIRED, pb.LEASE_REASON_HOLDER_LOST)
    broker.until_nothing_is_left()
    holder.process.send_signal(signal.SIGCONT)
    assert holder.ask() == "lost EXPIRED HOLDER_LOST"


def test_a_client_that_was_stopped_shortly_holds_on(broker, hold, tools):
    holder = hold(broker)
    holder.process.send_signal(signal.SIGSTOP)
    tools.until("the client to stop", lambda: tools.process_state(holder.process.pid) == "T")
    holder.process.send_signal(signal.SIGCONT)
    assert holder.ask() == "held"
    broker.until_ended(holder.name)
    broker.until_nothing_is_left()


# -- the broker


@pytest.mark.promise(4)
def test_a_broker_that_is_stopped_for_longer_than_a_ttl_expires_nothing(make_broker, tools, hold):
    broker = make_broker(ttl=5, wait_ttl=5).start()
    lease = broker.ready()
    generation = broker.attach(lease.name)
    waiting = [broker.acquire(mode=pb.LEASE_MODE_LOCAL).name for _ in range(4)][-1]
    holder = lease.name
    broker.renew(holder, generation)
    broker.pause()
    pass_time(tools, 8)
    broker.resume()
    assert broker.renew(holder, generation).state == pb.LEASE_STATE_READY
    assert broker.get(waiting).state == pb.LEASE_STATE_QUEUED
    # Its clock goes on: now that nobody renews, it ends.
    assert broker.until_ended(holder).reason == pb.LEASE_REASON_HOLDER_LOST
    broker.until_ended(waiting)


@pytest.mark.promise(3)
@pytest.mark.promise(4)
def test_a_killed_broker_costs_no_holder_its_lease(make_broker, tools, hold):
    """It is down for longer than the ttl; the client is suspect meanwhile, and resumes."""
    broker = make_broker(ttl=3).start()
    holder = hold(broker)
    driver = broker.process_record(broker.get(holder.name))["driver_pid"]
    broker.kill()
    pass_time(tools, 5)
    assert tools.alive(driver)
    broker.start()
    assert broker.get(holder.name).state == pb.LEASE_STATE_READY
    pass_time(tools, 4)  # more than a ttl: only renewals keep it
    assert broker.get(holder.name).state == pb.LEASE_STATE_READY
    assert holder.ask() == "held"
    broker.until_ended(holder.name)
    broker.until_nothing_is_left()


def test_a_broker_killed_while_a_driver_starts_adopts_it(broker, tools):
    name = broker.acquire(conf={"spark.small.delay": "3"}).name
    lease = broker.until_state(name, pb.LEASE_STATE_PROVISIONING)
    path = broker.state / "drivers" / lease.driver.removeprefix("drivers/") / "process.json"
    tools.until("the driver's process", path.exists)
    record = broker.process_record(lease)
    broker.kill()
    broker.start()
    ready = broker.until_state(name, pb.LEASE_STATE_READY)
    assert (ready.attempt, ready.driver) == (1, lease.driver)
    assert broker.process_record(ready)["pid"] == record["pid"]
    assert len(broker.processes()) == 2, "a second driver was made"
    broker.release(name)
    broker.until_nothing_is_left()


# -- all at once


@pytest.mark.promise(5)
@pytest.mark.promise(6)
def test_everything_is_killed_at_once_and_nothing_leaks(broker, hold, tools):
    """As a power cut does it, but that the machine's boot id stays: the harder case."""
    holder = hold(broker)
    leases = [broker.ready(conf={"spark.small.children": "2"}) for _ in range(2)]
    starting = broker.acquire(conf={"spark.small.delay": "100"}).name
    driver = broker.until_state(starting, pb.LEASE_STATE_PROVISIONING).driver.removeprefix("drivers/")
    record = broker.state / "drivers" / driver / "process.json"
    tools.until("the driver to have a process, without which it would be started after the kill", record.exists)
    generations = {lease.name: broker.attach(lease.name) for lease in leases}
    before = broker.used()
    victims = [broker.pid, holder.process.pid, *broker.processes()]
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    broker.wait()
    broker.start()
    assert before
    for name in (*generations, holder.name):
        lost = broker.until_ended(name)
        assert (lost.state, lost.reason) == (pb.LEASE_STATE_FAILED, pb.LEASE_REASON_DRIVER_LOST)
    assert broker.until_ended(starting).state == pb.LEASE_STATE_FAILED
    broker.until_nothing_is_left()
    broker.release(broker.ready().name)


@pytest.mark.promise(6)
def test_drivers_and_broker_are_killed_and_the_shims_tell_how(broker, tools):
    lease = broker.ready()
    record = broker.process_record(lease)
    broker.pause()
    os.kill(record["driver_pid"], signal.SIGKILL)
    tools.until("the shim to end", lambda: not tools.alive(record["pid"]))
    broker.kill()
    broker.start()
    lost = broker.until_ended(lease.name)
    assert (lost.reason, lost.exit.signal) == (pb.LEASE_REASON_DRIVER_LOST, "SIGKILL")
    broker.until_nothing_is_left()


@pytest.mark.promise(6)
def test_a_state_folder_that_was_emptied_but_for_its_key_ends_what_runs(broker, tools):
    """No record of any driver is left: what runs is unknown, and it is ours."""
    leases = [broker.ready() for _ in range(2)]
    broker.kill()
    for path in broker.state.glob("broker.db*"):
        path.unlink()
    assert len(broker.processes()) == 4
    broker.start()
    # They are charged to the pool, and to no queue.
    tools.until("what runs to be ended", lambda: not broker.processes())
    broker.until_nothing_is_left()
    assert tools.refused(lambda: broker.get(leases[0].name)).reason == "NOT_FOUND"
    broker.release(broker.ready().name)


@pytest.mark.promise(6)
def test_what_is_another_brokers_is_not_touched(make_broker):
    one, other = make_broker().start(), make_broker().start()
    lease = one.ready(ttl=Duration(seconds=60))
    record = one.process_record(lease)
    mine = other.ready()
    other.kill()
    other.start()
    other.release(mine.name)
    other.until_nothing_is_left()
    assert one.process_record(lease) == record
    assert len(one.processes()) == 2
    assert one.get(lease.name).state == pb.LEASE_STATE_READY


@pytest.mark.parametrize(("umask", "drivers"), [(0o000, "0022"), (0o002, "0002"), (0o027, "0027")])
def test_nothing_that_a_broker_makes_is_for_others_whatever_its_umask(make_broker, umask, drivers):
    broker = make_broker(umask=umask).start()
    lease = broker.ready()
    broker.attach(lease.name)
    driver = broker.process_record(lease)["driver_pid"]
    status = Path(f"/proc/{driver}/status").read_text()
    assert f"Umask:\t{drivers}\n" in status
    made = [broker.state, *broker.state.rglob("*")]
    made += [path for folder in broker.folder.glob("sparkbroker-*") for path in (folder, *folder.rglob("*"))]
    assert len(made) > 15
    assert not [path for path in made if path.lstat().st_mode & 0o077]
    broker.release(lease.name)
    broker.until_nothing_is_left()
