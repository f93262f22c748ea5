#!/bin/bash
# What Spark runs in an executor's container before it is stopped, where spark.decommission.enabled is set: tells the
# executor to hand its blocks over, and waits for it for as long as the pod's grace period lets it.
set -euo pipefail
executor=$(pgrep -o -f '^[^ ]*java .*KubernetesExecutorBackend') || exit 0
kill -s "${SPARK_DECOM_SIGNAL:-PWR}" "$executor"
tail --pid="$executor" -f /dev/null
