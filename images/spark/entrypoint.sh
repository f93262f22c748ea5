#!/bin/bash
# What runs in this image's containers, with the interface of apache/spark's:
#   driver …     spark-submit in client mode, as Spark's cluster mode wants it
#   executor     an executor, told what to be by environment variables
#   anything     that command
set -euo pipefail

# An id that isn't in /etc/passwd (OpenShift picks one) gets a name: Hadoop asks for it.
if ! getent passwd "$(id -u)" >/dev/null && passwd=$(mktemp 2>/dev/null); then
  for wrapper in /usr/lib/*/libnss_wrapper.so; do
    export LD_PRELOAD=$wrapper NSS_WRAPPER_PASSWD=$passwd NSS_WRAPPER_GROUP=/etc/group
    echo "spark:x:$(id -u):$(id -g):spark:$SPARK_HOME:/bin/false" >"$passwd"
  done
fi

case "${1:-}" in
  driver)
    shift
    exec tini -s -- "$SPARK_HOME/bin/spark-submit" \
      --conf "spark.driver.bindAddress=$SPARK_DRIVER_BIND_ADDRESS" \
      --conf "spark.executorEnv.SPARK_DRIVER_POD_IP=$SPARK_DRIVER_BIND_ADDRESS" \
      --deploy-mode client "$@"
    ;;
  executor)
    options=()
    while read -r name; do
      options+=("${!name}")
    done < <(compgen -A export SPARK_JAVA_OPT_ | sort -t_ -k4 -n)
    # The archive fits a class path that begins as the one it was made for. What Spark puts first stays first, and makes
    # the start slower; what only adds files comes last.
    classes=$(cat "$SPARK_HOME/classpath")
    [ -z "${SPARK_CLASSPATH:-}" ] || classes=$SPARK_CLASSPATH:$classes
    for folder in "${SPARK_CONF_DIR:-$SPARK_HOME/conf}" "${HADOOP_CONF_DIR:-}"; do
      if [ -n "$folder" ] && [ -n "$(ls -A "$folder" 2>/dev/null)" ]; then classes=$classes:$folder; fi
    done
    [ -z "${SPARK_DIST_CLASSPATH:-}" ] || classes=$classes:$SPARK_DIST_CLASSPATH
    exec tini -s -- java "-XX:SharedArchiveFile=$SPARK_HOME/executor.jsa" "${options[@]}" \
      "-Xms$SPARK_EXECUTOR_MEMORY" "-Xmx$SPARK_EXECUTOR_MEMORY" -cp "$classes" \
      org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
      --driver-url "$SPARK_DRIVER_URL" \
      --executor-id "$SPARK_EXECUTOR_ID" \
      --cores "$SPARK_EXECUTOR_CORES" \
      --app-id "$SPARK_APPLICATION_ID" \
      --hostname "$SPARK_EXECUTOR_POD_IP" \
      --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID" \
      --podName "$SPARK_EXECUTOR_POD_NAME"
    ;;
  *)
    exec tini -s -- "$@"
    ;;
esac
