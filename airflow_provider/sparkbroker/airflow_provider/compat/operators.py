"""``PySparkOnK8sOperator``: the predecessor's arguments, on a lease."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final

from sparkbroker.airflow_provider.compat.config import SparkBaseConf, SparkDriverConf, SparkExecutorConf
from sparkbroker.airflow_provider.compat.mapping import lease_arguments
from sparkbroker.airflow_provider.operators.session import SparkSessionOperator

_told: Final[set[str]] = set()


class NoEffectWarning(UserWarning):
    """An argument of the predecessor that means nothing here; says what to use."""


class PySparkOnK8sOperator(SparkSessionOperator):
    """SparkSessionOperator with the predecessor's configuration; an argument of a lease (``profile``, ``cores``, …) wins
    over what comes of it. ``compat.arguments`` has the table.
    """

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        spark_base_conf: SparkBaseConf | None = None,
        spark_driver_conf: SparkDriverConf | None = None,
        spark_executor_conf: SparkExecutorConf | None = None,
        spark_extra_conf: Mapping[str, Any] | None = None,
        show_return_value_in_logs: bool = True,
        **kwargs: Any,
    ) -> None:
        if spark_extra_conf is not None and not isinstance(spark_extra_conf, Mapping):
            raise TypeError(
                f"spark_extra_conf: {spark_extra_conf!r} is no mapping; give a dict (its values may be templates)"
            )
        mapped = lease_arguments(
            spark_base_conf or SparkBaseConf(),
            spark_driver_conf or SparkDriverConf(),
            spark_executor_conf or SparkExecutorConf(),
            spark_extra_conf or {},
        )
        for sentence in mapped.warnings:
            _warn_once(sentence)
        super().__init__(python_callable=python_callable, **{**mapped.arguments, **kwargs})
        self.show_return_value_in_logs = show_return_value_in_logs

    def run_with_lease(self, context: Any, lease: Any) -> Any:
        """As there, the result is logged unless it is told not to be."""
        value = super().run_with_lease(context, lease)
        if self.show_return_value_in_logs:
            self.log.info("Done. Returned value was: %s", value)
        return value


def _warn_once(sentence: str) -> None:
    if sentence not in _told:
        _told.add(sentence)
        warnings.warn(sentence, NoEffectWarning, stacklevel=4)
