"""What tests of the provider have: Airflow with a home of its own, real brokers, and DAGs that run.

They run in Airflow's environments (``make test-airflow``), where the core's packages aren't; in the core's, where Airflow
isn't, none of them is collected.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HAS_AIRFLOW = importlib.util.find_spec("airflow") is not None
GUARD = Path(__file__).with_name("guard.py")
collect_ignore_glob = [] if HAS_AIRFLOW else ["test_*.py"]

if HAS_AIRFLOW:
    from tests.airflow import dag_runs
    from tests.airflow.brokers import PYTHON, RealBroker
    from tests.airflow.services import Airflow

WARNINGS = (
    # Airflow's own, of which there are many; ours stay errors.
    "ignore",
    "error:::sparkbroker",
    "error:::tests",
)


def pytest_configure(config: pytest.Config) -> None:
    """Airflow reads its settings when it is imported, so they are set before any test module is."""
    if not HAS_AIRFLOW:
        return
    assert "airflow" not in sys.modules, "Airflow was imported too early: it would use the user's own home"
    for line in WARNINGS:
        config.addinivalue_line("filterwarnings", line)
    home = Path(tempfile.mkdtemp(prefix="sparkbroker-airflow-"))
    config.stash[_HOME] = home
    home.chmod(0o711)  # PostgreSQL, run as nobody, goes into a folder of it
    (home / "dags").mkdir()
    for name in [name for name in os.environ if name.startswith(("AIRFLOW", "SPARKBROKER"))]:
        del os.environ[name]
    # Nothing of a test goes into the user's own: a notebook's kernel would leave its settings there.
    os.environ.update(dag_runs.environment(home), HOME=str(home))


def pytest_unconfigure(config: pytest.Config) -> None:
    if home := config.stash.get(_HOME, None):
        shutil.rmtree(home)


_HOME = pytest.StashKey[Path]()


@pytest.fixture(scope="session", autouse=True)
def guard(pytestconfig: pytest.Config, run_folder: Path, no_leftovers: None) -> Iterator[None]:
    """Ends what this run has started if the run itself is killed."""
    command = [sys.executable, "-S", "-P", str(GUARD), str(run_folder), str(pytestconfig.stash[_HOME])]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    yield
    process.communicate(b"done", timeout=30)


# Brokers.


@pytest.fixture(scope="session")
def core_environment(need: Callable[[object, str], None]) -> None:
    need(PYTHON.exists(), f"the core's environment, for the broker: {PYTHON} (make venv)")


@pytest.fixture(scope="session")
def session_folder(run_folder: Path) -> Path:
    """With a path that is short enough for a unix socket in it."""
    return Path(tempfile.mkdtemp(prefix="a", dir=run_folder))


@pytest.fixture(scope="session")
def spark_broker_process(core_environment: None, session_folder: Path) -> Iterator["RealBroker"]:
    broker = RealBroker(
        session_folder / "b",
        spark=True,
        cpu=8,
        profile='allowed_pod = ["*"]',
        extra='[queues.full]\ncpu = 1\n[profiles.with_ui]\nui = true\ndriver.cores = 1\ndriver.memory = "600m"',
    ).start()
    yield broker
    broker.close()


@pytest.fixture
def spark_broker(spark_broker_process: "RealBroker", monkeypatch: pytest.MonkeyPatch) -> Iterator["RealBroker"]:
    """A broker with real Spark, one for the whole run, which ``sparkbroker_default`` leads to. A test leaves no lease."""
    monkeypatch.setenv("AIRFLOW_CONN_SPARKBROKER_DEFAULT", spark_broker_process.connection())
    yield spark_broker_process
    spark_broker_process.until_free()


@pytest.fixture(scope="session")
def small_broker_process(core_environment: None, session_folder: Path) -> Iterator["RealBroker"]:
    broker = RealBroker(session_folder / "m", spark=False).start()
    yield broker
    broker.close()


@pytest.fixture
def small_broker(small_broker_process: "RealBroker", monkeypatch: pytest.MonkeyPatch) -> Iterator["RealBroker"]:
    """As ``spark_broker``, with drivers that are small processes: they start at once, and can't compute.

    LOCAL leases have no driver at all, and compute with a Spark of the task's own.
    """
    monkeypatch.setenv("AIRFLOW_CONN_SPARKBROKER_DEFAULT", small_broker_process.connection())
    yield small_broker_process
    small_broker_process.until_free()


@pytest.fixture
def make_broker(core_environment: None, state_folder: Path) -> Iterator[Callable[..., "RealBroker"]]:
    """``make_broker(spark=False, **settings)``: a broker of the test's own, which it may kill and start again."""
    made: list[RealBroker] = []

    def make(*, spark: bool = False, **settings: Any) -> RealBroker:
        broker = RealBroker(state_folder / f"b{len(made)}", spark=spark, **settings)
        made.append(broker)
        return broker.start()

    yield make
    for broker in made:
        broker.close()


# A whole Airflow.


LAST = ("test_secrets.py", "test_as_people_write_it.py", "test_slots.py", "test_ends.py")
TIMEOUT = 240
"""Seconds: Airflow's import and its database are the first test's, on a machine whose disk is cold."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    for item in here:
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TIMEOUT))
    items.sort(key=lambda item: _rank(item) if item in here else 0)


def _rank(item: pytest.Item) -> int:
    """What needs a whole Airflow comes last: that is started after all else, which it would slow down."""
    return 1 + LAST.index(item.path.name) if item.path.name in LAST else 0


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file at a time for each process, and all that needs a whole Airflow for one of them: there is one."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class OneAirflow(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "a whole Airflow" if Path(file).name in LAST else file

    return OneAirflow(config, log)


@pytest.fixture(scope="session")
def airflow_services(
    pytestconfig: pytest.Config, spark_broker_process: "RealBroker", session_folder: Path
) -> Iterator["Airflow"]:
    """Scheduler, LocalExecutor, triggerer (API server, DAG processor), over ``service_dags``; a test says with how many slots."""
    env = {"AIRFLOW_CONN_SPARKBROKER_DEFAULT": spark_broker_process.connection()}
    services = Airflow(
        session_folder / "w",
        Path(__file__).with_name("service_dags"),
        env,
        parallelism=2,
        open_folder=pytestconfig.stash[_HOME],
    )
    try:
        yield services.start()
    finally:
        services.stop()


# DAGs.


@pytest.fixture(scope="session")
def airflow_home() -> Path:
    """The home of the Airflow in this process, with its database made."""
    from airflow.utils import db

    db.initdb()
    return Path(os.environ["AIRFLOW_HOME"])


@pytest.fixture
def run_dag(
    airflow_home: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Callable[..., "dag_runs.Run"]:
    """``run_dag(source, conf=None, dag=None)``: run a DAG to its end by ``dag.test()``; see dag_runs.Run.

    ``source`` is the file's text, in which DAG, task and chain are imported already, or the path of a file.
    """

    def output() -> str:
        captured, logged = capfd.readouterr(), caplog.text
        caplog.clear()
        return captured.out + captured.err + logged

    def run(source: str | Path, *, conf: dict[str, Any] | None = None, dag: str | None = None) -> dag_runs.Run:
        return dag_runs.run(source, conf=conf, dag=dag, output=output)

    return run


EXAMPLES = Path(__file__).parents[2] / "examples" / "airflow"


@pytest.fixture
def run_example(
    spark_broker: "RealBroker", run_dag: Callable[..., "dag_runs.Run"], tmp_path: Path
) -> Callable[[str], "dag_runs.Run"]:
    """``run_example(name)``: an example's run, which has succeeded; it writes into ``tmp_path``."""

    def run(name: str) -> dag_runs.Run:
        done = run_dag(EXAMPLES / f"{name}.py", conf={"folder": str(tmp_path)})
        assert done.state == "success", f"{done.states}\n{done.log[-4000:]}"
        return done

    return run
