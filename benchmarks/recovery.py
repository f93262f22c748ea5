"""After kill -9 with 100,000 live leases: from ``broker.recovering`` to a RenewLease that is answered.

A process fills a state folder (each lease LOCAL, READY and attached), is killed, and then the real broker starts on it,
several times; each is killed too. Also told: how long until everything is taken over (``broker.serving``).

    python benchmarks/recovery.py [--quick] [--leases 100000] [--rounds 5]
"""

import argparse
import asyncio
import json
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from uuid import UUID

import h2_load
from servers import SERVICE, broker, load, row, temporary_folder, wait_for_port

from sparkbroker.broker.adapters.sql_store import SqlStore, StateFolder
from sparkbroker.broker.adapters.system_clock import SystemClock
from sparkbroker.broker.app.allowance import Allowance
from sparkbroker.broker.app.catalogue import Catalogue
from sparkbroker.broker.app.views import OnExisting
from sparkbroker.broker.core import Core
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.asking.request import SizeRequest, SpecRequest
from sparkbroker.broker.domain.capacity.queue import Queue
from sparkbroker.broker.domain.capacity.resources import MIB, Resources
from sparkbroker.broker.domain.lease.lease import ContainerSize, LeaseMode, LeaseSpec
from sparkbroker.broker.domain.units import Principal
from sparkbroker.broker.ports.authenticator import Caller
from sparkbroker.broker.ports.metrics import NoMetrics
from sparkbroker.v1 import broker_pb2 as pb

GIB = 1024 * MIB
CLIENTS = 100
CALLER = Caller(Principal("bench"))
ASKED = SpecRequest(mode=LeaseMode.LOCAL, driver=SizeRequest(cores=1), ttl=3600.0)


def core(database: Path) -> Core:
    amount = Resources.of(cores=10**6, memory=10**6 * 4 * GIB)
    defaults = LeaseSpec(profile="default", queue="default", driver=ContainerSize(cores=1, memory=GIB))
    return Core(
        catalogue=Catalogue(
            profiles={"default": Profile(name="default", defaults=defaults)},
            queues={"default": Queue(name="default", nominal=amount, max_queued=10**6)},
            pools={"local": amount},
            default_profile="default",
            default_queue="default",
        ),
        store=SqlStore(database),
        provisioners={},
        clock=SystemClock(),
        metrics=NoMetrics(),
        allowance=Allowance(live=10**6, requests=10**7),
    )


def uuid() -> str:
    return str(UUID(int=random.getrandbits(128), version=4))


async def fill(folder: Path, count: int) -> None:
    """Print one lease's name when all are durable; then wait to be killed."""
    with StateFolder(folder, create_parents=True) as state:
        broken = core(state.database)
        await broken.recover()
        async with asyncio.TaskGroup() as group:
            group.create_task(broken.run())
            await broken.inventory.complete.wait()
            clients = [group.create_task(_client(broken, count // CLIENTS)) for _ in range(CLIENTS)]
            print((await asyncio.gather(*clients))[CLIENTS // 2], flush=True)


async def _client(filled: Core, count: int) -> str:
    name = ""
    for _ in range(count):
        acquired = await filled.leases.acquire(
            CALLER, request_id=uuid(), key=uuid(), on_existing=OnExisting.FAIL, request=ASKED
        )
        name = acquired.view.lease.id
        await filled.leases.attach(CALLER, name, request_id=uuid(), holder="host.example:4711 notebook")
    return name


def filled_and_killed(folder: Path, count: int) -> str:
    """The name of one of its leases."""
    command = [sys.executable, __file__, "--fill", str(folder), "--leases", str(count)]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        process.send_signal(signal.SIGKILL)
    if not name:
        raise SystemExit("the state folder was not filled")
    return name


async def renewed(port: int, headers: dict[str, str], name: str) -> None:
    """Return once a renewal is answered well."""
    _, connection = await asyncio.get_running_loop().create_connection(h2_load.Connection, "127.0.0.1", port)
    request = pb.RenewLeaseRequest(name=f"leases/{name}", generation=1).SerializeToString()
    block = h2_load.headers(SERVICE + "RenewLease", headers)
    answer = pb.RenewLeaseResponse.FromString(await connection.call(block, request))
    assert answer.state == pb.LEASE_STATE_READY, answer
    connection.close()


class Log(threading.Thread):
    """When each event was first read from a broker's log."""

    def __init__(self, stream: "object") -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self._seen = threading.Condition()
        self._times: dict[str, float] = {}

    def run(self) -> None:
        for line in self._stream:  # type: ignore[attr-defined]
            now = time.perf_counter()
            event = json.loads(line)["event"] if line.startswith("{") else line
            with self._seen:
                self._times.setdefault(event, now)
                self._seen.notify_all()

    def time_of(self, event: str) -> float:
        with self._seen:
            if not self._seen.wait_for(lambda: event in self._times, timeout=120):
                raise SystemExit(f"no {event} in the broker's log, only {list(self._times)}")
            return self._times[event]


def recover(folder: Path, name: str) -> tuple[float, float, float]:
    """Seconds from ``broker.recovering``: to an answered renewal, to all taken over; and of the process until then."""
    begun = time.perf_counter()
    with broker(folder, logs=True) as served:
        log = Log(served.process.stderr)
        log.start()
        recovering = log.time_of("broker.recovering")
        wait_for_port(served.port, served.process, pause=0.001)
        asyncio.run(renewed(served.port, served.headers, name))
        answered = time.perf_counter()
        complete = log.time_of("broker.serving")
        served.process.send_signal(signal.SIGKILL)
        served.process.wait()
        log.join(5)
    return answered - recovering, complete - recovering, recovering - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10,000 leases, one round")
    parser.add_argument("--leases", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fill", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fill:
        asyncio.run(fill(arguments.fill, arguments.leases))
        return
    count, rounds = (10_000, 1) if arguments.quick else (arguments.leases, arguments.rounds)
    with temporary_folder() as folder:
        name = filled_and_killed(folder / "state", count)
        times = [recover(folder, name) for _ in range(rounds)]
    for answered, complete, before in times:
        print(f"renewal answered after {answered:.2f} s, complete after {complete:.2f} s; start {before:.2f} s before")
    answered, complete, _ = (statistics.median(column) for column in zip(*times, strict=True))
    row(f"RenewLease after kill -9 with {count:,} live leases", f"{answered:.2f} s", "none", "", "<= 1 s")
    row(f"all {count:,} taken over", f"{complete:.2f} s", "none", "", "none")
    print(load())


if __name__ == "__main__":
    main()
