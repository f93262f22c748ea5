"""DAGs run by ``dag.test()``: in this process, without scheduler and triggerer, against this run's own database."""

import importlib.util
import itertools
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

DAG_IMPORTS: Final = """\
try:
    from airflow.sdk import DAG, task, chain, Param
except ImportError:
    from airflow.decorators import task
    from airflow.models import DAG
    from airflow.models.baseoperator import chain
    from airflow.models.param import Param
"""
"""What most DAGs of tests begin with, in both versions."""
_numbers = itertools.count()


@dataclass(frozen=True)
class Run:
    """A DAG run that has ended. ``log`` is what it said on stdout and stderr; ``module`` is the DAG's file."""

    state: str
    dag_run: Any
    log: str
    module: ModuleType

    def ti(self, task_id: str, map_index: int = -1) -> Any:
        """The task instance."""
        found = [ti for ti in self.dag_run.get_task_instances() if (ti.task_id, ti.map_index) == (task_id, map_index)]
        assert len(found) == 1, f"{task_id}[{map_index}] isn't one of {sorted(self.states)}"
        return found[0]

    @property
    def states(self) -> dict[str, str]:
        """Task id, with ``[0]`` when it is mapped, -> state."""
        return {
            ti.task_id + (f"[{ti.map_index}]" if ti.map_index >= 0 else ""): str(ti.state or "none")
            for ti in self.dag_run.get_task_instances()
        }

    def xcom(self, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """A value that the task has pushed; None if it hasn't."""
        return self.ti(task_id, map_index).xcom_pull(task_ids=task_id, key=key, map_indexes=map_index)


def environment(home: Path) -> dict[str, str]:
    """The settings of an Airflow that has all of its own in ``home``."""
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__FERNET_KEY": "81HqDtbqAywKSOumSha3BhWNOdQ26slT6K0YaZeZyPs=",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db?timeout=60",
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        # Its provider is there for what a session gets of it, and is to send nothing.
        "AIRFLOW__OPENLINEAGE__DISABLED": "True",
    }


def load(source: str | Path, folder: Path) -> ModuleType:
    """The module of a DAG file; ``source`` is its text (imports of DAG_IMPORTS are there), or a file to take as it is.

    Airflow 3 runs no DAG that isn't in its folder: a file goes there, with what is beside it.
    """
    if isinstance(source, Path):
        path = folder / source.parent.name / source.name
        if not path.exists():
            shutil.copytree(source.parent, path.parent, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        path = folder / f"dag_{next(_numbers)}.py"
        path.write_text(DAG_IMPORTS + textwrap.dedent(source))
    name = f"dag_of_a_test_{path.stem}_{next(_numbers)}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as Airflow has it: what is pickled is found by name
    spec.loader.exec_module(module)
    return module


def run(
    source: str | Path,
    *,
    conf: Mapping[str, Any] | None,
    dag: str | None,
    output: Callable[[], str],
) -> Run:
    """Run the DAG that the file binds to ``dag`` (default: the only one) to its end."""
    from airflow.utils.session import create_session

    module = load(source, Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"]))
    found = _the_dag(module, dag)
    output()
    dag_run = found.test(run_conf=dict(conf or {}))
    with create_session() as session:
        dag_run = session.merge(dag_run)
        session.refresh(dag_run)
        dag_run.get_task_instances(session=session)
        session.expunge_all()
    return Run(state=str(dag_run.state), dag_run=dag_run, log=output(), module=module)


def _the_dag(module: ModuleType, name: str | None) -> Any:
    if name is not None:
        return getattr(module, name)
    dags = {id(value): value for value in vars(module).values() if type(value).__name__ == "DAG"}
    assert len(dags) == 1, f"{module.__file__} binds {len(dags)} DAGs to names; say which is meant"
    return next(iter(dags.values()))
