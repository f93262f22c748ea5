"""Real Spark sessions while their broker is killed again and again: they go on, and so do their queries."""

import contextlib
import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import java

ROUNDS = 10
WAIT = 90.0
CONFIG = """
shared_trust = true
[server]
log_format = "json"
[leases]
ttl = "20s"
wait_ttl = "120s"
[capacity.local]
cpu = "2"
memory = "4g"
[queues.default]
[profiles.default]
start_timeout = "90s"
{java}
[profiles.default.driver]
cores = 1
memory = "512m"
[store]
state_folder = "{state}"
"""
HOLDER = """
import sys, threading, time
from sparkbroker.client import Broker

number = int(sys.argv[2])
with Broker(sys.argv[1]) as broker:
    lease = broker.acquire()
    lease.wait_ready(timeout=150)
    with lease.session() as spark:
        from pyspark.sql import functions as F

        spark.range(number).createOrReplaceTempView("mine")
        print("ready", lease.name, flush=True)
        # It runs until it is told to end: one query after another, none of them may fail or be wrong.
        answers, wrong = 0, []
        stop, suspect = threading.Event(), threading.Event()
        threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()

        def look():  # a query may take longer than the broker is away
            while not (stop.wait(0.01) or suspect.is_set()):
                if lease.suspect:
                    suspect.set()
                    print("suspect", lease.name, flush=True)

        threading.Thread(target=look, daemon=True).start()
        while not stop.is_set():
            query = spark.range(20_000_000).select(F.sum(F.col("id") % 7)).collect()[0][0]
            answers += 1
            if query != EXPECTED:
                wrong.append(query)
        print("answers", answers, len(wrong), suspect.is_set(), flush=True)
        deadline = time.monotonic() + 20
        while lease.suspect and time.monotonic() < deadline:
            time.sleep(0.05)
        print("after", spark.sql("select count(*) from mine").collect()[0][0], repr(lease.suspect), flush=True)
"""
EXPECTED = sum(number % 7 for number in range(20_000_000 % 7)) + 20_000_000 // 7 * 21


def until(what, look, seconds=WAIT):
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            pytest.fail(f"still waiting after {seconds:g} s for {what}")
        time.sleep(0.02)
    return found


class Broker:
    def __init__(self, folder):
        self.state = folder / "state"
        self.socket = self.state / "run" / "broker.sock"
        self.log = folder / "broker.log"
        self.config = folder / "broker.toml"
        self.config.write_text(CONFIG.format(state=self.state, java=java.toml()))
        self.env = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder)}
        self.process: Any = None

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "sparkbroker.broker", "serve", "--config", str(self.config)],
                env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def listens(self):
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.connect(str(self.socket))
            return True
        assert self.process.poll() is None, self.log.read_text()
        return False

    def kill(self):
        self.process.kill()
        self.process.wait()

    def processes(self):
        """Pid -> command line of what its drivers are made of."""
        try:
            key = (self.state / "key").read_bytes()
        except FileNotFoundError:
            return {}
        mark = b"SPARKBROKER_OWNER=" + hashlib.sha256(b"owner\0" + key).hexdigest()[:16].encode()
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return {pid: command for pid, command in found.items() if command}  # a zombie has none

    def javas(self):
        return {pid for pid, command in self.processes().items() if command.split(" ")[0].endswith("/java")}

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.kill()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until("the drivers to end", lambda: not self.processes())


@pytest.fixture
def broker(state_folder):
    made = Broker(state_folder)
    yield made
    made.close()


@pytest.fixture
def hold(broker):
    holders: list[Any] = []

    def make(number):
        code = HOLDER.replace("EXPECTED", str(EXPECTED))
        holders.append(
            subprocess.Popen(
                [sys.executable, "-P", "-c", code, f"unix://{broker.socket}", str(number)],
                env=broker.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
        return holders[-1]

    yield make
    for holder in holders:
        if holder.poll() is None:
            holder.kill()
        for stream in (holder.stdin, holder.stdout, holder.stderr):
            with contextlib.suppress(OSError):
                stream.close()
        holder.wait()


def read(holder, word):
    line = holder.stdout.readline().split(" ")
    if line[0] != word:
        pytest.fail(f"{' '.join(line)}{holder.communicate()[1]}")
    return [part.strip() for part in line[1:]]


@pytest.mark.spark
@pytest.mark.promise(4)
@pytest.mark.promise(6)
@pytest.mark.promise(9)
@pytest.mark.timeout(280)
def test_sessions_and_their_queries_outlive_10_kills_of_the_broker(broker, hold):
    chance = random.Random(os.environ.get("PYTEST_XDIST_TESTRUNUID", "spark"))
    broker.start()
    until("the broker to listen", broker.listens)
    holders = {1000 + number: hold(1000 + number) for number in range(2)}
    for holder in holders.values():
        read(holder, "ready")
    javas = broker.javas()
    assert len(javas) == 2
    for number in range(ROUNDS):
        broker.kill()
        assert broker.javas() == javas
        if not number:  # Away until both have noticed: in a short time none of them may renew.
            for holder in holders.values():
                read(holder, "suspect")
        broker.start()
        if chance.random() < 0.8:
            until("the broker to listen", broker.listens)
    until("the broker to listen", broker.listens)
    assert broker.javas() == javas, "a session was replaced"
    for holder in holders.values():
        holder.stdin.write("end\n")
        holder.stdin.flush()
    for number, holder in holders.items():
        answers, wrong, suspect = read(holder, "answers")
        assert int(answers) >= 1
        assert wrong == "0"
        assert suspect == "True", "the client did not notice that its broker was away"
        assert read(holder, "after") == [str(number), "''"], "its session is another one, or it is still suspect"
        assert holder.wait(60) == 0, holder.stderr.read()
    until("the drivers to end", lambda: not broker.processes())
    broker.process.terminate()
    assert broker.process.wait(30) == 0
    assert "Traceback" not in broker.log.read_text()
    assert not list(broker.state.parent.glob("sparkbroker-*/*/*")), "scratch folders are left"
