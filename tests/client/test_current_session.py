"""Libraries ask pyspark for "the" session. Real pyspark, and a server that is just there: no session is used."""

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from sparkbroker.v1 import broker_pb2 as pb

pytestmark = [pytest.mark.timeout(100)]


@pytest.fixture
def endpoint() -> Iterator[str]:
    """Accepts connections, and knows no call."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"sc://127.0.0.1:{port}/"
    server.stop(None)


@pytest.fixture
def run(broker: Any, endpoint: str, script: Callable[..., Any]) -> Callable[..., str]:
    pytest.importorskip("pyspark.sql.connect.client", exc_type=ImportError)
    broker.connection = lambda name: pb.GetConnectionResponse(
        connect=pb.ConnectConnection(endpoint=endpoint, session_id=str(uuid.uuid4()), user_id="ann")
    )

    def do(text: str) -> str:
        done = script(HEAD + text, broker.url, endpoint, timeout=90)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    return do


HEAD = """
import asyncio, sys, threading
import faulthandler; faulthandler.dump_traceback_later(60, exit=True)
from concurrent.futures import ThreadPoolExecutor
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession
from pyspark.sql.connect.session import SparkSession as ConnectSession
from sparkbroker.client import AsyncBroker, Broker, LeaseLost, SessionEnded, SparkbrokerError

URL, ENDPOINT = sys.argv[1:]

def both():
    return SparkSession.builder.getOrCreate(), SparkSession.getActiveSession(), ConnectSession.builder.getOrCreate()

def refused(kind, what):
    try:
        what()
    except kind as error:
        return str(error)
    raise AssertionError("not refused")

def in_thread(work):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()

before = ThreadPoolExecutor(1)
before.submit(int).result()
"""

FOUND = """
with Broker(URL) as b:
    with b.session() as spark:
        assert both() == (spark,) * 3
        assert before.submit(both).result() == (spark,) * 3
        assert in_thread(both) == (spark,) * 3
        assert SparkSession.builder.master("local[4]").getOrCreate() is spark
        assert SparkSession.builder.remote("sc://elsewhere:1").getOrCreate() is spark
        assert SparkSession.active() is spark
    assert SparkSession.getActiveSession() is None
    for ask in (SparkSession.builder.getOrCreate, ConnectSession.builder.getOrCreate):
        assert "has ended with its lease" in refused(SessionEnded, ask)
        assert "has ended with its lease" in in_thread(lambda: refused(SessionEnded, ask))
    with b.session() as again:
        assert both() == (again,) * 3
print("done")
"""


def test_it_is_found_in_every_thread_and_after_its_end_that_is_said(run: Callable[..., str]) -> None:
    assert run(FOUND) == "done\n"


SEVERAL = """
with Broker(URL) as b, b.session() as outer:
    with b.session() as inner:
        assert both() == (inner,) * 3
        assert in_thread(both) == (inner,) * 3
    assert both() == (outer,) * 3
    assert before.submit(both).result() == (outer,) * 3

    opened, ask, end = threading.Event(), threading.Event(), []

    def other():
        with b.session() as own:
            opened.set()
            assert ask.wait(30)
            end.append(both() == (own,) * 3)

    thread = threading.Thread(target=other)
    thread.start()
    assert opened.wait(30)
    assert both() == (outer,) * 3, "another thread's lease is its own"
    ask.set()
    thread.join()
    assert end == [True]

    # A session that has ended by itself is told, and not replaced by the outer one.
    with b.lease() as lease:
        spark = lease.open_session()
        spark.stop()
        assert "the program has stopped it" in refused(SessionEnded, SparkSession.builder.getOrCreate)
        assert SparkSession.getActiveSession() is None
        assert "the program has stopped it" in refused(SessionEnded, spark.range(1).count)
        again = lease.open_session()
        assert again is not spark
        assert again.session_id != spark.session_id
        assert both() == (again,) * 3
    assert both() == (outer,) * 3
    assert "closed with its lease" in refused(SessionEnded, again.range(1).count)
print("done")
"""


def test_the_innermost_wins_and_none_stands_in_for_another(run: Callable[..., str]) -> None:
    assert run(SEVERAL) == "done\n"


ASYNC = """
async def task(b, barrier):
    async with b.session() as spark:
        await barrier.wait()
        same = both() == (spark,) * 3 and await asyncio.to_thread(both) == (spark,) * 3
        await barrier.wait()
        return same

async def main():
    async with AsyncBroker(URL) as b:
        barrier = asyncio.Barrier(3)
        assert await asyncio.gather(*(task(b, barrier) for _ in range(3))) == [True] * 3
        async with b.session() as spark:
            assert both() == (spark,) * 3
            assert before.submit(both).result() == (spark,) * 3
        refused(SessionEnded, SparkSession.builder.getOrCreate)

asyncio.run(main())
print("done")
"""


def test_each_task_has_its_own(run: Callable[..., str]) -> None:
    assert run(ASYNC) == "done\n"


FOREIGN = """
own = ConnectSession.builder.remote(ENDPOINT).create()
assert both() == (own,) * 3 or True
with Broker(URL) as b, b.session() as spark:
    assert both() == (spark,) * 3
    second = SparkSession.builder.remote(ENDPOINT).create()
    assert second not in (spark, own)
    assert both() == (spark,) * 3
assert not own.is_stopped and not second.is_stopped
assert ConnectSession.getActiveSession() is own
assert ConnectSession.builder.getOrCreate() is own
assert SparkSession.active() is own
# Pyspark's own answer where a Connect session is open, and not a JVM in this process.
assert "CONNECT_URL_NOT_SET" in refused(PySparkRuntimeError, SparkSession.builder.getOrCreate)
own.client.close()
second.client.close()
refused(SessionEnded, ConnectSession.builder.getOrCreate)
third = ConnectSession.builder.remote(ENDPOINT).getOrCreate()
assert third is not own
third.client.close()
print("done")
"""


def test_a_session_of_the_programs_own_is_let_alone(run: Callable[..., str]) -> None:
    assert run(FOREIGN.replace("assert both() == (own,) * 3 or True\n", "")) == "done\n"


LOST = """
lost = threading.Event()
b = Broker(URL, on_lost=lambda lease: lost.set())
lease = b.acquire()
lease.wait_ready()
spark = lease.open_session()
print("up", flush=True)
assert lost.wait(60)
refused(LeaseLost, SparkSession.builder.getOrCreate)
print(in_thread(lambda: refused(LeaseLost, both)))
assert SparkSession.getActiveSession() is None
lease.release()
refused(SessionEnded, SparkSession.builder.getOrCreate)
b.close()
"""


@pytest.mark.promise(9)
def test_a_lost_one_is_told_as_lost(broker: Any, run: Callable[..., str], endpoint: str, popen: Any) -> None:
    broker.ttl = 0.9
    process = popen(
        [sys.executable, "-c", HEAD + LOST, broker.url, endpoint],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "up\n", process.stderr.read()
    broker.move(broker.live()[0], pb.LEASE_STATE_PREEMPTED, 0, "for a larger one")
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "for a larger one" in out
