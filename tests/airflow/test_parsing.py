"""A DAG file is parsed again and again, in a process of its own: it must load little and come out the same."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples" / "airflow").glob("*.py"))

PARSE = """
import importlib.util, json, sys
import airflow.models  # what it loads itself isn't ours: 2.11, the client of Kubernetes where that is installed
HEAVY = {"grpc", "pyspark", "google.protobuf", "kubernetes"}
modules, loaded = [], []
for number, path in enumerate(sys.argv[1:]):
    spec = importlib.util.spec_from_file_location(f"parsed_{number}", path)
    modules.append(importlib.util.module_from_spec(spec))
    before = HEAVY & set(sys.modules)
    spec.loader.exec_module(modules[-1])
    loaded.append(sorted(HEAVY & set(sys.modules) - before))
# Only now: it loads more than a DAG file may.
try:
    from airflow.serialization.serialized_objects import DagSerialization as Serialized
except ImportError:
    from airflow.serialization.serialized_objects import SerializedDAG as Serialized
for path, module, heavy in zip(sys.argv[1:], modules, loaded):
    dag = next(value for value in vars(module).values() if type(value).__name__ == "DAG")
    written = Serialized.to_dict(dag)
    read = Serialized.from_dict(json.loads(json.dumps(written)))
    print(json.dumps({
        "path": path,
        "loaded": heavy,
        "written": json.dumps(written, sort_keys=True),
        "tasks": sorted(dag.task_ids),
        "read": sorted(read.task_ids),
    }))
"""


def parse(*paths: Path) -> dict[Path, Any]:
    """What a new process finds in these files."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PARSE, *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"path"')]
    return {Path(each["path"]): each for each in found}


@pytest.fixture(scope="module")
def parsed(airflow_home: Path) -> tuple[dict[Path, Any], dict[Path, Any]]:
    """The examples, by two processes."""
    return parse(*EXAMPLES), parse(*EXAMPLES)


@pytest.mark.timeout(420)
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_loads_little_and_parses_to_the_same_dag_twice(parsed, path):
    first, second = (each[path] for each in parsed)
    # A worker's pod is described in the classes of Kubernetes' client: where the predecessor's client mode is the default.
    assert set(first["loaded"]) <= ({"kubernetes"} if path.stem == "from_pyspark_on_k8s" else set())
    assert first["written"] == second["written"]
    assert first["tasks"] == first["read"] != []


MAPPED = """
try:
    from airflow.sdk import DAG, task
except ImportError:
    from airflow.decorators import task
    from airflow.models import DAG
from datetime import timedelta
from sparkbroker.airflow_provider.compat import Memory, PySparkOnK8sOperator, SparkBaseConf, SparkExecutorConf
from sparkbroker.airflow_provider.operators.lease import spark_lease
from sparkbroker.airflow_provider.operators.script import SparkScriptOperator
from sparkbroker.airflow_provider.operators.sql import SparkSqlOperator

with DAG("many", schedule=None) as dag:
    with spark_lease(cores=2, acquire_timeout=timedelta(minutes=5)) as lease:
        SparkSqlOperator.partial(task_id="sql", lease=lease).expand(sql=["select 1", "select 2"])

    @task.spark_session(executors=[1, 2], conf={"spark.sql.shuffle.partitions": None}, on_retry="reattach", retries=2)
    def f(x, spark=None, *, lease): ...

    f.partial().expand(x=[1, 2])
    f.override(task_id="g", deferrable=True)(x=3)
    PySparkOnK8sOperator.partial(
        task_id="old",
        python_callable=lambda spark: 1,
        spark_base_conf=SparkBaseConf(jars=["a:b:1"]),
        spark_executor_conf=SparkExecutorConf(memory=Memory.gibibytes(2), tolerations=[{"key": "spark"}]),
    ).expand(spark_extra_conf=[{"spark.a": 1}, {"spark.a": None}])
    SparkScriptOperator(task_id="script", script="x.py", arguments=["{{ ds }}"], deferrable=True)
"""


@pytest.mark.timeout(420)
def test_mapped_deferred_and_shared_tasks_parse_to_the_same_dag_twice(airflow_home, tmp_path):
    path = tmp_path / "many.py"
    path.write_text(MAPPED)
    first, second = parse(path)[path], parse(path)[path]
    assert first == second
    assert set(first["loaded"]) <= {"kubernetes"}  # for `old` alone, whose mode is CLIENT
    assert first["read"] == ["acquire_spark_lease", "f", "g", "old", "release_spark_lease", "script", "sql"]
