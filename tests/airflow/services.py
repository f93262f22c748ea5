"""A real Airflow: scheduler, LocalExecutor and triggerer (with API server and DAG processor in 3), each a process.

SQLite is enough for 3; 2.11 has no LocalExecutor on it, and gets a PostgreSQL of its own, listening on a unix socket only.
"""

import itertools
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Protocol

from tests.airflow.control import DatabaseControl, RestControl
from tests.airflow.dag_runs import environment
from tests.airflow.postgres import Postgres
from tests.airflow.processes import Service, until

# Not by importing it: that reads the settings, which aren't made yet.
AIRFLOW_3: Final = version("apache-airflow").startswith("3.")
BIN: Final = Path(sys.executable).parent
START: Final = 400.0
"""Seconds within which all of it has to be up: a busy machine takes a while to import Airflow five times."""
WAIT: Final = 240.0
PARALLELISM: Final = "AIRFLOW__CORE__PARALLELISM"
LOOK: Final = 0.4
"""Seconds between two looks: each costs the API server 50 ms of CPU."""
TERMINAL: Final = ("success", "failed", "skipped", "upstream_failed", "removed")


class Control(Protocol):
    """What a user does in the browser."""

    def dags(self) -> set[str]: ...
    def triggerer_alive(self) -> bool: ...
    def trigger(self, dag: str, run: str, conf: Mapping[str, Any], logical_date: str | None = None) -> None: ...
    def run_state(self, dag: str, run: str) -> str: ...
    def tasks(self, dag: str, run: str) -> list[dict[str, Any]]: ...
    def mark(self, dag: str, run: str, task: str, state: str) -> None: ...
    def clear(self, dag: str, run: str, task: str) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Place:
    """A task of a run."""

    dag: str
    run: str
    task: str
    map_index: int = -1


class Airflow:
    """All services of one Airflow over the DAG files of one folder. Every user of the machine may go into ``open_folder``."""

    def __init__(
        self, folder: Path, dags: Path, env: Mapping[str, str], *, parallelism: int, open_folder: Path
    ) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        shutil.copytree(dags, self.home / "dags")
        self.port = _free_port()
        self.env = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "LANG": "C.UTF-8",
        }
        self.env |= environment(self.home) | _settings(self.port, parallelism) | dict(env)
        self.postgres = Postgres(folder, open_folder)
        self.services: dict[str, Service] = {}
        self.control: Control
        self._replaced: list[Service] = []
        self._runs = itertools.count(1)

    def start(self) -> "Airflow":
        """Up, with every DAG known and the triggerer alive."""
        self.postgres.start()
        self.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = self.postgres.url
        migrate = self._service("migrate", "db", "migrate")
        migrate.start()
        until("the database to be made", lambda: not migrate.running, START, said=migrate.said)
        assert migrate.process is not None
        assert migrate.process.returncode == 0, migrate.said()
        for name, *arguments in _services(self.port):
            self.services[name] = self._service(name, *arguments)
            self.services[name].start()
        text = "".join(path.read_text() for path in (self.home / "dags").glob("*.py"))
        wanted = set(re.findall(r'DAG\(\s*"(\w+)"', text))
        self.control = RestControl(self.port) if AIRFLOW_3 else DatabaseControl(self.env, self.folder)
        until(
            f"Airflow to be up with {wanted}",
            lambda: self._all_run() and self.control.dags() >= wanted and self.control.triggerer_alive(),
            START,
            said=self.said,
            every=LOOK,
        )
        return self

    def _all_run(self) -> bool:
        for service in self.services.values():
            assert service.running, service.said()
        return True

    def _service(self, name: str, *arguments: str) -> Service:
        return Service(name, [sys.executable, "-m", "airflow", *arguments], self.env, self.folder)

    def stop(self) -> None:
        """The end of all of it, whatever runs."""
        for service in reversed(self.services.values()):
            if service.running:
                os.kill(service.pid, signal.SIGTERM)
        for service in [*self.services.values(), *self._replaced]:
            service.stop(seconds=10.0)
        if hasattr(self, "control"):
            self.control.close()
        self.postgres.stop()

    def restart(self, name: str, number: int = signal.SIGTERM) -> None:
        """A signal to the service itself, and its successor, as after a crash or in a rolling update: it doesn't wait for
        the first one's end, and what that has started goes on if it can."""
        old, new = self.services[name], self._service(name, *self.services[name].command[3:])
        os.kill(old.pid, number)
        self._replaced.append(old)
        self.services[name] = new
        new.start()

    def set_parallelism(self, slots: int) -> None:
        """That many tasks may run at once, from now on: the scheduler is started anew."""
        if self.env[PARALLELISM] != str(slots):
            self.env[PARALLELISM] = str(slots)
            self.restart("scheduler")

    def said(self) -> str:
        """The end of each log."""
        return "\n".join(service.said(25) for service in self.services.values())

    # Runs.

    def trigger(self, dag: str, *, logical_date: str | None = None, **conf: Any) -> str:
        """Start a run; its id."""
        run = f"test_{next(self._runs)}"
        self.control.trigger(dag, run, conf, logical_date)
        return run

    def task(self, place: Place) -> dict[str, Any]:
        """``state``, ``try_number``, ``start`` and ``end`` of a task; empty before it exists."""
        for task in self.control.tasks(place.dag, place.run):
            if (task["task_id"], task["map_index"]) == (place.task, place.map_index):
                return task
        return {"state": None, "try_number": 0}

    def wait_task(self, place: Place, *states: str, seconds: float = WAIT) -> dict[str, Any]:
        """The task, once it is in one of the states (default: it has ended)."""
        wanted = states or TERMINAL

        def look() -> dict[str, Any] | None:
            task = self.task(place)
            return task if task["state"] in wanted else None

        def said() -> str:
            return f"it is {self.task(place)['state']}\n{self.task_log(place)[-6000:]}\n{self.said()}"

        return until(f"{place} to be {wanted}", look, seconds, said=said, every=LOOK)

    def wait_run(self, dag: str, run: str, seconds: float = WAIT) -> str:
        """The state in which it ends."""

        def look() -> str | None:
            state = self.control.run_state(dag, run)
            return state if state in TERMINAL else None

        return until(f"run {run} of {dag} to end", look, seconds, said=self.said, every=LOOK)

    def task_log(self, place: Place) -> str:
        """All that the task's tries have said, in the worker and in the triggerer."""
        folder = self.home / "logs" / f"dag_id={place.dag}" / f"run_id={place.run}" / f"task_id={place.task}"
        if place.map_index >= 0:
            folder /= f"map_index={place.map_index}"
        return "\n".join(path.read_text(errors="replace") for path in sorted(folder.glob("attempt=*")))

    def mark(self, place: Place, state: str) -> None:
        """As with the button: ``failed`` or ``success``."""
        self.control.mark(place.dag, place.run, place.task, state)

    def clear(self, place: Place) -> None:
        """As with the button, while it runs."""
        self.control.clear(place.dag, place.run, place.task)


def _settings(port: int, parallelism: int) -> dict[str, str]:
    return {
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        PARALLELISM: str(parallelism),
        "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "64",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API__SECRET_KEY": "secret-key-of-the-tests-of-sparkbroker-and-nothing-else",
        "AIRFLOW__API_AUTH__JWT_SECRET": "jwt-secret-of-the-tests-of-sparkbroker-and-nothing-else-at-all-64-byte",
        # Patience with a busy machine, on which one of these processes gets no CPU for a while.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "120",
        "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(_free_port()),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(_free_port()),
        # The files don't change: parsing them again and again would take a tenth of a CPU.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
        "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "3600",
        # A killed triggerer's triggers are given to its successor after this.
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
    }


def _services(port: int) -> list[tuple[str, ...]]:
    background: list[tuple[str, ...]] = [
        ("triggerer", "triggerer", "--skip-serve-logs"),
        ("scheduler", "scheduler", "--skip-serve-logs"),
    ]
    if AIRFLOW_3:
        return [("api-server", "api-server", "--port", str(port)), ("dag-processor", "dag-processor"), *background]
    return background


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
