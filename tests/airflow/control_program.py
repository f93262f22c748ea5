"""Airflow 2.11's own functions by name, for control.py: a JSON list per line of stdin, ``[true, result]`` per line of stdout."""

import json
import os
import sys
import traceback
from typing import Any

OUT = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # Airflow prints; only answers may go to stdout


def dags() -> list[str]:
    from airflow.models import DagModel
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.utils.session import create_session

    with create_session() as session:
        known = session.query(SerializedDagModel.dag_id).join(DagModel, DagModel.dag_id == SerializedDagModel.dag_id)
        return [name for (name,) in known.filter(DagModel.is_active)]


def triggerer_alive() -> bool:
    from airflow.jobs.job import most_recent_job

    jobs = [most_recent_job(name) for name in ("TriggererJob", "SchedulerJob")]
    return all(job is not None and job.is_alive() for job in jobs)


def trigger(dag: str, run: str, conf: dict[str, Any]) -> None:
    from airflow.api.common.trigger_dag import trigger_dag

    trigger_dag(dag_id=dag, run_id=run, conf=conf, replace_microseconds=False)


def run_state(dag: str, run: str) -> str:
    from airflow.models import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        return str(session.query(DagRun.state).filter_by(dag_id=dag, run_id=run).scalar())


def tasks(dag: str, run: str) -> list[dict[str, Any]]:
    from airflow.models import TaskInstance
    from airflow.utils.session import create_session

    with create_session() as session:
        return [
            {
                "task_id": ti.task_id,
                "map_index": ti.map_index,
                "state": None if ti.state is None else str(ti.state),
                "try_number": ti.try_number,
                "start_date": ti.start_date and ti.start_date.isoformat(),
                "end_date": ti.end_date and ti.end_date.isoformat(),
            }
            for ti in session.query(TaskInstance).filter_by(dag_id=dag, run_id=run)
        ]


def mark(dag: str, run: str, task: str, state: str) -> None:
    from airflow.utils.state import TaskInstanceState

    _dag(dag).set_task_instance_state(
        task_id=task, run_id=run, state=TaskInstanceState(state), commit=True, map_indexes=None
    )


def clear(dag: str, run: str, task: str) -> None:
    from airflow.models import TaskInstance
    from airflow.models.taskinstance import clear_task_instances
    from airflow.utils.session import create_session

    # Before the session is entered: a thread has one session, which whoever leaves it first closes, with all that is in it.
    found = _dag(dag)
    with create_session() as session:
        tis = session.query(TaskInstance).filter_by(dag_id=dag, run_id=run, task_id=task).all()
        clear_task_instances(tis, session, dag=found)


def _dag(dag: str) -> Any:
    from airflow.models.dagbag import DagBag

    return DagBag(read_dags_from_db=True).get_dag(dag)


COMMANDS = {function.__name__: function for function in (dags, triggerer_alive, trigger, run_state, tasks, mark, clear)}


def main() -> None:
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            answer = [True, COMMANDS[name](*arguments)]
        except Exception:  # noqa: BLE001  the caller is told, and fails its test
            answer = [False, traceback.format_exc()]
        OUT.write(json.dumps(answer) + "\n")
        OUT.flush()


if __name__ == "__main__":
    main()
