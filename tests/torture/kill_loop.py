"""Kills a broker with SIGKILL at random points under load, again and again, and counts what was lost, doubled, leaked.

    python tests/torture/kill_loop.py --rounds 1000

The broker is a real one (its own process, SQLite, a unix socket); its drivers are small processes under the real shim,
so that their life and death are real, and cheap. Clients ask, wait, attach, renew, release or walk away, and repeat
with the same request id what was not answered. What they were told is compared with what is true:

lost      an answer was given, and what it told isn't there any more, or ended for no reason of its client's; or an
          event that a watch, resumed through all kills, did not get, or got twice, or out of order
doubled   two live leases of one key, two answers for one request id, or two live drivers of one lease
leaked    after everything was given back: a live lease, charged capacity, or a process; and at any time, a process of a
          lease that is said to have ended
too much  more is charged, or runs, than the capacity
"""

import argparse
import asyncio
import contextlib
import hashlib
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
unattended_ttl = "8s"
[store]
state_folder = "{state}"
terminal_count = 1000000
event_count = 10000000
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
CORES = 6
"""Of the capacity, as configured; each driver takes one."""
FAULTS = ("lost", "doubled", "leaked", "too much", "refused", "died")
LIVE = {pb.LEASE_STATE_QUEUED, pb.LEASE_STATE_PROVISIONING, pb.LEASE_STATE_READY}
REPEATABLE = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
}
ITS_OWN = {pb.LEASE_REASON_RELEASED_BY_HOLDER, pb.LEASE_REASON_REPLACED}
CALL = 5.0
START = 120.0
"""Seconds for the start of a broker; the machine may be busy."""
TELL_EACH = 100
"""Rounds between lines of progress."""


class World:
    """A state folder, the broker process over it, and the counts."""

    def __init__(self, folder: Path, seed: int, program: str) -> None:
        self.program = program
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
        self.released: set[str] = set()
        """Leases whose end was answered."""
        self.told: set[str] = set()
        """Leases that were answered."""
        self.config.write_text(CONFIG.replace("{state}", str(self.state)))

    async def start(self) -> None:
        self.broker = await asyncio.create_subprocess_exec(
            sys.executable,
            self.program,
            str(self.config),
            stdout=self.log,
            stderr=self.log,
            stdin=asyncio.subprocess.DEVNULL,
        )

    async def serving(self) -> None:
        """Wait until it accepts connections, or has ended."""
        assert self.broker is not None
        async with asyncio.timeout(START):
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

    async def end_all(self) -> None:
        """However the test ended: no process stays."""
        if self.broker is not None and self.broker.returncode is None:
            self.broker.kill()
            await self.broker.wait()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.log.close()

    def processes(self) -> dict[int, str]:
        """Live processes that say in their environment that this folder's broker started them: pid -> driver id."""
        try:
            key = (self.state / "key").read_bytes()
        except FileNotFoundError:
            return {}
        owner = hashlib.sha256(b"owner\0" + key).hexdigest()[:16].encode()
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                marks = dict(
                    item.split(b"=", 1) for item in (entry / "environ").read_bytes().split(b"\0") if b"=" in item
                )
                if marks.get(b"SPARKBROKER_OWNER") == owner and _lives(entry):
                    found[int(entry.name)] = marks.get(b"SPARKBROKER_DRIVER_ID", b"").decode()
        return found

    def drivers(self) -> set[str]:
        """Drivers that ran at one and the same moment: that between two looks, of which each found all of these."""
        first = self.processes()
        return {driver for pid, driver in first.items() if _lives(Path(f"/proc/{pid}"))}

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
        self.may_live = ""
        """The lease that it walked away from: until that is replaced its key may be taken."""
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
        await self.channel.close(None)

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
            elif not self.may_live or self.may_live not in (error.details() or ""):
                self.world.fault("doubled", f"{self.key} has nothing, and yet: {error.details()}")
            await asyncio.sleep(0.05)
            return
        self.may_live = ""
        self.world.told.add(lease.name)
        self.world.counts["acquired"] += 1
        try:
            await self.check_repetition(request, lease.name)
            await self.use(lease.name)
        except grpc.aio.AioRpcError as error:
            self.world.fault("lost", f"{lease.name} of {self.key}: {error.code()} {error.details()}")

    async def check_repetition(self, request: pb.AcquireLeaseRequest, name: str) -> None:
        if self.random.random() < 0.3:
            try:
                again = (await self.call(self.stub.AcquireLease, request)).lease
            except grpc.aio.AioRpcError as error:
                self.world.fault("doubled", f"request {request.request_id} got {name} and then {error.details()}")
                return
            if again.name != name:
                self.world.told.add(again.name)
                self.world.fault("doubled", f"request {request.request_id} got {name} and then {again.name}")

    async def use(self, name: str) -> None:
        chance = self.random.random()
        if chance < 0.15:
            return await self.release(name, 0)
        ready = await self.wait_ready(name)
        if not ready:
            return None
        request = pb.AttachLeaseRequest(name=name, request_id=str(uuid.uuid4()), holder=self.key)
        generation = (await self.call(self.stub.AttachLease, request)).attachment.generation
        if generation != 1:
            self.world.fault("doubled", f"the first attachment of {name} has generation {generation}")
        if self.random.random() < 0.3:
            again = (await self.call(self.stub.AttachLease, request)).attachment.generation
            if again != generation:
                self.world.fault("doubled", f"request {request.request_id} got generation {generation}, then {again}")
        await self.call(self.stub.GetConnection, pb.GetConnectionRequest(name=name, generation=generation))
        for _ in range(self.random.randrange(4)):
            await self.call(self.stub.RenewLease, pb.RenewLeaseRequest(name=name, generation=generation))
            await asyncio.sleep(self.random.uniform(0, 0.2))
        self.world.counts["used"] += 1
        if chance > 0.9:
            self.may_live = name
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
        self.world.released.add(name)
        self.world.counts["released"] += 1


def _lives(entry: Path) -> bool:
    """Neither gone nor a zombie."""
    try:
        return (entry / "stat").read_bytes().rpartition(b") ")[2][:1] not in (b"Z", b"X")
    except OSError:
        return False


async def all_leases(client: Client, selection: str = "") -> list[pb.Lease]:
    leases, token = [], ""
    while True:
        request = pb.ListLeasesRequest(filter=selection, page_size=500, page_token=token, order_by="create_time")
        page = await client.call(client.stub.ListLeases, request)
        leases += page.leases
        token = page.next_page_token
        if not token:
            return leases


async def witness(world: World, client: Client) -> None:
    """Compare what is told with what runs, all the time."""
    while not world.stopping:
        ended = {
            lease.driver.removeprefix("drivers/"): lease.name
            for lease in (
                await client.call(client.stub.ListLeases, pb.ListLeasesRequest(filter="live=false", page_size=100))
            ).leases
            if lease.state not in LIVE and lease.state != pb.LEASE_STATE_RELEASING and lease.driver
        }
        for driver in world.drivers() & ended.keys():
            world.fault("leaked", f"{ended[driver]} has ended, and its driver {driver} runs")
        await check_charges(world, client)
        await check_doubles(world, client)
        world.counts["looks"] += 1
        await asyncio.sleep(0.1)


async def count_processes(world: World) -> None:
    """Also while no broker serves."""
    while not world.stopping:
        running = len(world.drivers())
        if running > CORES:
            world.fault("too much", f"{running} drivers run at a time")
        world.counts["most drivers"] = max(running, world.counts["most drivers"])
        await asyncio.sleep(0.2)


async def check_charges(world: World, client: Client) -> None:
    queues = (await client.call(client.stub.ListQueues, pb.ListQueuesRequest())).queues
    for name, most in (("cpu", CORES * 1000), ("memory", 64 << 30)):
        used = sum(queue.used[name] for queue in queues)
        if used > most:
            world.fault("too much", f"{used} of {name} is charged, and there is {most}")


async def watch(world: World, client: Client, heard: dict[str, list[pb.LeaseEvent]], listens: asyncio.Event) -> None:
    """Hear every event of all leases, over one watch that is resumed."""
    revision = 0
    while True:
        stream = client.stub.WatchLeases(pb.WatchLeasesRequest(after_revision=revision))
        try:
            async for message in stream:
                if message.HasField("event"):
                    if message.event.revision <= revision:
                        world.fault("lost", f"the watch told {message.event.revision} after {revision}")
                    heard.setdefault(message.event.lease, []).append(message.event)
                    world.counts["events"] += 1
                revision = max(revision, message.revision)
                listens.set()
        except grpc.aio.AioRpcError as error:
            if error.code() not in REPEATABLE:
                world.fault("lost", f"the watch ended after {revision}: {error.code()} {error.details()}")
                return
        await asyncio.sleep(0.05)


async def check_answers(world: World, client: Client, heard: dict[str, list[pb.LeaseEvent]]) -> None:
    """At the end: what was answered is there, what was released stayed so, and the watch heard of all of it."""
    leases = {lease.name: lease for lease in await all_leases(client)}
    leases = {name: lease for name, lease in leases.items() if lease.key}  # not the first one
    for name in sorted(world.told - leases.keys()):
        world.fault("lost", f"{name} was answered, and is not there")
    for name in sorted(world.released & leases.keys()):
        if leases[name].state in LIVE:
            world.fault("lost", f"{name} was released, and lives")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(10):
            while any(not events_end(heard.get(name, [])) for name in leases):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    for name in leases:
        states = [event.state for event in heard.get(name, []) if event.type == pb.LEASE_EVENT_TYPE_STATE]
        if not states or states[0] != pb.LEASE_STATE_QUEUED or not events_end(heard[name]):
            world.fault("lost", f"the watch heard of {name} only {[pb.LeaseState.Name(state) for state in states]}")


def events_end(events: list[pb.LeaseEvent]) -> bool:
    return bool(events) and events[-1].state not in LIVE | {pb.LEASE_STATE_RELEASING}


async def check_doubles(world: World, client: Client) -> None:
    """No key has two live leases, no lease two drivers, no driver two leases."""
    leases = await all_leases(client, "live=true")
    keys = Counter(lease.key for lease in leases)
    drivers = Counter(lease.driver for lease in leases if lease.driver)
    for kind, counts in (("live leases", keys), ("leases", drivers)):
        for name, count in counts.items():
            if count > 1:
                world.fault("doubled", f"{name} has {count} {kind}")


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
        processes = world.processes()
        if not leases and not used and not processes:
            return
        await asyncio.sleep(0.2)
    world.fault("leaked", f"{len(leases)} leases, capacity {used}, processes {processes}")


def end_at(signals: tuple[signal.Signals, ...]) -> None:
    """These cancel the current task, so that what it started is ended."""
    task = asyncio.current_task()
    assert task is not None
    for number in signals:
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)


async def torture(rounds: int, clients: int, seed: int, folder: Path, broker: str = BROKER) -> World:
    """All of it; the world holds the counts."""
    world = World(folder, seed, broker)
    end_at((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    try:
        await world.start()
        await world.serving()
        await _torture(world, rounds, clients)
    finally:
        await world.end_all()
    return world


async def _torture(world: World, rounds: int, clients: int) -> None:
    holders = [Client(world, number) for number in range(clients)]
    looker = Client(world, clients)
    heard: dict[str, list[pb.LeaseEvent]] = {}
    async with asyncio.TaskGroup() as group:
        # A watch from revision 0 is one from now on: it can be resumed once there is a revision.
        request = pb.AcquireLeaseRequest(request_id=str(uuid.uuid4()), spec=pb.LeaseSpec(mode=pb.LEASE_MODE_LOCAL))
        first = (await looker.call(looker.stub.AcquireLease, request)).lease
        await looker.release(first.name, 0)
        watching = group.create_task(watch(world, looker, heard, listens := asyncio.Event()), name="watch")
        await listens.wait()
        running = [group.create_task(holder.run(), name=holder.key) for holder in holders]
        running.append(group.create_task(witness(world, looker), name="witness"))
        running.append(group.create_task(count_processes(world), name="processes"))
        await kill_again_and_again(world, rounds)
        world.stopping = True
        _, hanging = await asyncio.wait(running, timeout=30)
        for task in hanging:
            world.fault("lost", f"{task.get_name()} gets no answer")
            task.cancel()
        if not world.counts["died"]:
            await settle(world, looker)
            await check_answers(world, looker, heard)
        watching.cancel()
    for holder in (*holders, looker):
        await holder.close()
    if not world.counts["died"] and await world.stop() != 0:
        world.fault("died", "the broker did not end with status 0 after SIGTERM")


async def kill_again_and_again(world: World, rounds: int) -> None:
    for number in range(rounds):
        if world.random.random() < 0.8:
            await world.serving()  # else it is killed while it starts and recovers
        await asyncio.sleep(world.random.uniform(0.0, 1.5))
        if world.broker is not None and world.broker.returncode is not None:
            return world.fault("died", f"the broker ended by itself with {world.broker.returncode} in round {number}")
        await world.kill()
        await world.start()
        if (number + 1) % TELL_EACH == 0:
            print(f"{number + 1} rounds, {world.counts['acquired']} leases, faults: {len(world.faults)}", flush=True)
    return None


def report(world: World) -> str:
    did = ("kills", "acquired", "used", "released", "walked away", "repeated calls", "looks", "events", "most drivers")
    lines = [f"{name:>15} {world.counts[name]}" for name in (*did, *FAULTS)]
    return "\n".join([*lines, *world.faults[:20]])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    parser.add_argument(
        "--broker", default=BROKER, help="the program that is the broker: to see that one with a bug is found out"
    )
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="sparkbroker-torture-") as folder:
        world = asyncio.run(
            torture(arguments.rounds, arguments.clients, arguments.seed, Path(folder), arguments.broker)
        )
        print(report(world))
        if world.faults:
            print((Path(folder) / "broker.log").read_text(errors="replace")[-4000:])
    return 1 if world.faults else 0


if __name__ == "__main__":
    sys.exit(main())
