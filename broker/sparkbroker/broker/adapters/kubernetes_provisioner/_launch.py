"""The program of a driver's container: one small script that any image laid out as apache/spark's can run.

It starts ``java`` directly, with the explicit, sorted class path that the image's class archive was made with
(``$SPARK_HOME/driver.jsa`` and ``classpath``, used if they are there), through the image's entrypoint, which runs any
command. With packages or jars it runs ``spark-submit``, which resolves them.
The Connect server's token comes in the environment, everything else in files of the driver's Secret.
"""

from typing import Final

from sparkbroker.broker.adapters.local_provisioner._conf import JVM_OPTIONS, MAIN_CLASS

FILES: Final = "/etc/sparkbroker"
"""Where the Secret is mounted."""
PROPERTIES: Final = "spark.properties"
ARGUMENTS: Final = "java.arguments"
TEMPLATE: Final = "executor.json"
TOKEN: Final = "token"  # noqa: S105 (a name)
POD_IP: Final = "SPARKBROKER_POD_IP"
MORE_CLASSES: Final = "SPARKBROKER_CLASS_PATH"
"""What stands after Spark's own jars: the class archive stays valid."""
LIBRARIES: Final = "LD_LIBRARY_PATH"
TOKEN_VARIABLE: Final = "SPARK_CONNECT_AUTHENTICATE_TOKEN"  # noqa: S105 (a name)
LOCAL_DIR: Final = "/var/data/sparkbroker"
"""Spark's scratch space in the driver, an empty directory."""

_PRELUDE: Final = r"""set -eu
export SPARK_HOME="${SPARK_HOME:-/opt/spark}"
java="${JAVA_HOME:+$JAVA_HOME/bin/}java"
api="$KUBERNETES_SERVICE_HOST"
case "$api" in *:*) api="[$api]";; esac
host="$SPARKBROKER_POD_IP"
case "$host" in *:*) host="[$host]";; esac
run=""
if [ -x /opt/entrypoint.sh ]; then run=/opt/entrypoint.sh; fi
cd "${SPARKBROKER_WORK_DIR:-/var/data/sparkbroker}"
"""

_DIRECT: Final = (
    _PRELUDE
    + r"""class_path=$(cat "$SPARK_HOME/classpath" 2>/dev/null \
  || ls "$SPARK_HOME"/jars/*.jar | LC_ALL=C sort | awk '/slf4j-api/{a=$0;next}{b=b":"$0}END{print a b}')
archive=""
if [ -f "$SPARK_HOME/driver.jsa" ]; then archive="-XX:SharedArchiveFile=$SPARK_HOME/driver.jsa"; fi
exec $run "$java" $archive @/etc/sparkbroker/java.arguments \
  "-Dspark.driver.host=$host" __MASTER__ -cp "$class_path${SPARKBROKER_CLASS_PATH:+:$SPARKBROKER_CLASS_PATH}" """
    + MAIN_CLASS
    + "\n"
)

_SUBMIT: Final = (
    _PRELUDE
    + r"""export HOME=/var/data/sparkbroker SPARK_SUBMIT_OPTS="-Divy.home=/var/data/sparkbroker/ivy"
exec $run "$SPARK_HOME/bin/spark-submit" --deploy-mode client --properties-file /etc/sparkbroker/spark.properties \
  --conf "spark.driver.host=$host" __SUBMIT_MASTER__ --class """
    + MAIN_CLASS
    + " spark-internal\n"
)
_ON_CLUSTER: Final = '"-Dspark.master=k8s://https://$api:$KUBERNETES_SERVICE_PORT"'
_SUBMIT_ON_CLUSTER: Final = '--master "k8s://https://$api:$KUBERNETES_SERVICE_PORT"'


def script(*, resolves: bool, on_cluster: bool) -> str:
    """``resolves``: packages or jars are asked for. ``on_cluster``: executors run in pods; else in the driver."""
    if resolves:
        return _SUBMIT.replace("__SUBMIT_MASTER__", _SUBMIT_ON_CLUSTER if on_cluster else "")
    return _DIRECT.replace("__MASTER__", _ON_CLUSTER if on_cluster else "")


def java_options() -> tuple[str, ...]:
    """Those of every driver's JVM."""
    return ("-XX:+ExitOnOutOfMemoryError", "-XX:-UsePerfData", *JVM_OPTIONS, f"-Djava.io.tmpdir={LOCAL_DIR}")
