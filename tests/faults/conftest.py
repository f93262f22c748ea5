"""A real broker in a process of its own, which tests may kill, stop, starve and feed with nonsense."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from sparkbroker.v1 import broker_pb2 as pb
from sparkbroker.v1 import broker_pb2_grpc as pb_grpc

SMALL: Final = str(Path(__file__).parents[1] / "torture" / "small_broker.py")
WAIT: Final = 30.0
"""Seconds after which what a test waits for has failed."""
CALL: Final = 10.0
CONFIG: Final = """
shared_trust = true
[server]
log_format = "json"
log_level = "info"
[leases]
ttl = "{ttl}s"
wait_ttl = "{wait_ttl}s"
unattended_ttl = "{wait_ttl}s"
[capacity.local]
cpu = "4"
memory = "16g"
[queues.default]
[profiles.default]
start_timeout = "{start_timeout}s"
max_attempts = 1
allowed_conf_extra = ["spark.small.*"]
{profile}
[profiles.default.driver]
cores = 1
memory = "{memory}"
[store]
state_folder = "{state}"
"""

T = TypeVar("T")


def until(what: str, look: Callable[[], T | None], seconds: float = WAIT) -> T:
    """What ``look`` returns, once that is something. It is polled: what is waited for happens in other processes."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            pytest.fail(f"still waiting after {seconds:g} s for {what}")
        time.sleep(0.02)
    return found


def alive(pid: int) -> bool:
    """Whether the process runs, or could (a zombie can't)."""
    return process_state(pid) not in {"", "Z", "X"}


def process_state(pid: int) -> str:
    """R, S, T (stopped), Z, …; empty: there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return ""


class RealBroker:
    """A broker over one state folder: to be started, killed and started again. Its drivers are small processes, or
    with ``spark=True`` real ones. ``settings`` fill in the configuration."""

    def __init__(
        self, folder: Path, *, spark: bool = False, env: dict[str, str] | None = None, **settings: object
    ) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.socket = self.state / "run" / "broker.sock"
        self.log = folder / "broker.log"
        self.config = folder / "broker.toml"
        defaults: dict[str, object] = {"ttl": 3, "wait_ttl": 30, "start_timeout": 60, "memory": "256m", "profile": ""}
        extra = settings.pop("extra", "")
        self.umask = int(str(settings.pop("umask", -1)))
        self.config.write_text(CONFIG.format(state=self.state, **(defaults | settings)) + str(extra))
        serve = ["-P", "-m", "sparkbroker.broker", "serve", "--config"]
        self.command = [sys.executable, *(serve if spark else [SMALL]), str(self.config)]
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "XDG_CACHE_HOME": str(folder / "cache"),
        } | (env or {})
        self.process: subprocess.Popen[bytes] | None = None
        self.channels: list[grpc.Channel] = []

    # -- the process

    def start(self, *, serving: bool = True) -> "RealBroker":
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                umask=self.umask,
            )
        if serving:
            self.serving()
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def serving(self) -> None:
        """Wait until it answers."""

        def answers() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"the broker ended: {self.said()}"
            with contextlib.suppress(grpc.RpcError):
                self.stub.ListQueues(pb.ListQueuesRequest(), timeout=1)
                return True
            return False

        until("the broker to serve", answers)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait()

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(WAIT)

    def pause(self) -> None:
        """It has stopped when this returns."""
        self.signal(signal.SIGSTOP)
        until("the broker to stop", lambda: process_state(self.pid) == "T")

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def close(self) -> None:
        for channel in self.channels:
            channel.close()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(WAIT)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until("the drivers to end", lambda: not self.processes())

    # -- its API

    @property
    def stub(self) -> Any:
        return pb_grpc.BrokerServiceStub(self.channel())

    def channel(self) -> grpc.Channel:
        """One that connects anew at once when the broker is back."""
        if not self.channels:
            options = [
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.min_reconnect_backoff_ms", 50),
                ("grpc.max_reconnect_backoff_ms", 100),
                ("grpc.max_send_message_length", -1),
            ]
            self.channels.append(grpc.insecure_channel(f"unix:{self.socket}", options=options))
        return self.channels[0]

    def raw(self, method: str, data: bytes) -> bytes:
        """A call with bytes of one's own."""
        call = self.channel().unary_unary(f"/sparkbroker.v1.BrokerService/{method}")  # type: ignore[call-arg]  # bytes
        answer: bytes = call(data, timeout=CALL)
        return answer

    def acquire(self, key: str = "", request_id: str = "", on_existing: int = 0, **spec: Any) -> pb.Lease:
        request = pb.AcquireLeaseRequest(
            request_id=request_id or str(uuid.uuid4()),
            lease_key=key,
            on_existing=on_existing,  # type: ignore[arg-type]
            spec=pb.LeaseSpec(**spec),
        )
        lease: pb.Lease = self.stub.AcquireLease(request, timeout=CALL).lease
        return lease

    def get(self, name: str) -> pb.Lease:
        lease: pb.Lease = self.stub.GetLease(pb.GetLeaseRequest(name=name), timeout=CALL).lease
        return lease

    def until_state(self, name: str, *states: int, seconds: float = WAIT) -> pb.Lease:
        def look() -> pb.Lease | None:
            lease = self.get(name)
            return lease if lease.state in states else None

        return until(f"{name} to be in {[pb.LeaseState.Name(state) for state in states]}", look, seconds)

    def until_ended(self, name: str, seconds: float = WAIT) -> pb.Lease:
        return self.until_state(
            name,
            pb.LEASE_STATE_RELEASED,
            pb.LEASE_STATE_EXPIRED,
            pb.LEASE_STATE_FAILED,
            pb.LEASE_STATE_PREEMPTED,
            seconds=seconds,
        )

    def ready(self, key: str = "", seconds: float = WAIT, **spec: Any) -> pb.Lease:
        """A READY lease that nobody has attached to."""
        name = self.acquire(key, **spec).name
        lease = self.until_state(name, pb.LEASE_STATE_READY, pb.LEASE_STATE_FAILED, seconds=seconds)
        assert lease.state == pb.LEASE_STATE_READY, lease.message
        return lease

    def attach(self, name: str, request_id: str = "") -> int:
        request = pb.AttachLeaseRequest(name=name, request_id=request_id or str(uuid.uuid4()), holder="a test")
        generation: int = self.stub.AttachLease(request, timeout=CALL).attachment.generation
        return generation

    def renew(self, name: str, generation: int) -> pb.RenewLeaseResponse:
        answer: pb.RenewLeaseResponse = self.stub.RenewLease(
            pb.RenewLeaseRequest(name=name, generation=generation), timeout=CALL
        )
        return answer

    def release(self, name: str) -> pb.Lease:
        lease: pb.Lease = self.stub.ReleaseLease(pb.ReleaseLeaseRequest(name=name), timeout=CALL).lease
        return lease

    def used(self) -> dict[str, int]:
        """Charged capacity that isn't zero."""
        queues = self.stub.ListQueues(pb.ListQueuesRequest(), timeout=CALL).queues
        return {name: amount for queue in queues for name, amount in queue.used.items() if amount}

    def until_nothing_is_left(self) -> None:
        """No charge and no process."""
        until("all capacity to be free", lambda: not self.used())
        assert not self.processes(), "capacity was freed while a process lived"
        assert not self.scratch()

    # -- what is behind it

    def process_record(self, lease: pb.Lease) -> dict[str, int]:
        """``pid`` is the shim's, ``driver_pid`` the driver's."""
        path = self.state / "drivers" / lease.driver.removeprefix("drivers/") / "process.json"
        record: dict[str, int] = json.loads(path.read_text())
        return record

    def processes(self) -> list[int]:
        """Live processes that carry the mark of this state folder's broker."""
        try:
            key = (self.state / "key").read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return []
        mark = b"SPARKBROKER_OWNER=" + hashlib.sha256(b"owner\0" + key).hexdigest()[:16].encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return [pid for pid in found if alive(pid)]

    def scratch(self) -> list[Path]:
        """Folders that drivers wrote to."""
        return list(self.folder.glob("sparkbroker-*/*/*"))


class Refusal:
    """An RPC's error, read as a client reads it."""

    def __init__(self, error: grpc.RpcError) -> None:
        self.code = error.code()
        self.message = error.details() or ""
        self.reason = ""
        self.metadata: dict[str, str] = {}
        status = rpc_status.from_call(error)  # type: ignore[arg-type]  # it is both
        info = ErrorInfo()
        for detail in status.details if status is not None else ():
            if detail.Unpack(info):
                self.reason, self.metadata = info.reason, dict(info.metadata)

    def __repr__(self) -> str:
        return f"{self.code} {self.reason} {self.metadata}: {self.message}"


def refused(call: Callable[[], object]) -> Refusal:
    """The error of a call that has to fail."""
    try:
        answer = call()
    except grpc.RpcError as error:
        return Refusal(error)
    pytest.fail(f"was answered with {str(answer)[:500]}")


class Tools:
    """What tests need beside the broker."""

    until = staticmethod(until)
    alive = staticmethod(alive)
    process_state = staticmethod(process_state)
    refused = staticmethod(refused)


@pytest.fixture
def tools() -> type[Tools]:
    return Tools


@pytest.fixture
def make_broker(state_folder: Path) -> Iterator[Callable[..., RealBroker]]:
    """Makes brokers that don't run yet; ``state_folder`` is their folder's parent."""
    made: list[RealBroker] = []

    def make(**settings: Any) -> RealBroker:
        folder = state_folder / str(len(made))
        folder.mkdir(mode=0o700)
        made.append(RealBroker(folder, **settings))
        return made[-1]

    yield make
    for broker in made:
        broker.close()


@pytest.fixture
def broker(make_broker: Callable[..., RealBroker]) -> RealBroker:
    """A running one, with small drivers."""
    return make_broker().start()


@pytest.fixture(scope="module")
def module_broker(run_folder: Path) -> Iterator[RealBroker]:
    """A running one for all tests of a module."""
    made = RealBroker(Path(tempfile.mkdtemp(prefix="m", dir=run_folder)))
    try:
        yield made.start()
        assert made.stop() == 0
    finally:
        made.close()
