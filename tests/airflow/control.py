"""What a user does in the browser, for tests: by the REST API of 3, and with Airflow's own functions in 2.11."""

import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

PROGRAM: Final = Path(__file__).with_name("control_program.py")
CALL: Final = 180.0


class RestControl:
    """Airflow 3's API server, which takes everybody for an admin."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._base = f"http://{host}:{port}"
        self._token = ""

    def dags(self) -> set[str]:
        """Those that can be triggered; none while the server isn't up."""
        try:
            return {dag["dag_id"] for dag in self._call("GET", "/api/v2/dags?limit=100")["dags"]}
        except (urllib.error.URLError, OSError):
            return set()

    def triggerer_alive(self) -> bool:
        health = self._call("GET", "/api/v2/monitor/health")
        return all((health[name] or {}).get("status") == "healthy" for name in ("triggerer", "scheduler"))

    def trigger(self, dag: str, run: str, conf: Mapping[str, Any], logical_date: str | None = None) -> None:
        asked = {"dag_run_id": run, "logical_date": logical_date, "conf": dict(conf)}
        self._call("POST", f"/api/v2/dags/{dag}/dagRuns", asked)

    def runs(self, dag: str) -> list[str]:
        """Their names."""
        return [str(run["dag_run_id"]) for run in self._call("GET", f"/api/v2/dags/{dag}/dagRuns")["dag_runs"]]

    def run_state(self, dag: str, run: str) -> str:
        return str(self._call("GET", f"/api/v2/dags/{dag}/dagRuns/{run}")["state"])

    def tasks(self, dag: str, run: str) -> list[dict[str, Any]]:
        answer = self._call("GET", f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances?limit=100")
        return list(answer["task_instances"])

    def log(self, dag: str, run: str, task: str) -> str:
        """Of the first try: one line for each that it says."""
        answer = self._call("GET", f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}/logs/1?full_content=true")
        return "\n".join(str(line["event"] if isinstance(line, dict) else line) for line in answer["content"])

    def xcom(self, dag: str, run: str, task: str) -> Any:
        path = f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}/xcomEntries/return_value?deserialize=true"
        return self._call("GET", path)["value"]

    def mark(self, dag: str, run: str, task: str, state: str) -> None:
        self._call("PATCH", f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}", {"new_state": state})

    def clear(self, dag: str, run: str, task: str) -> None:
        body = {"dry_run": False, "dag_run_id": run, "task_ids": [task], "only_failed": False, "reset_dag_runs": True}
        self._call("POST", f"/api/v2/dags/{dag}/clearTaskInstances", body)

    def close(self) -> None:
        """Nothing is open between calls."""

    def _call(self, method: str, path: str, body: object = None) -> Any:
        if not self._token:
            self._token = self._send("GET", "/auth/token", None)["access_token"]
        return self._send(method, path, body)

    def _send(self, method: str, path: str, body: object) -> Any:
        headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {self._token}"} if self._token else {}
        )
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=CALL) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()[:2000]}") from error


class DatabaseControl:
    """2.11: a process with Airflow's own functions over its database, which does what the web server would."""

    def __init__(self, env: Mapping[str, str], folder: Path) -> None:
        self._turn = threading.Lock()
        with (folder / "control.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(PROGRAM)],
                env={**env, "SPARKBROKER_TEST_FOLDER": str(folder)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def dags(self) -> set[str]:
        return set(self._call("dags"))

    def triggerer_alive(self) -> bool:
        return bool(self._call("triggerer_alive"))

    def trigger(self, dag: str, run: str, conf: Mapping[str, Any], logical_date: str | None = None) -> None:
        """Of 2.11, where each run has a logical date."""
        self._call("trigger", dag, run, dict(conf))

    def run_state(self, dag: str, run: str) -> str:
        return str(self._call("run_state", dag, run))

    def tasks(self, dag: str, run: str) -> list[dict[str, Any]]:
        return list(self._call("tasks", dag, run))

    def mark(self, dag: str, run: str, task: str, state: str) -> None:
        self._call("mark", dag, run, task, state)

    def clear(self, dag: str, run: str, task: str) -> None:
        self._call("clear", dag, run, task)

    def close(self) -> None:
        self._process.communicate(timeout=CALL)

    def _call(self, name: str, *arguments: object) -> Any:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with self._turn:
            stdin.write(json.dumps([name, *arguments]) + "\n")
            stdin.flush()
            answer = stdout.readline()
        assert answer, "the control process has ended: see control.log"
        done, value = json.loads(answer)
        assert done, value
        return value
