"""A real broker, in a process of its own from the core's environment: Airflow's can't hold it (SQLAlchemy 1.4 in 2.11)."""

import json
import os
import signal
from pathlib import Path
from typing import Any, Final

import pytest

from sparkbroker.client import Broker, SparkbrokerError
from sparkbroker.v1 import broker_pb2 as pb
from tests import java
from tests.airflow.processes import Service, until

ROOT: Final = Path(__file__).parents[2]
PYTHON: Final = ROOT / ".venv" / "bin" / "python"
SMALL: Final = ROOT / "tests" / "torture" / "small_broker.py"
CONF: Final = java.CONF | {"spark.sql.codegen.factoryMode": "NO_CODEGEN", "spark.sql.codegen.wholeStage": "false"}
"""Of the drivers: their queries are of a few rows, for which generating code takes longer than it saves."""
TTL: Final = 10
"""Seconds without a renewal after which a holder counts as gone."""
ENDED: Final = ("RELEASED", "EXPIRED", "FAILED", "PREEMPTED")
CONFIG: Final = """
shared_trust = true
[server]
log_format = "json"
{server}
[leases]
ttl = "{ttl}s"
wait_ttl = "300s"
unattended_ttl = "300s"
[capacity.local]
cpu = "{cpu}"
memory = "16g"
[queues.default]
[profiles.default]
start_timeout = "300s"
max_attempts = 1
{java}
{profile}
[profiles.default.driver]
cores = 1
memory = "{memory}"
[store]
state_folder = "{state}"
{archives}
{extra}
"""


class RealBroker:
    """A broker over one state folder, to be started, killed and started again. Its drivers are small processes, or with
    ``spark=True`` real ones; LOCAL leases work with both."""

    def __init__(self, folder: Path, *, spark: bool, **settings: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.state = folder / "s"
        self.url = f"unix://{self.state}/run/broker.sock"
        config = folder / "broker.toml"
        small = {
            "memory": "256m",
            "profile": 'allowed_conf_extra = ["spark.small.*"]',
            "archives": "class_archives = false",
            "java": "",
        }
        real = {
            "memory": "600m",
            "profile": "",
            "archives": f'cache_folder = "{java.CACHE}"',
            "java": java.toml(CONF),
        }
        defaults = {"ttl": TTL, "cpu": 4, "server": "", "extra": ""} | (real if spark else small)
        config.write_text(CONFIG.format(state=self.state, **(defaults | settings)))
        command = [str(PYTHON), *(("-P", "-m", "sparkbroker.broker", "serve", "--config") if spark else (str(SMALL),))]
        env = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder)}
        self.service = Service("broker", [*command, str(config)], env, folder)
        self.client = Broker(self.url, patience=20)

    def start(self) -> "RealBroker":
        self.service.start()

        def answers() -> bool:
            assert self.service.running, self.service.said()
            try:
                return bool(self.client.queues())
            except SparkbrokerError:
                return False

        until("the broker to serve", answers, 60, said=self.service.said)
        return self

    def stop(self, number: int = signal.SIGTERM) -> None:
        """The process ends; sessions go on."""
        self.service.stop(number)

    def close(self) -> None:
        """Every lease ended, every driver gone, the process stopped."""
        if not self.service.running:
            self.start()
        self.release_all()
        self.client.close()
        self.stop()

    def release_all(self) -> None:
        """Every lease ended."""
        for lease in self.live():
            self.client.release(lease.name)
        until("all leases to end", lambda: not self.live(), 60, said=self.service.said)

    def connection(self, **extra: object) -> str:
        """As Airflow takes it from ``AIRFLOW_CONN_…``."""
        return json.dumps({"conn_type": "sparkbroker", "extra": {"url": self.url, **extra}})

    # What it says of its leases.

    def leases(self) -> list[pb.Lease]:
        """All that it remembers, newest first."""
        return list(self.client.list())

    def live(self) -> list[pb.Lease]:
        return [lease for lease in self.leases() if state_of(lease) not in ENDED]

    def lease_of(self, key: str) -> pb.Lease | None:
        """The newest whose key holds ``key``."""
        return next((lease for lease in self.leases() if key in lease.key), None)

    def used(self) -> dict[str, int]:
        """Charged capacity that isn't zero."""
        return {name: amount for queue in self.client.queues() for name, amount in queue.used.items() if amount}

    def until_free(self, seconds: float = 60.0) -> None:
        """No lease lives, nothing is charged. One that is still there then is released, and that is an error."""
        try:
            until("all leases to end", lambda: not self.live() and not self.used(), seconds, said=self.service.said)
        except pytest.fail.Exception:
            self.release_all()
            raise

    def ended(self, name: str) -> str:
        """The state in which this lease has ended, which is some time after it was given back."""

        def look() -> str | None:
            state = state_of(self.client.get(name))
            return state if state in ENDED else None

        return str(until(f"the end of {name}", look, 60.0, said=self.service.said))

    def driver_pid(self, lease: pb.Lease) -> int:
        """Of the JVM."""
        path = self.state / "drivers" / lease.driver.removeprefix("drivers/") / "process.json"
        return int(json.loads(path.read_text())["driver_pid"])


def state_of(lease: pb.Lease) -> str:
    """READY, for its number."""
    return pb.LeaseState.Name(lease.state).removeprefix("LEASE_STATE_")
