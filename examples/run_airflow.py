"""Airflow with this repository's example DAGs, and a broker that gives them Spark. ``make airflow`` runs this program.

Everything is in one temporary folder. Ctrl-C (or TERM) ends Airflow's whole session, every lease, the broker and the
drivers, and removes the folder.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from sparkbroker.client import Broker, SparkbrokerError

ROOT: Final = Path(__file__).parents[1]
BROKER_PYTHON: Final = ROOT / ".venv" / "bin" / "python"
BIN: Final = Path(sys.executable).parent
START: Final = 300.0
"""The longest time in seconds for the broker, and then Airflow, to start."""
CONFIG: Final = """\
[queues.default]
[profiles.default]
ui = true
allowed_pod = ["*"]  # here without effect: it runs no pods
"""
GRACE: Final = 10.0
"""The time in seconds for Airflow to end by itself."""


def say(text: str) -> None:
    print(f"· {text}", flush=True)


def main() -> None:
    # Both signals, because a process that a script starts in the background ignores SIGINT.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _as_ctrl_c)
    folder = Path(tempfile.mkdtemp(prefix="sparkbroker-airflow-"))
    try:
        with broker(folder) as url, airflow(folder, url) as (process, address):
            say(
                f"Airflow is at {address} (no login), with the DAGs of examples/airflow; its log is {folder}/airflow.log"
            )
            say("Ctrl-C ends all of it")
            process.wait()
            say("Airflow has ended by itself:\n" + tail(folder / "airflow.log"))
    except KeyboardInterrupt:
        say("everything is stopped")
    finally:
        shutil.rmtree(folder)


def _as_ctrl_c(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def broker(folder: Path) -> Iterator[str]:
    """A broker that keeps everything in ``folder``; its URL."""
    say("starting a broker")
    environment = surroundings() | {"XDG_CONFIG_HOME": str(folder / "config")}
    config = folder / "broker.toml"
    config.write_text(CONFIG)
    command = [
        str(BROKER_PYTHON), "-m", "sparkbroker.broker", "serve",
        "--config", str(config), "--state-folder", str(folder / "broker"),
    ]  # fmt: skip
    url = f"unix://{folder}/broker/run/broker.sock"
    with (folder / "broker.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    with Broker(url, patience=GRACE) as client:
        try:
            wait(lambda: answers(client), process, folder / "broker.log")
            yield url
        finally:
            say("giving back every lease, and stopping the broker")
            give_back(client)
            end(process)


def surroundings() -> dict[str, str]:
    """The environment, without variables for another Airflow and another broker."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "SPARKBROKER"))}


def answers(client: Broker) -> bool:
    try:
        return bool(client.queues())
    except SparkbrokerError:
        return False


def give_back(client: Broker) -> None:
    """Release all live leases, and wait (within a limit) until no capacity is charged."""
    try:
        for lease in client.list():
            if not lease.timings.HasField("end_time"):
                client.release(lease.name, "make airflow ends")
        deadline = time.monotonic() + GRACE
        while any(any(queue.used.values()) for queue in client.queues()) and time.monotonic() < deadline:
            time.sleep(0.1)
    except SparkbrokerError as error:
        say(f"the leases could not be given back: {error}")


@contextmanager
def airflow(folder: Path, url: str) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """``airflow standalone`` in a session of its own: it starts dozens of processes, which end with it."""
    say("starting Airflow (standalone: this takes half a minute)")
    port = free_port()
    (folder / "tmp").mkdir()
    address = f"http://127.0.0.1:{port}"
    with (folder / "airflow.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "standalone"],
            env=surroundings() | airflow_settings(folder, url, port),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait(lambda: healthy(address), process, folder / "airflow.log")
        yield process, address
    finally:
        say("stopping Airflow")
        end(process)


def airflow_settings(folder: Path, url: str, port: int) -> dict[str, str]:
    return {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "TMPDIR": str(folder / "tmp"),
        "EXAMPLES_FOLDER": str(folder / "examples"),  # where they write
        "AIRFLOW_HOME": str(folder / "home"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "examples" / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
        "AIRFLOW_CONN_SPARKBROKER_DEFAULT": json.dumps({"conn_type": "sparkbroker", "extra": {"url": url}}),
    }


def healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/api/v2/monitor/health", timeout=5) as answer:
            health: dict[str, Any] = json.load(answer)
    except (urllib.error.URLError, OSError):
        return False
    parts = ("scheduler", "triggerer", "dag_processor")
    return all((health.get(part) or {}).get("status") == "healthy" for part in parts)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait(ready: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START
    while not ready():
        if process.poll() is not None:
            raise SystemExit(f"it ended with status {process.returncode} instead of starting:\n{tail(log)}")
        if time.monotonic() > deadline:
            raise SystemExit(f"it was not up within {START:g} seconds; its last lines:\n{tail(log)}")
        time.sleep(0.2)


def tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-30:])


def end(process: "subprocess.Popen[bytes]") -> None:
    """Send TERM to its whole session, and KILL to the remaining processes after a grace. A second Ctrl-C doesn't stop this."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    send(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while process.poll() is None or session(process.pid):
        if time.monotonic() > deadline:
            send(process.pid, signal.SIGKILL)
        time.sleep(0.1)


def send(of: int, number: int) -> None:
    for pid in session(of):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue  # It has ended meanwhile.


def session(of: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, number = (entry / "stat").read_text().rpartition(") ")[2].split()[:4]
        except OSError:
            continue  # It has ended meanwhile.
        if int(number) == of and state not in "ZX":
            found.append(int(entry.name))
    return found


if __name__ == "__main__":
    main()
