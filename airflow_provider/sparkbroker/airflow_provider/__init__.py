"""Airflow tasks that lease a Spark session: ask, wait without a worker slot, compute, give back.

What this package promises:

- It knows Airflow and the broker's client, and of Kubernetes only how Airflow is told of a worker's pod (mode CLIENT). The connection alone says where the broker is, so
  that the same DAG runs on a laptop and in a cluster.
- Parsing a DAG imports neither gRPC nor pyspark nor protobuf (and Kubernetes' client only for mode CLIENT), has no side effects, and gives the same DAG each time.
- However a task ends while its process can still act (success, failure, a kill, a timeout), its jobs are cancelled and its
  lease is given back. No other task's lease is touched: a lease is found by its name or by the task instance's own key.
- A task that defers takes no worker slot while it waits, and a restart of the triggerer keeps its place in the queue. One in
  mode CLIENT never defers: it would come back in another pod.
- The token of the connection is in no trigger's arguments, XCom, rendered template, log or lease.

What it does not promise:

- That a process that is killed with SIGKILL gives anything back: its lease then ends by its time to live, at the broker.
- That a task which a human marks as failed has five seconds to tidy up in every version of Airflow; as above.
- That a query survives its task: a retry that reattaches finds the same driver, and runs the task's code again.
"""

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """What Airflow is told of this package; the entry point of the group ``apache_airflow_provider``."""
    from sparkbroker.airflow_provider import _provider_info  # noqa: PLC0415  not needed for anything else
    from sparkbroker.client import __version__  # noqa: PLC0415

    return _provider_info.describe(__version__)
