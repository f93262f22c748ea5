"""A program as a child process: its output, its status, its environment, and its end in every case."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from sparkbroker.airflow_provider import child
from sparkbroker.airflow_provider.artifacts import Artifacts
from sparkbroker.airflow_provider.operators import script as script_module
from sparkbroker.airflow_provider.request import InvalidArgument
from sparkbroker.client import ConnectConnection, LocalConnection
from sparkbroker.client.local_settings import local_settings
from tests.airflow.processes import until

try:
    from airflow.sdk.log import redact
except ImportError:
    from airflow.utils.log.secrets_masker import redact


class Ended(BaseException):
    """What a signal's handler may raise."""


def run(source, *arguments, check=lambda: None, environment=None, folder=None):
    lines: list[str] = []
    command = [sys.executable, "-c", textwrap.dedent(source), *arguments]
    status = child.run_child(
        command, environment=environment or dict(os.environ), folder=folder, say=lines.append, check=check
    )
    return status, lines


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_both_streams_are_told_line_by_line():
    status, lines = run("""
        import sys
        print("one", flush=True)
        print("zwei ü", file=sys.stderr, flush=True)
        sys.stdout.buffer.write(b"\\xff no end")
        sys.exit(3)
    """)
    assert (status, lines) == (3, ["one", "zwei ü", "� no end"])


def test_a_long_line_is_told_in_pieces():
    status, lines = run(f"print('x' * {3 * child.LONGEST_LINE + 5}); print('end')")
    assert status == 0
    assert "".join(lines[:-1]) == "x" * (3 * child.LONGEST_LINE + 5)
    assert max(map(len, lines)) <= child.LONGEST_LINE
    assert lines[-1] == "end"


def test_arguments_environment_and_folder_arrive(tmp_path):
    environment = {"PATH": os.environ["PATH"], "A": "b c"}
    status, lines = run(
        "import os, sys; print(sys.argv[1:], os.environ['A'], os.getcwd())",
        "x y",
        "$HOME",
        environment=environment,
        folder=str(tmp_path),
    )
    assert (status, lines) == (0, [f"['x y', '$HOME'] b c {tmp_path}"])


def test_a_signal_is_told_as_its_negative_number():
    assert run("import os; os.kill(os.getpid(), 9)")[0] == -signal.SIGKILL


def test_what_can_not_be_started_says_so():
    lines: list[str] = []
    status = child.run_child(
        ["/nowhere/python"], environment=dict(os.environ), folder=None, say=lines.append, check=lambda: None
    )
    assert (status, lines) == (127, ["/nowhere/python: No such file or directory"])


FAMILY = """
    import os, signal, subprocess, sys
    if {stubborn}:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    grandchild = subprocess.Popen([sys.executable, "-c", "import signal, sys; print('up', flush=True); signal.pause()"])
    print(os.getpid(), grandchild.pid, flush=True)
    {then}
"""


@pytest.mark.parametrize("stubborn", [False, True])
def test_an_error_here_ends_the_child_and_its_children(stubborn):
    lines: list[str] = []

    def check():
        if len(lines) >= 2:
            raise Ended

    command = [sys.executable, "-c", textwrap.dedent(FAMILY.format(stubborn=stubborn, then="signal.pause()"))]
    with pytest.raises(Ended):
        child.run_child(command, environment=dict(os.environ), folder=None, say=lines.append, check=check)
    (pids,) = (line.split() for line in lines if line[0].isdigit())
    until("the family to end", lambda: not any(alive(int(pid)) for pid in pids), 10)


def test_children_that_outlive_the_child_are_ended_and_not_waited_for():
    status, lines = run(FAMILY.format(stubborn=False, then="sys.exit(0)"))
    assert status == 0
    (pids,) = (line.split() for line in lines if line[0].isdigit())
    until("the family to end", lambda: not any(alive(int(pid)) for pid in pids), 10)


def test_the_child_dies_with_this_process(tmp_path):
    program = textwrap.dedent("""
        import os, sys
        from sparkbroker.airflow_provider.child import run_child
        code = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
        run_child([sys.executable, "-c", code], environment=dict(os.environ), folder=None,
                  say=lambda line: print(line, flush=True), check=lambda: None)
    """)
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until("the child to die", lambda: not alive(pid), 10)


# The environment.

CONNECT = ConnectConnection(
    endpoint="sc://127.0.0.1:15002",
    session_id="0f0e0d0c-0000-4000-8000-000000000001",
    user_id="u",
    headers={"authorization": "Bearer s3cret"},
    use_tls=True,
    ca_certificate="PEM",
)


def test_a_connect_lease_is_given_by_spark_remote_and_is_masked(tmp_path):
    variables = script_module._connect("leases/a", CONNECT, {"no_grpc_proxy": "mine"}, tmp_path)
    assert variables["SPARK_REMOTE"].startswith(
        "sc://127.0.0.1:15002/;authorization=Bearer%20s3cret;user_id=u;session_id="
    )
    assert variables["SPARK_REMOTE"].endswith(";use_ssl=true")
    assert Path(variables["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"]).read_text() == "PEM"
    assert variables["no_grpc_proxy"] == "mine,127.0.0.1,::1,localhost"
    assert redact(f"opening {variables['SPARK_REMOTE']} with Bearer s3cret") == "opening *** with ***"


def test_a_local_lease_is_given_by_a_file_that_only_we_can_read(tmp_path):
    connection = LocalConnection(master="local[2]", conf={"spark.driver.memory": "1g", "spark.x": "a b=c\\:#é\t!"})
    brought = Artifacts(py_files=("/x/lib.py",))
    python = script_module._Python("/v/python", str(tmp_path), {"PATH": os.environ["PATH"], "JAVA_HOME": "/j"})
    variables = script_module._local("leases/a", connection, {"spark.app.name": "my app"}, brought, python, tmp_path)
    file = tmp_path / "spark.conf"
    assert f"--properties-file {file} pyspark-shell" in variables["PYSPARK_SUBMIT_ARGS"]
    assert variables["PYSPARK_PYTHON"] == "/v/python"
    assert "JAVA_HOME" not in variables, "the task's own is kept"
    assert file.stat().st_mode & 0o777 == 0o600
    written = dict(line.split("=", 1) for line in file.read_text().splitlines() if not line.startswith("spark.x"))
    assert {key: value for key, value in written.items() if key not in local_settings({"spark.master": "local"})} | {
        "spark.master": written["spark.master"]
    } == {
        "spark.app.name": "my\\ app",
        "spark.driver.memory": "1g",
        "spark.master": "local[2]",
        "spark.submit.pyFiles": "/x/lib.py",
    }
    assert "spark.x=a\\ b\\=c\\\\\\:\\#é\\t\\!" in file.read_text()


def test_what_would_mislead_pyspark_does_not_reach_the_program():
    environ = {"SPARK_REMOTE": "sc://elsewhere", "SPARK_CONNECT_AUTHENTICATE_TOKEN": "t", "MASTER": "m", "HOME": "/h"}
    environ |= {"A": "1", "PYTHONPATH": "/mine"}
    merged = script_module._merged(environ, {"SPARK_REMOTE": "sc://ours"}, ["/x.zip"])
    assert merged.pop("PYTHONPATH").split(":")[1:] == ["/x.zip", "/mine"]
    assert merged == {"PYTHONUNBUFFERED": "1", "HOME": "/h", "A": "1", "SPARK_REMOTE": "sc://ours"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: script_module._texts("a b", "arguments"), "arguments: 'a b' is not a list; give a list"),
        (lambda: script_module._texts([None], "arguments"), r"arguments\[0\]: None is neither text nor a number"),
        (lambda: script_module._environment(["A=b"]), "env: .* is not a mapping; give a dict"),
        (
            lambda: script_module._environment({"SPARK_REMOTE": "x"}),
            "env: SPARK_REMOTE is set from the lease; leave it out",
        ),
    ],
)
def test_bad_values_name_the_argument(call, message):
    with pytest.raises(InvalidArgument, match=message):
        call()


def test_the_version_is_that_of_the_python_that_runs_the_program(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 3.2\n")
    python.chmod(0o755)

    def version(name, path=os.environ["PATH"]):
        return script_module._version(script_module._Python(name, str(tmp_path), {"PATH": path}))

    assert version(str(python)) == version("./python") == version("python", f"{tmp_path}:/bin") == "3.2"
    assert version(sys.executable) == f"{sys.version_info.major}.{sys.version_info.minor}"
    with pytest.raises(InvalidArgument, match=r"python: '/nowhere/python' can't be run \(.*\); give a Python"):
        version("/nowhere/python")


# With Airflow.

PROGRAM = """
import os, sys
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
if sys.argv[1] == "fail":
    print("going to fail")
    sys.exit(7)
import helper
from pyspark.sql.functions import udf
@udf("long")
def twice(x):
    import helper
    return helper.twice(x)
print(os.environ["WHO"], "computed", spark.range(5).select(twice("id").alias("t")).groupBy().sum("t").first()[0])
"""
SCRIPTS = """
from sparkbroker.airflow_provider.operators.lease import spark_lease
from sparkbroker.airflow_provider.operators.script import SparkScriptOperator

with DAG("scripts", schedule=None, params={{"who": "the driver"}}) as dag:
    def script(task_id, *arguments, **more):
        given = {{"script": "{odd}/program of test.py"}} | more
        return SparkScriptOperator(task_id=task_id, arguments=list(arguments), **given)

    with spark_lease(memory="600m") as lease:
        script("works", 1, env={{"WHO": "{{{{ params.who }}}}"}}, py_files=["{odd}/helper.py"], lease=lease)
        script("fails", "fail", lease=lease)
        script("missing", script="nowhere.py", lease=lease)
        script("again", 1, env={{"WHO": "another"}}, py_files="{odd}/helper.py", lease=lease)
"""


@pytest.mark.spark
@pytest.mark.timeout(400)
def test_programs_run_on_one_lease_one_session_each(spark_broker, run_dag, airflow_home):
    folder = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    odd = folder / "100%20 #1?"  # what a URL would be read otherwise
    odd.mkdir()
    (odd / "program of test.py").write_text(PROGRAM)
    (odd / "helper.py").write_text("def twice(x):\n    return 2 * x\n")
    run = run_dag(SCRIPTS.format(odd=odd.name))
    states = run.states
    assert {name: states[name] for name in ("works", "again", "fails", "missing")} == {
        "works": "success",
        "again": "success",
        "fails": "failed",
        "missing": "failed",
    }, run.log[-4000:]
    assert "the driver computed 20" in run.log
    assert "another computed 20" in run.log
    assert "program of test.py has ended with exit status 7; its output is above" in run.log
    assert "script: there is no 'nowhere.py'" in run.log
