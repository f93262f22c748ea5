"""``@task.pyspark_on_k8s``."""

from collections.abc import Callable
from typing import Any

from sparkbroker.airflow_provider._compat import TaskDecorator
from sparkbroker.airflow_provider.compat.operators import PySparkOnK8sOperator
from sparkbroker.airflow_provider.decorators.session import SparkSessionDecoratedOperator, decorator


class PySparkOnK8sDecoratedOperator(SparkSessionDecoratedOperator, PySparkOnK8sOperator):
    """PySparkOnK8sOperator for a decorated function."""

    custom_operator_name = "@task.pyspark_on_k8s"


def pyspark_on_k8s_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """The decorator: with or without arguments, which are PySparkOnK8sOperator's."""
    return decorator(PySparkOnK8sDecoratedOperator, python_callable, multiple_outputs, **kwargs)
