"""AsyncBroker against a broker that speaks real gRPC and fails on purpose."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from sparkbroker import client
from sparkbroker.broker.rpc import parse
from sparkbroker.client import AsyncBroker, Progress
from sparkbroker.client._rpc import MAX_OFFSETS, _note_offset
from sparkbroker.v1 import broker_pb2 as pb

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


async def until(condition: Callable[[], Any], what: str = "it") -> Any:
    async with asyncio.timeout(20):
        while not (value := condition()):  # noqa: ASYNC110  what is waited for is in another thread
            await asyncio.sleep(0.01)
    return value


async def in_thread(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 20), "the call did not arrive"


async def test_a_lease_is_acquired_used_and_released(broker: Any) -> None:
    seen: list[Progress] = []
    async with AsyncBroker(broker.url) as b, b.lease(cores=2, memory="2g", on_progress=seen.append) as lease:
        assert lease.state == "READY"
        assert lease.attached
        assert repr(lease) == f"<AsyncLease {lease.name} [READY, attached as generation 1]>"
        assert repr(b) == f"<AsyncBroker {broker.url} [1 attached]>"
        connection = await lease.connection()
        assert isinstance(connection, client.ConnectConnection)
        assert "s3cret" not in repr(connection)
        assert "s3cret" in connection.url()
    assert broker.leases[lease.name].state == pb.LEASE_STATE_RELEASED
    assert broker.called("ReleaseLease")[0].generation == 1
    assert [p.state for p in seen] == ["READY"]
    with pytest.raises(client.LeaseEnded, match="released by this program"):
        await lease.connection()
    with pytest.raises(client.ClientClosed):
        await b.get(lease.name)


async def test_progress_tells_position_reason_and_phases(broker: Any) -> None:
    broker.ready_at_once = False
    seen: list[Progress] = []
    async with AsyncBroker(broker.url) as b:
        lease = await b.acquire()
        waiting = asyncio.ensure_future(lease.wait_ready(seen.append))
        await until(lambda: broker.called("WatchLease"))
        broker.progress(lease.name, position=3, queue_length=5, blocking_reason=1, message="8 of 8 cores are in use")
        await until(lambda: any(p.position == 3 for p in seen))
        starting = pb.LEASE_REASON_STARTING
        broker.progress(lease.name, blocking_reason=starting, message="the driver is being created")
        await until(lambda: seen[-1].reason == "STARTING")
        assert seen[-1].state == "PROVISIONING"
        broker.move(lease.name, pb.LEASE_STATE_PROVISIONING, starting, "starting")
        broker.move(lease.name, pb.LEASE_STATE_READY, 8, "serving")
        await waiting
        await lease.release()
    told = [(p.state, p.reason, p.position, p.queue_length) for p in seen]
    assert told[-4:] == [
        ("QUEUED", "QUEUE_QUOTA", 3, 5),
        ("PROVISIONING", "STARTING", 0, 0),
        ("PROVISIONING", "STARTING", 0, 0),
        ("READY", "SERVING", 0, 0),
    ]


async def test_a_watch_resumes_by_revision_and_misses_and_repeats_nothing(broker: Any, fault: Any) -> None:
    broker.ready_at_once = False
    broker.end_streams_after = 1
    broker.faults["WatchLease"] = [fault(UNAVAILABLE, times=2)]
    async with AsyncBroker(broker.url) as b:
        lease = await b.acquire()
        for number in range(1, 5):
            broker.move(lease.name, pb.LEASE_STATE_PROVISIONING, 6, f"event {number}")
        broker.move(lease.name, pb.LEASE_STATE_RELEASED)
        first = broker.updates[lease.name][0].revision
        got = [u.event async for u in b.watch(lease.name, first) if u.HasField("event")]
    assert [event.message for event in got] == ["event 1", "event 2", "event 3", "event 4", ""]
    resumed = [request.after_revision for request in broker.called("WatchLease")]
    assert len(set(resumed)) >= 5


async def test_a_lost_answer_makes_no_second_lease(broker: Any, fault: Any) -> None:
    broker.faults["AcquireLease"] = [fault(UNAVAILABLE, times=2, after=True)]
    broker.faults["AttachLease"] = [fault(UNAVAILABLE, times=1, after=True)]
    async with AsyncBroker(broker.url) as b, b.lease(cores=1) as lease:
        assert lease.generation == 1
    assert len(broker.leases) == 1
    assert len({request.request_id for request in broker.called("AcquireLease")}) == 1
    assert len(broker.called("AcquireLease")) == 3


async def test_the_brokers_delay_is_kept(broker: Any, fault: Any) -> None:
    broker.faults["AcquireLease"] = [fault(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="TOO_MANY", retry_after=100.0)]
    async with AsyncBroker(broker.url, patience=5) as b:
        with pytest.raises(client.TooManyRequests) as caught:
            await b.acquire()
    assert caught.value.retry_after == 100
    assert len(broker.called("AcquireLease")) == 1, "more than remains: no further try"


async def test_what_the_broker_refuses_is_not_tried_again(broker: Any, fault: Any) -> None:
    broker.faults["AcquireLease"] = [
        fault(grpc.StatusCode.INVALID_ARGUMENT, reason="INVALID_FIELD", metadata={"field": "spec.driver.memory"})
    ]
    async with AsyncBroker(broker.url) as b:
        with pytest.raises(client.InvalidRequest) as caught:
            await b.acquire(memory="2gg")
    assert caught.value.field == "spec.driver.memory"
    assert len(broker.called("AcquireLease")) == 1


async def test_a_broker_that_is_not_there_is_an_error_in_time(state_folder: Any) -> None:
    async with AsyncBroker(f"unix://{state_folder}/none.sock", patience=0.5) as b:
        with pytest.raises(client.BrokerUnreachable, match=r"none\.sock"):
            await b.acquire()
        with pytest.raises(client.BrokerUnreachable):
            await anext(b.watch("leases/x"))


async def test_a_lease_that_fails_to_start_says_how(broker: Any) -> None:
    broker.ready_at_once = False
    async with AsyncBroker(broker.url) as b:
        lease = await b.acquire()
        end = pb.DriverExit(exit_code=1, log_tail=["Error: no such class"])
        broker.move(lease.name, pb.LEASE_STATE_FAILED, 17, "the driver ended", exit=end)
        with pytest.raises(client.AcquireFailed, match="no such class") as caught:
            await lease.wait_ready()
    assert (caught.value.state, caught.value.reason, caught.value.exit_code) == ("FAILED", "START_FAILED", 1)


async def test_both_sides_acquire_timeouts(broker: Any) -> None:
    broker.ready_at_once = False
    async with AsyncBroker(broker.url) as b:
        with pytest.raises(client.AcquireTimeout, match="not ready within"):
            async with b.lease(timeout=0.2):
                raise AssertionError("it is not ready")
        assert not broker.live(), "giving up gives it back"
        lease = await b.acquire()
        broker.move(lease.name, pb.LEASE_STATE_EXPIRED, 15, "acquire_timeout passed")
        with pytest.raises(client.AcquireTimeout):
            await lease.wait_ready()


async def test_what_a_progress_callback_raises_ends_the_waiting(broker: Any) -> None:
    def stop(progress: Progress) -> None:
        raise ZeroDivisionError

    async with AsyncBroker(broker.url) as b:
        with pytest.raises(ZeroDivisionError):
            async with b.lease(on_progress=stop):
                raise AssertionError
    assert not broker.live()


@pytest.mark.promise(8)
@pytest.mark.parametrize("method", ["AcquireLease", "WatchLease", "AttachLease", "GetConnection"])
async def test_cancelled_at_each_await_nothing_is_left(broker: Any, method: str) -> None:
    arrived = broker.hold(method)

    async def work(b: AsyncBroker) -> None:
        if method == "WatchLease":
            broker.ready_at_once = False
        async with b.lease(cores=1) as lease:
            await lease.connection()
            await asyncio.Event().wait()

    async with AsyncBroker(broker.url) as b:
        task = asyncio.ensure_future(work(b))
        await in_thread(arrived)
        task.cancel()
        broker.unhold(method)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not broker.live()
    assert len(broker.leases) == 1
    assert not [t for t in asyncio.all_tasks() if t.get_name().startswith("sparkbroker")]


@pytest.mark.parametrize("delay", range(12))
async def test_cancelled_after_any_number_of_steps_nothing_is_left(broker: Any, delay: int) -> None:
    async def work(b: AsyncBroker) -> None:
        async with b.lease(cores=1) as lease:
            await lease.connection()

    async with AsyncBroker(broker.url) as b:
        task = asyncio.ensure_future(work(b))
        for _ in range(delay * 3):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert not broker.live()


async def test_cancelled_a_joined_lease_stays_with_those_who_have_it(broker: Any) -> None:
    async with AsyncBroker(broker.url) as first, AsyncBroker(broker.url) as second:  # noqa: SIM117
        async with first.lease(key="k", sharing="SHARED") as lease:
            arrived = broker.hold("AcquireLease")
            task = asyncio.ensure_future(second.acquire(key="k", on_existing="REATTACH", sharing="SHARED"))
            await in_thread(arrived)
            task.cancel()
            broker.unhold("AcquireLease")
            with pytest.raises(asyncio.CancelledError):
                await task
            assert broker.live() == [lease.name]
            async with second.lease(key="k", on_existing="REATTACH", sharing="SHARED") as shared:
                assert shared.name == lease.name
                assert shared.generation != lease.generation
            assert broker.live() == [lease.name], "only its attachment was given back"


async def test_acquired_without_attaching_it_is_left_to_whoever_attaches(broker: Any) -> None:
    async with AsyncBroker(broker.url) as trigger:
        lease = await trigger.acquire(cores=1)
        await lease.wait_ready()
    assert broker.live() == [lease.name]
    async with AsyncBroker(broker.url) as worker, await worker.open(lease.name) as own:
        await own.connection()
        assert own.attached
    assert not broker.live()


async def test_one_stream_renews_all(broker: Any) -> None:
    broker.ttl = 0.3
    async with AsyncBroker(broker.url) as b:
        leases = [await b.acquire() for _ in range(5)]
        for lease in leases:
            await lease.attach()
        await until(lambda: any(len(request.renewals) >= 2 for request in broker.called("KeepAlive")))
        renewed = len(broker.called("KeepAlive"))
        await until(lambda: len(broker.called("KeepAlive")) > renewed + 3)
        assert broker.streams == 1
        await leases[0].release()
        # Some may have been on their way when the lease was released.
        others = {lease.name for lease in leases[1:]}
        await until(lambda: {each.name for each in broker.called("KeepAlive")[-1].renewals} <= others)
        seen = len(broker.called("KeepAlive"))

        def renewed_since() -> set[str]:
            return {each.name for request in broker.called("KeepAlive")[seen:] for each in request.renewals}

        # Each has times of its own: one request needn't renew them all.
        await until(lambda: len(broker.called("KeepAlive")) > seen + 2 and renewed_since() >= others)
        assert renewed_since() == others, "what was released is renewed no more"
    assert not broker.live(), "closing the client releases what is attached"


@pytest.mark.promise(3)
async def test_suspect_while_the_broker_is_away_and_resumed_when_it_is_back(broker: Any) -> None:
    broker.ttl = 0.6
    told: list[str] = []
    async with AsyncBroker(
        broker.url, on_suspect=lambda _: told.append("suspect"), on_resumed=lambda _: told.append("resumed")
    ) as b:
        lease = await b.acquire()
        await lease.attach()
        await until(lambda: broker.called("KeepAlive"))
        await asyncio.to_thread(broker.stop)
        await until(lambda: lease.suspect)
        assert lease.lost is None
        assert "suspect" in repr(lease)
        await asyncio.to_thread(broker.start)
        await until(lambda: not lease.suspect)
        assert told == ["suspect", "resumed"]
        await lease.connection()
        assert await lease.release()


@pytest.mark.promise(3)
async def test_suspect_when_the_broker_accepts_and_says_nothing(broker: Any) -> None:
    broker.ttl = 0.6
    broker.answer_renewals = False
    async with AsyncBroker(broker.url) as b:
        lease = await b.acquire()
        await lease.attach()
        await until(lambda: lease.suspect)
        broker.answer_renewals = True
        await until(lambda: not lease.suspect)
        await lease.release()


async def test_a_server_that_ends_streams_in_good_order_makes_nothing_suspect(broker: Any, fault: Any) -> None:
    broker.ttl = 0.3
    told: list[str] = []
    async with AsyncBroker(broker.url, on_suspect=lambda _: told.append("suspect")) as b:
        lease = await b.acquire()
        await lease.attach()
        await until(lambda: broker.streams)
        await until(lambda: len(broker.called("KeepAlive")) >= 2)
        broker.faults["KeepAlive"] = [fault(UNAVAILABLE, times=1)]
        streams = broker.streams
        await until(lambda: broker.streams > streams)
        await until(lambda: len(broker.called("KeepAlive")) >= 6)
        await lease.release()
    assert told == [], "one broken stream that can be made anew is no sign"


@pytest.mark.promise(9)
async def test_lost_is_told_with_the_reason_and_raised_at_use_and_at_the_end(broker: Any) -> None:
    broker.ttl = 0.3
    lost: list[Any] = []
    async with AsyncBroker(broker.url, on_lost=lost.append) as b:
        with pytest.raises(client.LeaseLost, match="killed by the kernel") as caught:  # noqa: PT012
            async with b.lease() as lease:
                end = pb.DriverExit(signal="SIGKILL", out_of_memory=True, log_tail=["bye"])
                broker.move(lease.name, pb.LEASE_STATE_FAILED, 19, "killed by the kernel", exit=end)
                await until(lambda: lost)
                with pytest.raises(client.LeaseLost, match="killed by the kernel"):
                    await lease.connection()
                assert "lost" in repr(lease)
        assert lost == [lease]
    error = caught.value
    assert (error.reason, error.state, error.signal, error.out_of_memory) == (
        "OUT_OF_MEMORY",
        "FAILED",
        "SIGKILL",
        True,
    )
    assert error.log_tail == ("bye",)
    assert not broker.called("ReleaseLease"), "there is nothing to release"


@pytest.mark.promise(2)
async def test_superseded_is_lost(broker: Any) -> None:
    broker.ttl = 0.3
    async with AsyncBroker(broker.url) as first, AsyncBroker(broker.url) as second:
        with pytest.raises(client.LeaseLost, match="superseded"):  # noqa: PT012
            async with first.lease(key="k") as lease:
                other = await second.open(lease.name)
                await other.attach()
                await until(lambda: lease.lost)
        assert broker.live() == [lease.name], "the new holder keeps it"
        assert other.attached
        await other.release()


async def test_an_error_of_the_body_comes_from_the_loss(broker: Any) -> None:
    async with AsyncBroker(broker.url) as b:
        with pytest.raises(client.LeaseLost) as caught:  # noqa: PT012
            async with b.lease() as lease:
                broker.move(lease.name, pb.LEASE_STATE_PREEMPTED, 0, "for a larger one")
                raise ValueError("the query failed")
        assert isinstance(caught.value.__cause__, ValueError)
        with pytest.raises(ValueError, match="its own"):
            async with b.lease():
                raise ValueError("its own")
    assert not broker.live()


@pytest.mark.parametrize("code", [13, 14, 8, 16])
async def test_no_other_refusal_ends_a_lease(broker: Any, code: int) -> None:
    broker.ttl = 0.3
    async with AsyncBroker(broker.url) as b, b.lease() as lease:
        broker.renewal_code[lease.name] = code
        await until(lambda: lease.suspect)
        assert lease.lost is None
        del broker.renewal_code[lease.name]
        await until(lambda: not lease.suspect)


async def test_a_notice_is_passed_on(broker: Any) -> None:
    broker.ttl = 0.3
    told: list[str] = []
    async with AsyncBroker(broker.url, on_notice=lambda lease: told.append(lease.notice)) as b, b.lease() as lease:
        broker.leases[lease.name].notice = "it ends in 5 minutes"
        await until(lambda: told)
        assert told == ["it ends in 5 minutes"]


async def test_a_callback_that_fails_stops_nothing(broker: Any, caplog: pytest.LogCaptureFixture) -> None:
    broker.ttl = 0.3

    def fail(lease: object) -> None:
        raise ZeroDivisionError

    async with AsyncBroker(broker.url, on_notice=fail) as b, b.lease() as lease:
        broker.leases[lease.name].notice = "soon"
        await until(lambda: lease.notice)
        seen = len(broker.called("KeepAlive"))
        await until(lambda: len(broker.called("KeepAlive")) > seen + 2)
    assert "a callback for" in caplog.text


async def test_releasing_to_a_dead_broker_gives_up_with_a_warning(
    broker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncBroker(broker.url) as b:
        lease = await b.acquire()
        await lease.attach()
        await asyncio.to_thread(broker.stop)
        async with asyncio.timeout(15):
            assert not await lease.release(timeout=0.5)
        assert "ends by its time to live" in caplog.text
        await asyncio.to_thread(broker.start)
        assert await lease.release(), "it can be tried again"
    assert not broker.live()


async def test_closing_ends_calls_under_way_as_closed(broker: Any) -> None:
    b = AsyncBroker(broker.url)
    arrived = broker.hold("GetLease")
    call = asyncio.ensure_future(b.get("leases/x"))
    await in_thread(arrived)
    await b.close()
    with pytest.raises(client.ClientClosed):
        await call
    broker.unhold("GetLease")
    await b.close()


async def test_what_the_command_line_reads(broker: Any) -> None:
    async with AsyncBroker(broker.url) as b:
        names = [(await b.acquire()).name for _ in range(8)]
        assert [lease.name for lease in await b.list()] == names, "all pages"
        assert [lease.name for lease in await b.list(limit=4)] == names[:4]
        assert [queue.name for queue in await b.queues()] == ["queues/default"]
        assert [profile.name for profile in await b.profiles()] == ["profiles/small"]
        assert b"".join([piece async for piece in b.logs(names[0])]) == b"one\ntwo\nthree\n"
        assert (await b.release(names[0], "enough")).state == pb.LEASE_STATE_RELEASED
        with pytest.raises(client.LeaseNotFound):
            await b.get("leases/none")


async def test_logs_resume_at_the_byte(broker: Any, fault: Any) -> None:
    broker.faults["StreamLogs"] = [fault(UNAVAILABLE)]
    async with AsyncBroker(broker.url) as b:
        lease = await b.acquire()
        assert b"".join([piece async for piece in b.logs(lease.name)]) == b"one\ntwo\nthree\n"


async def test_logs_of_a_driver_and_its_executors_resume_each_at_its_byte(broker: Any, fault: Any) -> None:
    broker.faults["StreamLogs"] = [fault(UNAVAILABLE)]
    async with AsyncBroker(broker.url) as b:
        name = (await b.acquire()).name
        found: dict[str, bytes] = {}
        async for piece in b.all_logs(name, tail_lines=10):
            found[piece.source] = found.get(piece.source, b"") + piece.data
        assert found == {"": b"one\ntwo\nthree\n", "e1": b"a\nb\n"}


def test_a_request_resumes_no_more_executors_than_the_broker_takes() -> None:
    resumed, heard = pb.StreamLogsRequest(executors=True), dict[str, None]()
    for number in range(MAX_OFFSETS):
        _note_offset(resumed, heard, pb.StreamLogsResponse(source=f"e{number}", next_offset=1))
    _note_offset(resumed, heard, pb.StreamLogsResponse(source="e0", next_offset=2))
    _note_offset(resumed, heard, pb.StreamLogsResponse(source="new", next_offset=1))
    assert len(resumed.executor_offsets) == MAX_OFFSETS
    assert resumed.executor_offsets["e0"] == 2
    assert "new" in resumed.executor_offsets
    assert "e1" not in resumed.executor_offsets, "silent for the longest"
    assert parse.executor_offsets(resumed) is not None


async def test_the_token_goes_with_every_call_and_into_no_log(broker: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    broker.ttl = 0.3
    async with AsyncBroker(broker.url, token="s3cret") as b, b.lease():
        await until(lambda: broker.called("KeepAlive"))
    assert {metadata["authorization"] for metadata in broker.metadata} == {"Bearer s3cret"}
    assert "s3cret" not in caplog.text


async def test_a_connection_that_died_silently_is_replaced(broker: Any, state_folder: Any) -> None:
    """As after a laptop's sleep: nothing comes through any more, and nobody says so."""
    frozen = asyncio.Event()
    pumps: list[asyncio.Task[None]] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stuck: asyncio.Event) -> None:
        try:
            while data := await reader.read(65536):
                if stuck.is_set():
                    await asyncio.Event().wait()
                writer.write(data)
        finally:
            writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stuck = frozen if not pumps else asyncio.Event()
        there, back = await asyncio.open_unix_connection(str(broker.socket))
        pumps.append(asyncio.ensure_future(pump(reader, back, stuck)))
        pumps.append(asyncio.ensure_future(pump(there, writer, stuck)))

    proxy = await asyncio.start_unix_server(accept, str(state_folder / "proxy.sock"))
    broker.ttl = 1.5
    async with AsyncBroker(f"unix://{state_folder}/proxy.sock") as b:
        lease = await b.acquire()
        await lease.attach()
        await until(lambda: broker.called("KeepAlive"))
        frozen.set()
        await until(lambda: lease.suspect)
        await until(lambda: not lease.suspect)
        assert await lease.release()
    proxy.close()
    for task in pumps:
        task.cancel()
    await asyncio.gather(*pumps, return_exceptions=True)
