"""The life of a lease, from an empty folder to an empty folder. ``make demo`` runs this program.

It starts a broker, leases a Spark session from it, computes with it, gives it back, and stops the broker. It reports each
step. It needs only this repository's environment, which has the Java runtime.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparkbroker.client import Broker, Progress, Timings

STARTED = time.perf_counter()
CORES = min(2, os.cpu_count() or 1)
POINTS = 2_000_000
PATIENCE = 60.0
"""The longest time in seconds for the broker to serve, and to stop."""


def say(text: str) -> None:
    print(f"{time.perf_counter() - STARTED:6.1f} s  {text}", flush=True)


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="sparkbroker-demo-"))
    try:
        with running_broker(folder) as url, Broker(url) as broker:
            name = use_a_session(broker)
            show_the_end(broker, name)
        show_what_is_left(folder)
    finally:
        shutil.rmtree(folder)
    say("the demo's folder is removed; nothing is left")


@contextmanager
def running_broker(folder: Path) -> Iterator[str]:
    """A broker that keeps everything in ``folder``; its URL."""
    say(f"starting a broker that keeps everything in {folder}")
    command = [sys.executable, "-m", "sparkbroker.broker", "serve", "--state-folder", str(folder)]
    # The demo ignores the user's own settings.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPARKBROKER")}
    environment |= {"SPARKBROKER__SERVER__LOG_FORMAT": "json", "XDG_CONFIG_HOME": str(folder / "config")}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    log = BrokerLog(process)
    try:
        log.wait_for("broker.serving")
        say(f"the broker serves (process {process.pid}), on a unix socket that only you can open")
        yield f"unix://{folder}/run/broker.sock"
    except Exception:
        say("that went wrong; the broker said:\n" + log.tail())
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(PATIENCE)
        log.close()
        say(f"the broker has stopped, with exit status {status}")


class BrokerLog:
    """The broker's stderr, read in a separate thread, so that the broker can always go on writing."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, name="broker-log")
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._add(line)
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _add(self, line: str) -> None:
        with self._changed:
            self._lines.append(line)
            self._changed.notify_all()

    def wait_for(self, event: str) -> None:
        """Return when the broker has logged ``event``; raise TimeoutError if it doesn't."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._has(event), PATIENCE)
            if not self._has(event):
                raise TimeoutError(f"the broker did not log {event} within {PATIENCE:g} s")

    def _has(self, event: str) -> bool:
        return any(f'"{event}"' in line for line in self._lines)

    def tail(self) -> str:
        """Its last lines."""
        with self._changed:
            return "".join(self._lines[-20:])

    def close(self) -> None:
        self._reader.join()


def use_a_session(broker: Broker) -> str:
    """Lease, compute, give back; the lease's name."""
    say(f'asking for a lease: Broker(url).lease(cores={CORES}, memory="1g")')
    with broker.lease(cores=CORES, memory="1g", key="demo", on_progress=show_progress) as lease:
        say(f"attached as generation {lease.generation}; renewed in the background from now on")
        show_phases(lease.refresh().timings)
        with lease.session(app_name="demo") as spark:
            say(f"connected to Spark {spark.version}")
            compute(spark)
        say("giving the lease back")
    return str(lease.name)


def show_progress(progress: Progress) -> None:
    where = f" (position {progress.position} of {progress.queue_length})" if progress.position else ""
    say(f"  {progress.state}{where}{': ' if progress.message else ''}{progress.message}")


def show_phases(timings: Timings) -> None:
    """How long each phase of the start took, by the broker's own record."""
    names = {
        "admitted": "admitted",
        "process_started": "process started",
        "port_open": "port open",
        "ready": "ready: a Connect call succeeded",
    }
    for name, shown in names.items():
        at = getattr(timings, f"{name}_time")
        if at is not None and timings.queued_time is not None:
            say(f"    +{(at - timings.queued_time).total_seconds():5.2f} s  {shown}")


def compute(spark: Any) -> None:
    """Pi, twice: with SQL on the JVM, and with a Python function on Spark's workers."""
    from pyspark.sql.functions import col, rand, udf

    points = spark.range(POINTS).select(rand(1).alias("x"), rand(2).alias("y"))
    inside = points.where(col("x") * col("x") + col("y") * col("y") <= 1).count()
    say(f"pi is about {4 * inside / POINTS:.4f}, says SQL over {POINTS:,} random points")

    def in_circle(x: float, y: float) -> bool:
        return x * x + y * y <= 1

    in_circle_udf = udf(in_circle, "boolean", useArrow=True)
    fewer = POINTS // 10
    inside = points.limit(fewer).where(in_circle_udf("x", "y")).count()
    say(f"pi is about {4 * inside / fewer:.4f}, says a Python function over {fewer:,} of them")


def show_the_end(broker: Broker, name: str) -> None:
    """Follow the lease until its driver is confirmed gone."""
    for update in broker.watch(name):
        shown = update.event if update.HasField("event") else update.snapshot
        state = broker_word(shown)
        say(f"  {state}: {shown.message}")
    used = {queue.name: dict(queue.used) for queue in broker.queues()}
    say(f"capacity in use now: {json.dumps(used)}")


def broker_word(thing: Any) -> str:
    """RELEASED, for its number in ``state``."""
    names = thing.DESCRIPTOR.fields_by_name["state"].enum_type.values_by_number
    return str(names[thing.state].name).removeprefix("LEASE_STATE_")


def show_what_is_left(folder: Path) -> None:
    """Processes that have anything to do with the demo's folder."""
    needle = os.fsencode(folder)
    left = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if needle in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid():
                left.append(entry.name)
        except OSError:
            continue  # It has ended meanwhile, or is somebody else's.
    say(f"processes of the demo that still run: {', '.join(left) or 'none'}")
    if left:
        sys.exit(1)


if __name__ == "__main__":
    main()
