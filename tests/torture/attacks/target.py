"""The broker that is attacked: a process of its own, with default settings, in a control group of the chart's memory limit."""

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import grpc

from sparkbroker.broker.adapters.static_tokens import new_token
from sparkbroker.broker.ports.authenticator import Role
from sparkbroker.v1 import broker_pb2 as pb
from sparkbroker.v1 import broker_pb2_grpc as pb_grpc
from tests import control_group

PROGRAM: Final = str(Path(__file__).parents[1] / "small_broker.py")
MEMORY: Final = 1 << 30
"""Of the broker, in bytes: the chart's limit."""
PRINCIPALS: Final = ("ann", "mallory")
"""Ann works; mallory is the caller that takes what she can get."""
OPERATOR: Final = "operator"
CONFIG: Final = """
shared_trust = true
[server]
listen = ["tcp://127.0.0.1:{port}"]
metrics = "127.0.0.1:{metrics}"
tokens = "{folder}/tokens.toml"
log_format = "json"
{server}
[store]
state_folder = "{folder}/state"
class_archives = false
[capacity.local]
cpu = "64"
memory = "64g"
[queues.default]
[profiles.default]
{profile}
[profiles.default.driver]
cores = 1
memory = "256m"
"""
START: Final = 60.0


class Target:
    """A broker in ``folder``: started, attacked, started again. ``settings`` are lines of its configuration: ``server``
    and ``profile``.

    ``pid`` is the broker's while it runs; ``tokens`` are by principal, for those that are known to it.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str], *, limit: int = MEMORY) -> None:
        self.folder = folder
        self.port, self.metrics_port = _free_port(), _free_port()
        self.log = folder / "broker.log"
        self.tokens: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.group = control_group.make(limit)
        """None: this process may not make one; then its memory is looked at, and not limited."""
        self._most = 0
        self._write({"server": "", "profile": ""} | dict(settings))

    def _write(self, settings: Mapping[str, str]) -> None:
        entries = []
        for principal in (*PRINCIPALS, OPERATOR):
            roles = (Role.USER, Role.OPERATOR) if principal == OPERATOR else (Role.USER,)
            self.tokens[principal], entry = new_token(principal, roles)
            entries.append(entry)
        tokens = self.folder / "tokens.toml"
        tokens.touch(mode=0o600)
        tokens.write_text("\n".join(entries))
        (self.folder / "broker.toml").write_text(
            CONFIG.format(port=self.port, metrics=self.metrics_port, folder=self.folder, **settings)
        )

    # -- the process

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def ended(self) -> int | None:
        """The exit status of a broker that ended; None: it runs."""
        return self.process.poll() if self.process is not None else None

    def start(self) -> None:
        # The process enters the group before it becomes the broker: all of the broker's memory counts.
        enter = f"echo $$ > {self.group.folder}/cgroup.procs && " if self.group is not None else ""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["sh", "-c", f'{enter}exec "$@"', "sh", sys.executable, PROGRAM, str(self.folder / "broker.toml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={
                    "PATH": os.environ["PATH"], "HOME": str(self.folder), "TMPDIR": str(self.folder),
                    "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
                },
            )  # fmt: skip

    async def serving(self) -> None:
        """Wait until it answers. Raise AssertionError if it ends first, TimeoutError if it takes too long."""
        async with asyncio.timeout(START):
            while True:
                assert self.ended is None, f"the broker ended ({self.ended}): {self.said()}"
                async with self.channel() as channel:
                    try:
                        await self.stub(channel).ListQueues(
                            pb.ListQueuesRequest(), timeout=1, metadata=self.headers("ann")
                        )
                    except grpc.aio.AioRpcError:
                        await asyncio.sleep(0.05)
                    else:
                        return

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-4000:]

    def look(self) -> int:
        """The most memory that it had in any look so far, in bytes: resident, not the files that the kernel caches."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            pages = 0
        self._most = max(self._most, pages * os.sysconf("SC_PAGE_SIZE"))
        return self._most

    def close(self) -> None:
        """End the broker and its drivers."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.group is not None:
            for pid in self.group.pids():
                _end(pid)
            self.group.remove()

    # -- its API

    def channel(self) -> grpc.aio.Channel:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", options=options)

    def stub(self, channel: grpc.aio.Channel) -> Any:
        return pb_grpc.BrokerServiceStub(channel)

    def headers(self, principal: str) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.tokens[principal]}"),)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end(pid: int) -> None:
    """Kill a process, and wait until it is gone: until then it is in its group."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        select.select([descriptor], [], [], 10)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)
