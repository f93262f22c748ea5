"""``run`` with real Spark: the session, modules for its workers, and what remains when somebody is killed."""

import os
import re
import select
import signal
from pathlib import Path

import pytest

pytestmark = [pytest.mark.spark, pytest.mark.timeout(300)]

RUN = ("run", "--cores", "1", "--memory", "1g")


def alive(shell, pattern):
    """Pids of processes below the shell's home whose command line matches."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            traces = line.encode() + (folder / "environ").read_bytes()
        except OSError:
            continue
        if str(shell.home).encode() in traces and re.search(pattern, line):
            found.append(int(folder.name))
    return found


def wait_gone(pids, seconds=60):
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            assert select.select([descriptor], [], [], seconds)[0], f"{pid} goes on"
        finally:
            os.close(descriptor)


def end_commands(shell):
    for pid in alive(shell, r"^python -c"):
        os.kill(pid, signal.SIGKILL)


def test_a_program_gets_a_session_with_its_modules_on_the_workers(shell):
    module = shell.home / "a%20b # ü?" / "triple.py"
    module.parent.mkdir()
    module.write_text("def triple(x):\n    return 3 * x\n")
    program = shell.home / "program.py"
    program.write_text(
        "from pyspark.sql import SparkSession\n"
        "from pyspark.sql.functions import udf\n"
        "spark = SparkSession.builder.getOrCreate()\n"
        "@udf('long')\n"
        "def f(x):\n"
        "    import triple\n"
        "    return triple.triple(x)\n"
        "print(spark.conf.get('spark.sql.session.timeZone'), spark.range(5).select(f('id')).toPandas().sum().item())\n"
        "import os\n"
        "assert os.environ['no_grpc_proxy'].startswith('elsewhere.example,127.0.0.1'), os.environ['no_grpc_proxy']\n"
    )
    properties = shell.home / "spark.properties"
    properties.write_text("# comment\nspark.sql.session.timeZone   Europe/Tallinn\nspark.driver.memory=1g\n")
    options = ("--properties-file", str(properties), "--py-files", str(module))
    proxies = {"http_proxy": "http://127.0.0.1:9", "no_proxy": "elsewhere.example"}  # which refuses every connection
    process = shell.start("run", *options, "--", "python", str(program), env=proxies)
    output, errors = process.communicate(timeout=200)
    assert (output, process.returncode) == ("Europe/Tallinn 30\n", 0), errors
    assert "starting" in errors
    assert alive(shell, "SparkConnectServer|--embedded") == []


WAITING = (
    "from pyspark.sql import SparkSession as S; print(S.builder.getOrCreate().range(9).count(), flush=True); input()"
)


@pytest.mark.promise(6)
@pytest.mark.parametrize("victim", ["run", "broker"])
def test_whoever_is_killed_nothing_of_the_session_remains(shell, victim):
    read, write = os.pipe()
    code = WAITING.replace("input()", f"import os; os.read({read}, 1)")
    process = shell.start(*RUN, "--", "python", "-c", code, pass_fds=[read])
    os.close(read)
    assert process.stdout.readline() == "9\n", process.stderr.read()
    drivers = alive(shell, "SparkConnectServer|java")
    brokers = alive(shell, "--embedded")
    assert drivers
    assert len(brokers) == 1
    os.kill(process.pid if victim == "run" else brokers[0], signal.SIGKILL)
    wait_gone(drivers + brokers)
    if victim == "broker":
        end_commands(shell)  # it would wait for us, and then for the session that is no more
    process.communicate(timeout=120)
    wait_gone(alive(shell, "."))
    os.close(write)
    assert list(shell.scratch.glob("sparkbroker-*")) == []


@pytest.mark.promise(9)
def test_a_driver_that_dies_ends_the_command_and_its_last_words_are_told(shell, broker):
    process = shell.start(
        *RUN, "--", "sh", "-c", "trap 'echo ended; exit 1' TERM; echo up; while :; do sleep 0.1; done"
    )
    assert process.stdout.readline() == "up\n"
    [driver] = alive(shell, r"/java ")
    os.kill(driver, signal.SIGKILL)
    output, errors = process.communicate(timeout=120)
    assert (output, process.returncode) == ("ended\n", 6), errors
    assert "DRIVER_LOST" in errors
    assert "SIGKILL" in errors
    assert "The driver's last log lines:" in errors
