"""The names of ``apache-airflow-providers-pysparkonk8s``, for DAGs written for it: change the import, and they run.

``airflow.providers.pysparkonk8s`` becomes ``sparkbroker.airflow_provider.compat``; its modules ``config``, ``operators``,
``decorators`` and ``resources`` are here too, and ``@task.pyspark_on_k8s`` needs no import. All its arguments are taken:
``arguments`` says what becomes of each. What has no meaning here warns once, and says what to use.

What this doesn't promise: that an argument which the lease's profile doesn't allow is obeyed (the broker refuses it, by
name), or that a pod looks as it did. Client mode is the default as it was there: mode CLIENT in a worker that knows which pod it
is, and in others mode LOCAL, a classic session whose executors are threads of the task's process.
"""

from typing import TYPE_CHECKING, Any

from sparkbroker.airflow_provider.compat.config import (
    Sentinel,
    SparkBaseConf,
    SparkDeployMode,
    SparkDriverConf,
    SparkExecutorConf,
)
from sparkbroker.airflow_provider.compat.resources import CPU, Memory

if TYPE_CHECKING:
    from sparkbroker.airflow_provider.compat.decorators import pyspark_on_k8s_task
    from sparkbroker.airflow_provider.compat.operators import PySparkOnK8sOperator

__all__ = [
    "CPU",
    "Memory",
    "PySparkOnK8sOperator",
    "Sentinel",
    "SparkBaseConf",
    "SparkDeployMode",
    "SparkDriverConf",
    "SparkExecutorConf",
    "pyspark_on_k8s_task",
]

_MODULE_OF = {"PySparkOnK8sOperator": "operators", "pyspark_on_k8s_task": "decorators"}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415  a configuration needs no operator

    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
