"""A real broker in a process of its own, whose drivers are pods of a test's namespace. Tests may kill it and start it again."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from sparkbroker.client import Broker, SparkbrokerError
from sparkbroker.v1 import broker_pb2 as pb
from tests.kubernetes.space import Space

CONFIG: Final = """
[server]
log_format = "json"
{server}
[leases]
wait_ttl = "600s"
unattended_ttl = "600s"
default_profile = "pods"
[kubernetes]
owner = "{owner}"
[capacity.cluster]
cpu = "{cpu}"
memory = "32g"
[queues.default]
[profiles.pods]
provisioner = "kubernetes"
pool = "cluster"
start_timeout = "{start_timeout}s"
max_attempts = {max_attempts}
modes = {modes}
client_role = "client"
client_credential_ttl = "{credential_ttl}"
allowed_pod = ["*"]
conf = {conf}
pod = {pod}
[profiles.pods.pod_bounds]
secrets = ["*"]
[profiles.pods.driver]
cores = 1
memory = "600m"
[profiles.pods.executors]
cores = 1
memory = "512m"
min_count = 2
max_count = 2
[store]
state_folder = "{state}"
"""
ENDED: Final = (pb.LEASE_STATE_RELEASED, pb.LEASE_STATE_EXPIRED, pb.LEASE_STATE_FAILED, pb.LEASE_STATE_PREEMPTED)

T = TypeVar("T")


class KubeBroker:
    """``<KubeBroker pid>``. Everything blocks: call it from a thread."""

    def __init__(self, folder: Path, pod: dict[str, Any], **settings: Any) -> None:
        self.state = folder / "state"
        self.url = f"unix://{self.state}/run/broker.sock"
        self.log = folder / "broker.log"
        self._config = folder / "broker.toml"
        given = {
            "start_timeout": 280,
            "max_attempts": 1,
            "cpu": "8",
            "server": "",
            "modes": '["CONNECT", "LOCAL"]',
            "credential_ttl": "1h",
            "conf": "{}",
            "owner": "",
        } | settings
        self._config.write_text(CONFIG.format(state=self.state, pod=_inline(pod), **given))
        self._process: subprocess.Popen[bytes] | None = None
        self.env = {
            "PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder), "KUBECONFIG": str(folder / "kubeconfig"),
        }  # fmt: skip

    def __repr__(self) -> str:
        return f"<KubeBroker {self._process and self._process.pid}>"

    def start(self) -> None:
        """Start it; ``serving`` waits for it."""
        command = [sys.executable, "-P", "-m", "sparkbroker.broker", "serve", "--config", str(self._config)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    async def serving(self) -> None:
        """Wait until it answers."""
        async with asyncio.timeout(120):
            while True:
                assert self.running, self.log.read_text()
                with contextlib.suppress(SparkbrokerError):
                    await self.used()
                    return
                await asyncio.sleep(0.05)

    def kill(self) -> None:
        """As -9 does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(60)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @contextmanager
    def client(self) -> Iterator[Broker]:
        with Broker(self.url) as broker:
            yield broker

    async def ask(self, what: Callable[[Broker], T]) -> T:
        """Do something with a client of its own, in a thread."""

        def work() -> T:
            with self.client() as broker:
                return what(broker)

        return await asyncio.to_thread(work)

    async def until(self, name: str, *states: int, seconds: float = 300.0) -> pb.Lease:
        """The lease once it is in one of these states; polled, since the broker may be killed meanwhile."""
        lease = pb.Lease()
        try:
            async with asyncio.timeout(seconds):
                while True:
                    with contextlib.suppress(SparkbrokerError):
                        lease = await self.ask(lambda broker: broker.get(name))
                        if lease.state in states:
                            return lease
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise AssertionError(f"{name} did not get there: {lease}\n{self.log.read_text()[-4000:]}") from None

    async def until_ended(self, name: str, seconds: float = 300.0) -> pb.Lease:
        return await self.until(name, *ENDED, seconds=seconds)

    async def acquire(self, **ask: Any) -> str:
        """A lease's name; it is not attached."""
        return await self.ask(lambda broker: broker.acquire(**ask).name)

    async def ready(self, **ask: Any) -> str:
        """The name of a lease that has become READY, and nothing else."""
        name = await self.acquire(**ask)
        lease = await self.until(name, pb.LEASE_STATE_READY, *ENDED)
        assert lease.state == pb.LEASE_STATE_READY, lease.message
        return name

    async def told(self, name: str, pattern: str, seconds: float = 120.0) -> pb.Lease:
        """The lease once its message holds what a regular expression matches."""
        lease = pb.Lease()
        try:
            async with asyncio.timeout(seconds):
                while not re.search(pattern, lease.message):
                    await asyncio.sleep(0.2)
                    lease = await self.get(name)
        except TimeoutError:
            raise AssertionError(f"{name} never said {pattern!r}: {lease}\n{self.log.read_text()[-4000:]}") from None
        return lease

    async def get(self, name: str) -> pb.Lease:
        return await self.ask(lambda broker: broker.get(name))

    async def release(self, name: str) -> pb.Lease:
        """Ask for its end."""
        return await self.ask(lambda broker: broker.release(name))

    async def used(self) -> dict[str, int]:
        """What is charged."""
        queues = await self.ask(lambda broker: broker.queues())
        return {name: amount for queue in queues for name, amount in queue.used.items() if amount}

    async def until_free(self, space: Space, seconds: float = 180.0, but: Sequence[str] = ()) -> None:
        """Nothing is charged, and when that is so nothing exists, ``but`` for what is the test's own."""
        async with asyncio.timeout(seconds):
            while await self.used():
                await asyncio.sleep(0.2)
        # The pods are confirmed gone; Secret or account was removed when they were asked to go.
        assert [name for name in await space.left() if name not in but] == []


@asynccontextmanager
async def broker(
    folder: Path, space: Space, *, pod: dict[str, Any] | None = None, admin: bool = False, **settings: Any
) -> AsyncIterator[KubeBroker]:
    """One that runs, with no more rights than it needs unless as ``admin``; what it leaves goes with the test's namespace."""
    made = KubeBroker(folder, space.settings(**(pod or {})), **settings)
    if admin:
        await asyncio.to_thread((folder / "kubeconfig").symlink_to, os.environ["KUBECONFIG"])
    else:
        await space.kubeconfig("broker", folder / "kubeconfig")
    made.start()
    try:
        await made.serving()
        yield made
    finally:
        await asyncio.to_thread(made.kill)


def _inline(value: Any) -> str:
    """A value as TOML writes it in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_inline(key)} = {_inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return msgspec.json.encode(value).decode()
