"""Broker, the blocking client: threads, loops, forks, interrupts and the interpreter's end."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sparkbroker.client import AcquireFailed, Broker, BrokerUnreachable, ClientClosed, LeaseLost, SparkbrokerError
from sparkbroker.v1 import broker_pb2 as pb


def test_with_and_without_with(broker: Any) -> None:
    seen: list[str] = []
    with Broker(broker.url) as b:
        with b.lease(
            cores=1, on_progress=lambda p: seen.append(f"{p.state} in {threading.current_thread().name}")
        ) as one:
            assert one.attached
            assert repr(one).startswith(f"<Lease {one.name} [READY, attached")
        two = b.acquire(cores=1)
        two.wait_ready()
        two.attach()
        assert broker.live() == [two.name]
        assert "s3cret" in two.connection().url()  # type: ignore[union-attr]
        assert two.release()
        assert two.release(), "idempotent"
        assert [lease.name for lease in b.list()] == [one.name, two.name]
        assert b"".join(b.logs(one.name)) == b"".join(one.logs()) == b"one\ntwo\nthree\n"
        assert [u.event.state for u in b.watch(one.name, 1)][-1] == pb.LEASE_STATE_RELEASED
    assert seen == ["READY in MainThread"]
    assert not broker.live()
    with pytest.raises(ClientClosed):
        b.queues()


async def test_inside_a_running_loop(broker: Any) -> None:
    with Broker(broker.url) as b, b.lease() as lease:
        assert lease.attached
    assert not broker.live()


def test_from_many_threads_at_once(broker: Any) -> None:
    with Broker(broker.url) as b:

        def use(number: int) -> str:
            with b.lease(key=f"k{number}") as lease:
                return lease.name

        with ThreadPoolExecutor(8) as pool:
            names = list(pool.map(use, range(24)))
    assert len(set(names)) == 24
    assert not broker.live()


def test_a_lost_lease_is_raised_where_it_is_seen(broker: Any) -> None:
    broker.ttl = 0.3
    told: list[Any] = []
    calls: list[str] = []

    def lost(lease: Any) -> None:
        calls.append(b.get(lease.name).message)  # a callback may use the client
        told.append(lease)

    with Broker(broker.url, on_lost=lost) as b:
        with pytest.raises(LeaseLost, match="out of luck") as caught, b.lease() as lease:  # noqa: PT012
            broker.move(lease.name, pb.LEASE_STATE_FAILED, 18, "out of luck")
            broker.until(lambda: told)
            with pytest.raises(LeaseLost):
                lease.connection()
        assert told == [lease]
        assert calls == ["out of luck"]
        assert caught.value.reason == "DRIVER_LOST"


def test_errors_cross_the_threads(broker: Any) -> None:
    broker.ready_at_once = False
    with Broker(broker.url) as b:
        lease = b.acquire()
        broker.move(lease.name, pb.LEASE_STATE_FAILED, 17, "no Java")
        with pytest.raises(AcquireFailed, match="no Java"):
            lease.wait_ready()


def test_a_blocking_call_in_the_clients_own_loop_is_refused_not_a_deadlock(broker: Any) -> None:
    from sparkbroker.client._portal import portal

    with Broker(broker.url) as b:

        async def wrong() -> None:
            b.queues()

        with pytest.raises(SparkbrokerError, match="own event loop"):
            portal().call(wrong())


def test_a_dead_broker_holds_nobody_up(broker: Any) -> None:
    with Broker(broker.url, patience=0.5) as b:
        lease = b.acquire()
        lease.attach()
        broker.stop()
        with pytest.raises(BrokerUnreachable):
            b.queues()
        assert not lease.release(timeout=0.5)


INTERRUPTED = """
import os, signal, sys, threading
from sparkbroker.client import Broker
with Broker(sys.argv[1]) as b:
    with b.lease() as lease:
        lease.wait_ready()
        print("up", flush=True)
        threading.Event().wait()
"""


def test_an_interrupt_while_it_waits_for_the_broker_leaves_nothing(broker: Any, popen: Any) -> None:
    broker.ready_at_once = False
    process = popen([sys.executable, "-c", INTERRUPTED, broker.url], stderr=subprocess.PIPE, text=True)
    broker.until(lambda: broker.called("WatchLease"))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert not broker.live()


def test_an_interrupt_during_the_acquire_leaves_nothing(broker: Any, popen: Any) -> None:
    arrived = broker.hold("AcquireLease")
    process = popen([sys.executable, "-c", INTERRUPTED, broker.url], stderr=subprocess.PIPE, text=True)
    assert arrived.wait(20)
    process.send_signal(signal.SIGINT)
    broker.until(lambda: len(broker.called("AcquireLease")) == 2, "the replay that finds out what was made")
    broker.unhold("AcquireLease")
    _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert len(broker.leases) == 1
    assert not broker.live()


def test_an_interrupt_of_the_body_releases_and_a_second_one_does_not_hang(broker: Any, popen: Any) -> None:
    process = popen(
        [sys.executable, "-c", INTERRUPTED, broker.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    arrived = broker.hold("ReleaseLease")
    process.send_signal(signal.SIGINT)
    assert arrived.wait(20)
    process.send_signal(signal.SIGINT)
    broker.unhold("ReleaseLease")
    process.communicate(timeout=30)
    broker.until(lambda: not broker.live())


def test_what_was_never_released_is_released_at_exit(broker: Any, script: Callable[..., Any]) -> None:
    done = script(
        "import sys\nfrom sparkbroker.client import Broker\n"
        "lease = Broker(sys.argv[1]).acquire()\nlease.attach()\nprint(lease.name)",
        broker.url,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() in broker.leases
    assert not broker.live()


FORK = """
import os, sys, threading, warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
from sparkbroker.client import Broker, LeaseLost, WrongProcess

def child(b, lease):
    try:
        lease.connection()
    except WrongProcess as error:
        assert "belongs to process" in str(error)
    else:
        raise AssertionError("the parent's lease worked in the child")
    seen = []
    with b.lease(key="child", on_progress=lambda p: seen.append(p.state)) as own:
        assert own.attached and own.name != lease.name, own
        own.connection()
        [queue.name for queue in b.queues()]
        threading.Event().wait(1.0)
        assert not own.suspect, own.suspect
        assert own.lost is None
    assert seen[-1] == "READY", seen
    lease.__exit__(None, None, None)

b = Broker(sys.argv[1], token="t")
how = sys.argv[2]
with b.lease(key="parent") as lease:
    if how == "fork":
        pid = os.fork()
        if pid == 0:
            try:
                child(b, lease)
            except BaseException:
                import traceback
                traceback.print_exc()
                os._exit(1)
            sys.exit(0)  # with the interpreter's usual end, atexit and all
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    else:
        import multiprocessing
        process = multiprocessing.get_context("fork").Process(target=child, args=(b, lease))
        process.start()
        process.join()
        status = process.exitcode
    assert status == 0, status
    lease.connection()
    print("parent still has it" if lease.attached else "lost")
"""


@pytest.mark.parametrize("how", ["fork", "multiprocessing"])
def test_after_a_fork_the_child_connects_anew_and_the_parents_lease_is_left_alone(
    broker: Any, script: Callable[..., Any], how: str
) -> None:
    broker.ttl = 0.9
    done = script(FORK, broker.url, how)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "parent still has it\n"
    assert not broker.live()
    assert {lease.key for lease in broker.leases.values()} == {"parent", "child"}
    assert [request.name for request in broker.called("ReleaseLease")] == [
        next(lease.name for lease in broker.leases.values() if lease.key == key) for key in ("child", "parent")
    ], "each by its own process, once"


FORKS = """
import collections, os, sys, threading, warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
from sparkbroker.client import Broker

def child(b):
    with b.lease() as own:
        own.connection()

suspect, errors, calls, stop = [], [], collections.Counter(), threading.Event()
b = Broker(sys.argv[1], on_suspect=suspect.append)

def work(name, call):
    try:
        while not stop.is_set():
            call()
            calls[name] += 1
    except BaseException as error:
        errors.append((name, error))

def lease_another():
    with b.lease() as other:
        other.connection()

with b.lease() as lease:
    threads = [threading.Thread(target=work, args=arguments) for arguments in (
        ("read", b.queues), ("lease", lease_another), ("logs", lambda: b"".join(b.logs(lease.name))),
    )]
    watch = threading.Thread(target=lambda: [calls.update(watch=1) for _ in b.watch(lease.name)])
    for thread in (*threads, watch):
        thread.start()
    for number in range(60):
        # Many that do nothing, so that the parent is interrupted again before it has done much; some that do all.
        busy = number % 4 == 0
        pid = os.fork()
        if pid == 0:
            if busy:
                child(b)
            sys.exit(0) if busy else os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status == 0, (number, status)
    stop.set()
    for thread in threads:
        thread.join()
    lease.connection()
watch.join()
assert not errors, errors
assert not suspect, suspect
assert calls["read"] and calls["lease"] and calls["logs"], calls
assert calls["watch"] >= 2, calls
"""


def test_forks_in_the_midst_of_calls_harm_neither_the_children_nor_the_calls(
    broker: Any, script: Callable[..., Any]
) -> None:
    broker.ttl = 4.0
    done = script(FORKS, broker.url)
    assert done.returncode == 0, done.stderr
    assert not broker.live()


FORK_IN_THE_LOOP = """
import asyncio, os, sys, warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
from sparkbroker.client import AsyncBroker

async def main():
    async with AsyncBroker(sys.argv[1]) as b, b.lease() as lease:
        def fork():
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert [fork(), await asyncio.to_thread(fork)] == [0, 0]
        await lease.connection()
        print("attached" if lease.attached else "lost")

asyncio.run(main())
"""


def test_an_asynchronous_parent_may_fork_in_its_loop_and_beside_it(broker: Any, script: Callable[..., Any]) -> None:
    done = script(FORK_IN_THE_LOOP, broker.url)
    assert (done.returncode, done.stdout) == (0, "attached\n"), done.stderr
    assert not broker.live()


async def test_the_transport_of_forked_children_does_all_that_the_usual_one_does(
    broker: Any, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here without a fork, so that it can be looked at closely."""
    import grpc

    from sparkbroker import client
    from sparkbroker.client import _async_broker

    monkeypatch.setattr(_async_broker, "forked_with_grpc", lambda: True)
    broker.ttl = 0.4
    broker.faults["AcquireLease"] = [fault(grpc.StatusCode.UNAVAILABLE, after=True)]
    broker.faults["StreamLogs"] = [fault(grpc.StatusCode.UNAVAILABLE)]
    async with client.AsyncBroker(broker.url, token="s3cret") as b:
        async with b.lease() as lease:
            await lease.connection()
            assert b"".join([piece async for piece in lease.logs()]) == b"one\ntwo\nthree\n"
            with pytest.raises(client.LeaseNotFound):
                await b.get("leases/none")
            seen = len(broker.called("KeepAlive"))
            async with asyncio.timeout(20):
                while len(broker.called("KeepAlive")) < seen + 3:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(broker.stop)
            async with asyncio.timeout(20):
                while not lease.suspect:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(broker.start)
            async with asyncio.timeout(20):
                while lease.suspect:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        arrived = broker.hold("GetLease")
        task = asyncio.ensure_future(b.get("leases/x"))
        assert await asyncio.to_thread(arrived.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        broker.unhold("GetLease")
    assert len(broker.leases) == 1
    assert not broker.live()


@pytest.mark.parametrize("dead", [False, True])
def test_the_interpreter_ends_in_time(broker: Any, popen: Any, dead: bool, state_folder: Path) -> None:
    program = (
        "import sys\nfrom sparkbroker.client import Broker\nb = Broker(sys.argv[1])\nlease = b.acquire()\nlease.attach()\n"
        "print('up', flush=True)\nsys.stdin.read()"
    )
    process = popen(
        [sys.executable, "-c", program, broker.url],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=state_folder,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    if dead:
        broker.stop()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert ("ends by its time to live" in errors) == dead
