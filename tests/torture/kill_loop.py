"""Kills a broker with SIGKILL at random points under load, again and again, and counts what was lost, doubled, leaked.

    python tests/torture/kill_loop.py --rounds 1000

The broker is a real one (its own process, SQLite, a unix socket); its drivers are small processes under the real shim,
so that their life and death are real, and cheap. Clients ask, wait, attach, renew, release or walk away, and repeat
with the same request id what was not answered. What they were told is compared with what is true:

lost      an answer was given, and what it told isn't there any more, or ended for no reason of its client's
doubled   two live leases of one key, two answers for one request id, or two live drivers of one lease
leaked    after everything was given back: a live lease, charged capacity, or a process
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from sparkbroker.v1 import broker_pb2 as pb
from sparkbroker.v1 import broker_pb2_grpc as pb_grpc

BROKER = str(Path(__file__).with_name("small_broker.py"))
CONFIG = """
shared_trust = true
[server]
log_format = "json"
log_level = "info"
[leases]
ttl = "3s"
wait_ttl = "5s"
unattended_ttl = "3s"
[capacity.local]
cpu = "6"
memory = "64g"
[queues.default]
[profiles.default]
start_timeout = "20s"
[profiles.default.driver]
cores = 1
memory = "256m"
"""
LIVE = {pb.LEASE_STATE_QUEUED, pb.LEASE_STATE_PROVISIONING, pb.LEASE_STATE_READY}
REPEATABLE = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
}
ITS_OWN = {pb.LEASE_REASON_RELEASED_BY_HOLDER, pb.LEASE_REASON_REPLACED}
CALL = 5.0


class World:
    """A state folder, the broker process over it, and the counts."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.config = folder / "broker.toml"
        self.state = folder / "state"
        self.socket = self.state / "run" / "broker.sock"
        self.broker: asyncio.subprocess.Process | None = None
        self.log = (folder / "broker.log").open("ab")
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.stopping = False
        self.config.write_text(CONFIG + f'\n[store]\nstate_folder = "{self.state}"\n')

    async def start(self) -> None:
        self.broker = await asyncio.create_subprocess_exec(
            sys.executable, BROKER, str(self.config), stdout=self.log, stderr=self.log, stdin=asyncio.subprocess.DEVNULL
        )

    async def serving(self) -> None:
        """Wait until it accepts connections, or has ended."""
        assert self.broker is not None
        async with asyncio.timeout(30):
            while self.broker.returncode is None:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_unix_connection(str(self.socket))
                    writer.close()
                    return
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        assert self.broker is not None
        self.broker.send_signal(signal.SIGKILL)
        await self.broker.wait()
        self.counts["kills"] += 1

    async def stop(self) -> int:
        assert self.broker is not None
        self.broker.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.broker.wait(), 30)

    def fault(self, kind: str, text: str) -> None:
        self.counts[kind] += 1
        self.faults.append(f"{kind}: {text}")


class Client:
    """One holder, with a key of its own. It knows what it was told."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.key = f"client-{number}"
        self.random = random.Random(world.random.random())
        self.channel = grpc.aio.insecure_channel(
            f"unix:{world.socket}",
            options=[("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 200),
                     ("grpc.initial_reconnect_backoff_ms", 50), ("grpc.min_reconnect_backoff_ms", 50)],
        )  # fmt: skip
        self.stub: Any = pb_grpc.BrokerServiceStub(self.channel)

    async def run(self) -> None:
        while not self.world.stopping:
            await self.cycle()

    async def close(self) -> None:
        await self.channel.close()

    async def call(self, method: Callable[..., Awaitable[Any]], request: Any) -> Any:
        """Repeat until it is answered: with the same request id, if it has one."""
        while True:
            try:
                return await method(request, timeout=CALL)
            except grpc.aio.AioRpcError as error:
                if error.code() not in REPEATABLE:
                    raise
                self.world.counts["repeated calls"] += 1
                await asyncio.sleep(self.random.uniform(0.02, 0.15))

    async def cycle(self) -> None:
        replace = self.random.random() < 0.5
        request = pb.AcquireLeaseRequest(
            request_id=str(uuid.uuid4()),
            lease_key=self.key,
            on_existing=pb.ON_EXISTING_REPLACE if replace else pb.ON_EXISTING_FAIL,
            spec=pb.LeaseSpec(mode=pb.LEASE_MODE_CONNECT if self.random.random() < 0.7 else pb.LEASE_MODE_LOCAL),
        )
        try:
            lease = (await self.call(self.stub.AcquireLease, request)).lease
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                self.world.fault("refused", f"{self.key}: {error.code()} {error.details()}")
            await asyncio.sleep(0.05)
            return
        self.world.counts["acquired"] += 1
        await self.check_repetition(request, lease.name)
        try:
            await self.use(lease.name)
        except grpc.aio.AioRpcError as error:
            self.world.fault("lost", f"{lease.name} of {self.key}: {error.code()} {error.details()}")

    async def check_repetition(self, request: pb.AcquireLeaseRequest, name: str) -> None:
        if self.random.random() < 0.3:
            again = (await self.call(self.stub.AcquireLease, request)).lease
            if again.name != name:
                self.world.fault("doubled", f"request {request.request_id} got {name} and then {again.name}")

    async def use(self, name: str) -> None:
        chance = self.random.random()
        if chance < 0.15:
            return await self.release(name, 0)
        ready = await self.wait_ready(name)
        if not ready:
            return None
        attached = await self.call(
            self.stub.AttachLease, pb.AttachLeaseRequest(name=name, request_id=str(uuid.uuid4()), holder=self.key)
        )
        generation = attached.attachment.generation
        await self.call(self.stub.GetConnection, pb.GetConnectionRequest(name=name, generation=generation))
        for _ in range(self.random.randrange(4)):
            await self.call(self.stub.RenewLease, pb.RenewLeaseRequest(name=name, generation=generation))
            await asyncio.sleep(self.random.uniform(0, 0.2))
        self.world.counts["used"] += 1
        if chance > 0.9:
            self.world.counts["walked away"] += 1  # its ttl has to free it, or the next REPLACE
            return None
        return await self.release(name, generation)

    async def wait_ready(self, name: str) -> bool:
        while not self.world.stopping:
            lease = (await self.call(self.stub.GetLease, pb.GetLeaseRequest(name=name))).lease
            if lease.state == pb.LEASE_STATE_READY:
                return True
            if lease.state not in LIVE:
                self.world.fault("lost", f"{name} of {self.key} is {lease.state} ({lease.reason}): {lease.message}")
                return False
            await self.call(self.stub.RenewLease, pb.RenewLeaseRequest(name=name))
            await asyncio.sleep(0.05)
        return False

    async def release(self, name: str, generation: int) -> None:
        answer = await self.call(self.stub.ReleaseLease, pb.ReleaseLeaseRequest(name=name, generation=generation))
        if answer.lease.reason not in ITS_OWN:
            self.world.fault("lost", f"{name} of {self.key} had ended: {answer.lease.reason} {answer.lease.message}")
        self.world.counts["released"] += 1


def marked_processes(state: Path) -> dict[int, str]:
    """Live processes whose environment says that they belong to a driver of this folder's broker: pid -> driver id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            environment = (entry / "environ").read_bytes().split(b"\0")
            marks = dict(item.split(b"=", 1) for item in environment if b"=" in item)
            driver = marks.get(b"SPARKBROKER_DRIVER_ID", b"").decode()
            if driver and (state / "drivers" / driver).is_dir() and b"Z" != _state(entry):
                found[int(entry.name)] = driver
    return found


def _state(entry: Path) -> bytes:
    return (entry / "stat").read_bytes().rpartition(b") ")[2][:1]


async def check_doubles(world: World, client: Client) -> None:
    """No key has two live leases, no lease two drivers."""
    keys: Counter[str] = Counter()
    token = ""
    while True:
        page = await client.call(
            client.stub.ListLeases, pb.ListLeasesRequest(filter="live=true", page_size=500, page_token=token)
        )
        keys.update(lease.key for lease in page.leases)
        token = page.next_page_token
        if not token:
            break
    for key, count in keys.items():
        if count > 1:
            world.fault("doubled", f"{key} has {count} live leases")


async def settle(world: World, client: Client) -> None:
    """Give everything back, and see what is left."""
    deadline = asyncio.get_running_loop().time() + 60
    while asyncio.get_running_loop().time() < deadline:
        leases = (
            await client.call(client.stub.ListLeases, pb.ListLeasesRequest(filter="live=true", page_size=1000))
        ).leases
        for lease in leases:
            await client.call(client.stub.ReleaseLease, pb.ReleaseLeaseRequest(name=lease.name))
        queues = (await client.call(client.stub.ListQueues, pb.ListQueuesRequest())).queues
        used = {name: amount for queue in queues for name, amount in queue.used.items() if amount}
        processes = marked_processes(world.state)
        if not leases and not used and not processes:
            return
        await asyncio.sleep(0.2)
    world.fault("leaked", f"{len(leases)} leases, capacity {used}, processes {processes}")


async def torture(rounds: int, clients: int, seed: int, folder: Path) -> World:
    """All of it; the world holds the counts."""
    world = World(folder, seed)
    await world.start()
    holders = [Client(world, number) for number in range(clients)]
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(holder.run(), name=holder.key) for holder in holders]
        for number in range(rounds):
            if world.random.random() < 0.8:
                await world.serving()  # else it is killed while it starts and recovers
            await asyncio.sleep(world.random.uniform(0.0, 1.5))
            if world.broker is not None and world.broker.returncode is not None:
                world.fault("died", f"the broker ended by itself with {world.broker.returncode} in round {number}")
                break
            await world.kill()
            await world.start()
            if number % 10 == 9:
                await check_doubles(world, holders[0])
        world.stopping = True
        _, hanging = await asyncio.wait(running, timeout=30)
        for task in hanging:
            world.fault("lost", f"{task.get_name()} gets no answer")
            task.cancel()
    if world.counts["died"]:
        return world
    await check_doubles(world, holders[0])
    await settle(world, holders[0])
    for holder in holders:
        await holder.close()
    if await world.stop() != 0:
        world.fault("died", "the broker did not end with status 0 after SIGTERM")
    world.log.close()
    return world


def report(world: World) -> str:
    counts = world.counts
    lines = [f"{name:>15} {counts[name]}" for name in ("kills", "acquired", "used", "released", "walked away")]
    lines += [
        f"{name:>15} {counts[name]}" for name in ("repeated calls", "lost", "doubled", "leaked", "refused", "died")
    ]
    return "\n".join([*lines, *world.faults[:20]])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="sparkbroker-torture-") as folder:
        world = asyncio.run(torture(arguments.rounds, arguments.clients, arguments.seed, Path(folder)))
        print(report(world))
        if world.faults:
            print((Path(folder) / "broker.log").read_text(errors="replace")[-4000:])
    return 1 if world.faults else 0


if __name__ == "__main__":
    sys.exit(main())
