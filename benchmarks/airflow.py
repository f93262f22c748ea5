"""What the Airflow provider adds: to a lease (a task of dag.test() over the bare lease), and to the parsing of a DAG.

Both sides in turns. Leases have small processes for drivers, so that Spark's own start doesn't drown what is measured.
Run it with the Python of an Airflow environment: ``.venv-airflow3/bin/python benchmarks/airflow.py [--quick]``.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.pop(0)  # this file's own folder: it would hide Airflow
sys.path.append(str(HERE.parent))

from benchmarks.airflow_dags import OURS, PLAIN  # noqa: E402
from tests.airflow.brokers import RealBroker  # noqa: E402
from tests.airflow.dag_runs import environment  # noqa: E402

PARSE = """
import sys, time
begun = time.perf_counter()
import airflow
{warm}
import importlib.util
begun = time.perf_counter()
spec = importlib.util.spec_from_file_location("the_dag", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(time.perf_counter() - begun)
print(sorted({{"grpc", "pyspark", "google.protobuf"}} & set(sys.modules)), file=sys.stderr)
"""
WARM = (
    "try:\n    import airflow.sdk, airflow.models\nexcept ImportError:\n    import airflow.models, airflow.decorators"
)


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def parse_seconds(source: str, folder: Path) -> float:
    """Of one DAG file in a process of its own, where Airflow is imported already, as in the DAG processor."""
    path = folder / "dag.py"
    path.write_text(source)
    command = [sys.executable, "-W", "ignore", "-c", PARSE.format(warm=WARM), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def parsing(folder: Path, pairs: int) -> None:
    for tasks in (1, 50):
        ours, plain = OURS.format(tasks=tasks), PLAIN.format(tasks=tasks)
        parse_seconds(ours, folder)  # writes the bytecode, if that is missing
        timed = [(parse_seconds(ours, folder), parse_seconds(plain, folder)) for _ in range(pairs)]
        one, other = (statistics.median(column) * 1e3 for column in zip(*timed, strict=True))
        ratio = spread([a / b for a, b in timed])
        print(f"| parse a DAG of {tasks} tasks | {one:.0f} ms | `@task` {other:.0f} ms | {ratio} | |", flush=True)


def lease_seconds(broker: RealBroker) -> float:
    """The bare lease: ask, wait until READY, attach, give back."""
    begun = time.perf_counter()
    with broker.client.lease(cores=1):
        pass
    return time.perf_counter() - begun


def task_seconds(dag: Any) -> float:
    """A run of a DAG with one task, by dag.test()."""
    begun = time.perf_counter()
    state = dag.test().state
    seconds = time.perf_counter() - begun
    if str(state) != "success":
        raise SystemExit(f"the run of {dag.dag_id} is {state}")
    return seconds


@contextmanager
def silence() -> Iterator[None]:
    """Airflow says much."""
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def overhead(folder: Path, pairs: int) -> None:
    """A task with a lease, less a task that does nothing, against the bare lease: in turns."""
    (folder / "home" / "dags").mkdir(parents=True)
    for name in [name for name in os.environ if name.startswith(("AIRFLOW", "SPARKBROKER"))]:
        del os.environ[name]
    os.environ.update(environment(folder / "home"))
    broker = RealBroker(folder / "b", spark=False).start()
    os.environ["AIRFLOW_CONN_SPARKBROKER_DEFAULT"] = broker.connection()
    try:
        with silence():
            from airflow.utils import db

            db.initdb()
            with_lease, empty = dags(folder / "home" / "dags")
        sides: tuple[Callable[[], float], ...] = (
            lambda: task_seconds(with_lease), lambda: task_seconds(empty), lambda: lease_seconds(broker),
        )  # fmt: skip
        with silence():
            for side in sides:
                side()
            rounds = [[side() for side in sides] for _ in range(pairs)]
    finally:
        broker.close()
    ours, plain, bare = (statistics.median(column) * 1e3 for column in zip(*rounds, strict=True))
    extra = spread([(one - two - three) * 1e3 for one, two, three in rounds])
    print(f"| a task on a lease (`dag.test()`) | {ours:.0f} ms | empty task {plain:.0f} ms + bare lease {bare:.0f} ms"
          f" | {extra} ms more | |", flush=True)  # fmt: skip


def dags(folder: Path) -> tuple[Any, Any]:
    source = f"""
try:
    from airflow.sdk import DAG, task
except ImportError:
    from airflow.decorators import task
    from airflow.models import DAG
from sparkbroker.airflow_provider.operators.base import SparkLeaseOperator

class NameOnly(SparkLeaseOperator):
    def run_with_lease(self, context, lease):
        return lease.name

with DAG("with_lease", schedule=None) as with_lease:
    NameOnly(task_id="work", cores=1, deferrable=False)

with DAG("empty", schedule=None) as empty:
    @task
    def work():
        return {json.dumps("nothing")}
    work()
"""
    path = folder / "both.py"
    path.write_text(source)
    import importlib.util

    spec = importlib.util.spec_from_file_location("both", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.with_lease, module.empty


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three rounds")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    rounds = 3 if arguments.quick else arguments.rounds
    with tempfile.TemporaryDirectory(prefix="sparkbroker-bench-") as folder:
        (Path(folder) / "parse").mkdir()
        parsing(Path(folder) / "parse", rounds)
        overhead(Path(folder), rounds)
    one, five, fifteen = os.getloadavg()
    print(f"load average {one:.1f} {five:.1f} {fifteen:.1f} on {os.cpu_count()} CPUs")


if __name__ == "__main__":
    main()
