"""The Spark image in pods of the restricted Pod Security standard: its layout, its archives, any user.

``SPARKBROKER_TEST_IMAGE``: by default the one that ``make cluster`` loads.
"""

import json
import os

import pytest

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(240)]
IMAGE = os.environ.get("SPARKBROKER_TEST_IMAGE", "sparkbroker.test/spark:1")
CONTAINED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


@pytest.fixture
def output(kubectl, namespace):
    """``output(*words, user=185)``: what a container of the image prints when it is given these arguments."""

    def run(*words, user=185):
        container = {
            "name": "it",
            "image": IMAGE,
            "imagePullPolicy": "IfNotPresent",
            "args": list(words),
            "securityContext": CONTAINED,
            "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}},
        }
        spec = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": user,
                "runAsGroup": 0,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
        }
        given = {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "it-"}, "spec": spec}
        made = kubectl("-n", namespace, "create", "-f", "-", "-o", "name", given=given)
        assert made.returncode == 0, made.stderr
        name = made.stdout.strip()
        for _ in range(4):  # Each call has less time than a busy machine may need.
            waited = kubectl("-n", namespace, "wait", name, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=40s")
            if waited.returncode == 0:
                break
        printed = kubectl("-n", namespace, "logs", name).stdout
        assert waited.returncode == 0, printed
        return printed

    return run


def test_it_is_laid_out_as_spark_s_own(output):
    script = """
      id -u; pwd; echo $SPARK_HOME; test -x /opt/decom.sh; test -x $SPARK_HOME/bin/spark-submit
      python3 -c 'import json, sys, pyspark; print(json.dumps([pyspark.__version__, sys.version_info[:2]]))'
      touch it; rm it
    """
    user, folder, home, versions = output("bash", "-euc", script).splitlines()
    assert (user, folder, home) == ("185", "/opt/spark/work-dir", "/opt/spark")
    spark, python = json.loads(versions)
    assert spark.startswith("4.3.")
    assert python == [3, 11]


@pytest.mark.parametrize("role", ["driver", "executor"])
def test_its_archives_fit_its_java_and_class_path(output, role):
    """``-Xshare:on`` refuses to start where they don't."""
    script = f"""
      java -Xshare:on -XX:SharedArchiveFile=$SPARK_HOME/{role}.jsa -Xlog:class+load -cp "$(cat $SPARK_HOME/classpath)" \\
        org.apache.spark.deploy.SparkSubmit --version 2>&1 | grep 'org.apache.spark.* source: shared objects file' | wc -l
    """
    assert int(output("bash", "-euc", script)) > 10


def test_a_user_that_it_does_not_know_has_a_name(output):
    assert output("id", "-un", user=1_000_650_000).strip() == "spark"
