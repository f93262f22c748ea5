"""What the benchmarks start and look at: a real broker, the bare echo server, their processes, and the table's rows."""

import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from sparkbroker.broker.adapters.static_tokens import new_token

HERE = Path(__file__).parent
SERVICE = "/sparkbroker.v1.BrokerService/"
CONFIG = """
[server]
listen = ["tcp://127.0.0.1:{port}"]
tokens = "{folder}/tokens.toml"
metrics = "127.0.0.1:{metrics_port}"
log_level = "{log_level}"
{server}

[store]
state_folder = "{folder}/state"
{store}

[leases]
max_live_per_principal = 1000000
{leases}

[capacity.local]
cpu = 100000
memory = "1000t"
"""


class Broker(NamedTuple):
    """A broker's process. ``headers`` let a call in."""

    port: int
    process: "subprocess.Popen[str]"
    headers: dict[str, str]
    metrics_port: int

    @property
    def pid(self) -> int:
        return self.process.pid


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def temporary_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sparkbroker-bench-") as folder:
        yield Path(folder)


@contextmanager
def ended(process: "subprocess.Popen[str]") -> Iterator["subprocess.Popen[str]"]:
    """Ends with the block."""
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@contextmanager
def broker(
    folder: Path,
    *,
    server: str = "",
    store: str = "",
    leases: str = "",
    rest: str = "",
    logs: bool = False,
    env: Mapping[str, str] | None = None,
    log_file: Path | None = None,
) -> Iterator[Broker]:
    """The real thing, everything on. Each section's own lines; with ``logs`` its log, as JSON, is on ``stderr``. ``env`` is
    added to its environment; ``log_file`` gets what it says otherwise.

    With ``logs`` this doesn't wait until it accepts connections.
    """
    port, metrics_port, (token, entry) = free_port(), free_port(), new_token("bench")
    (folder / "tokens.toml").touch(mode=0o600)
    (folder / "tokens.toml").write_text(entry)
    text = CONFIG.format(
        port=port, metrics_port=metrics_port, folder=folder, log_level="info" if logs else "warning",
        server='log_format = "json"\n' + server, store=store, leases=leases,
    )  # fmt: skip
    (folder / "broker.toml").write_text(text + rest)
    command = [sys.executable, "-m", "sparkbroker.broker", "serve", "--config", str(folder / "broker.toml")]
    with ExitStack() as stack:
        errors = subprocess.PIPE if logs else stack.enter_context(log_file.open("wb")) if log_file else None
        started = subprocess.Popen(command, text=True, stderr=errors, env={**os.environ, **(env or {})})
        process = stack.enter_context(ended(started))
        if not logs:
            wait_for_port(port, process)
        yield Broker(port, process, {"authorization": f"Bearer {token}"}, metrics_port)


def wait_for_port(port: int, process: "subprocess.Popen[str]", pause: float = 0.05) -> None:
    """Until connections are accepted."""
    deadline = time.perf_counter() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.perf_counter() > deadline:
                raise SystemExit(f"{process.args!r} did not start") from None
            time.sleep(pause)
        else:
            return


@contextmanager
def echo(event_loop: str) -> Iterator[tuple[int, int]]:
    """(port, pid) of the echo server."""
    command = [sys.executable, str(HERE / "echo_server.py"), event_loop]
    with ended(subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline()), process.pid


def cpu_seconds(pid: int) -> float:
    """User and system, of all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def row(what: str, ours: str, peer: str, ratio: str, goal: str) -> None:
    """A row of the table in README.md."""
    print(f"| {what} | {ours} | {peer} | {ratio} | {goal} |", flush=True)


def load() -> str:
    """What else the machine does: a figure without it means little."""
    one, five, fifteen = os.getloadavg()
    return f"load average {one:.1f} {five:.1f} {fifteen:.1f} on {os.cpu_count()} CPUs"
