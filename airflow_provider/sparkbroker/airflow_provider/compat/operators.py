"""``PySparkOnK8sOperator``: the predecessor's arguments, on a lease."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from sparkbroker.airflow_provider import checks, client_mode, pod_override
from sparkbroker.airflow_provider.compat.config import SparkBaseConf, SparkDriverConf, SparkExecutorConf
from sparkbroker.airflow_provider.compat.mapping import Mapped, lease_arguments
from sparkbroker.airflow_provider.operators.session import SparkSessionOperator
from sparkbroker.client.own_pod import missing_variables

_told: Final[set[str]] = set()


class NoEffectWarning(UserWarning):
    """An argument of the predecessor that means nothing here; says what to use."""


class PySparkOnK8sOperator(SparkSessionOperator):
    """SparkSessionOperator with the predecessor's configuration; an argument of a lease (``profile``, ``cores``, …) wins
    over what comes of it. ``compat.arguments`` has the table.

    Its client mode, the default there, is mode CLIENT where the worker says which pod it is in, as those of KubernetesExecutor
    do; a worker that doesn't has no other choice than mode LOCAL. ``mode="CLIENT"`` leaves none.
    """

    client_or_local: bool = False
    argument_readers: ClassVar[checks.Readers] = {
        **SparkSessionOperator.argument_readers,
        "show_return_value_in_logs": checks.flag,
    }

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
                f"spark_extra_conf: {spark_extra_conf!r} is not a mapping; give a dict (its values may be templates)"
            )
        mapped = _mapped(spark_base_conf, spark_driver_conf, spark_executor_conf, spark_extra_conf)
        for sentence in mapped.warnings:
            _warn_once(sentence)
        self.show_return_value_in_logs = show_return_value_in_logs
        said = kwargs.keys() | (kwargs.get("default_args") or {}).keys()  # which Airflow passes on, merged
        meant = {name: value for name, value in mapped.arguments.items() if name not in said}
        super().__init__(python_callable=python_callable, **meant, **kwargs)
        self.client_or_local = "mode" not in said and client_mode.is_client(self.mode)
        self.executor_config = _with_worker({"mode": self.mode, "lease": self.lease}, self.executor_config, mapped)

    @classmethod
    def worker_config(cls, arguments: Mapping[str, Any]) -> Any:
        """See AskingOperator."""
        base, driver, executors, extra = (
            arguments.get(f"spark_{of}_conf") for of in ("base", "driver", "executor", "extra")
        )
        mapped = _mapped(base, driver, executors, extra if isinstance(extra, Mapping) else {})
        given = {**mapped.arguments, **arguments}
        return _with_worker(given, super().worker_config(given), mapped)

    def execute(self, context: Any) -> Any:
        """Acquire and compute: in client mode as this worker can."""
        if self.client_or_local and not self.lease_given and missing_variables():
            self.log.info(
                "deploy_mode CLIENT: this worker is in no pod that says which it is; mode LOCAL, without executors"
            )
            self.mode, self.pod = "LOCAL", None
        return super().execute(context)

    def run_with_lease(self, context: Any, lease: Any) -> Any:
        """As there, the result is logged unless it is told not to be."""
        value = super().run_with_lease(context, lease)
        if self.show_return_value_in_logs:
            self.log.info("Done. Returned value was: %s", value)
        return value


def _mapped(
    base: SparkBaseConf | None, driver: SparkDriverConf | None, executors: SparkExecutorConf | None, extra: Any
) -> Mapped:
    return lease_arguments(
        SparkBaseConf() if base is None else base,
        SparkDriverConf() if driver is None else driver,
        SparkExecutorConf() if executors is None else executors,
        extra or {},
    )


def _with_worker(arguments: Mapping[str, Any], executor_config: Any, mapped: Mapped) -> Any:
    """With the driver's own settings, where the worker is the driver."""
    if not (mapped.worker and client_mode.is_workers(arguments)):
        return executor_config
    return pod_override.with_pod(executor_config, mapped.worker)


def _warn_once(sentence: str) -> None:
    if sentence not in _told:
        _told.add(sentence)
        warnings.warn(sentence, NoEffectWarning, stacklevel=4)
