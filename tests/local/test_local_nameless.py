"""Drivers of a user whom the system's user database doesn't know, as containers have them, and of one without a home."""

import json
import os
import subprocess
import sys

import pytest

from sparkbroker.client import nameless_user
from tests import java

UID = 54321
AS_NAMELESS = ["unshare", "-U", f"--map-user={UID}", f"--map-group={UID}"]
TRIAL = """
import sys
from pathlib import Path
from sparkbroker.broker.adapters.local_provisioner import Toolchain, find_java, find_python, find_spark, trial
from sparkbroker.broker.adapters.local_provisioner import _spark
if sys.argv[2] == "as it was":
    _spark.java_options = lambda *_: ()
print(trial(Toolchain(spark=find_spark(None), java=find_java(None), python=find_python(None)), Path(sys.argv[1])))
"""


@pytest.fixture
def nameless():
    """A command line's beginning that makes who runs it such a user."""
    if subprocess.run([*AS_NAMELESS, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    return AS_NAMELESS


def test_a_user_with_a_name_needs_nothing(tmp_path):
    assert nameless_user.user_name(os.getuid())
    assert nameless_user.java_options(tmp_path, {}) == ()
    assert list(tmp_path.iterdir()) == []


def test_options_stand_before_those_that_there_are():
    conf = {"spark.driver.defaultJavaOptions": "-Da=b", "spark.x": "y"}
    assert nameless_user.with_java_options(conf, ["-Dc=d e"]) == {
        "spark.driver.defaultJavaOptions": "'-Dc=d e' -Da=b",
        "spark.x": "y",
    }
    assert nameless_user.with_java_options(conf, []) == conf


@pytest.mark.spark
@pytest.mark.parametrize(
    ("how", "said"), [("mended", ""), ("as it was", "java.lang.NullPointerException: invalid null input: name")]
)
def test_the_trial_logs_in_as_a_driver_does(tmp_path, nameless, how, said):
    command = [*nameless, sys.executable, "-c", TRIAL, str(tmp_path), how]
    environ = {"PATH": os.environ["PATH"], **java.ENVIRONMENT}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100, check=True)
    assert said in done.stdout
    assert bool(done.stdout.strip()) is bool(said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.spark
@pytest.mark.timeout(120)
def test_doctor_says_that_run_does_without_a_home(tmp_path, nameless):
    command = [*nameless, sys.executable, "-P", "-m", "sparkbroker.broker", "doctor", "-o", "json"]
    environ = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), **java.ENVIRONMENT}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    findings = {each["what"]: each for each in json.loads(done.stdout)}
    assert findings["configuration"]["status"] == "warn", "serve doesn't do without"
    assert "this user has no home" in findings["configuration"]["found"]
    assert findings["Java's start"]["status"] == "ok"
    assert {"state folder", "class archive of serve"}.isdisjoint(findings)


COUNT = "from pyspark.sql import SparkSession as S; print(S.builder.getOrCreate().range(5).count())"


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", ["connect", "local"])
def test_it_has_sessions_without_a_home(tmp_path, nameless, mode):
    command = [*nameless, sys.executable, "-m", "sparkbroker.broker", "run", "--mode", mode, "--memory", "1g", "--"]
    environ = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), **java.ENVIRONMENT}
    done = subprocess.run(
        [*command, sys.executable, "-c", COUNT], env=environ, capture_output=True, text=True, timeout=250, check=False
    )
    assert (done.returncode, done.stdout.split()[-1:]) == (0, ["5"]), done.stderr
