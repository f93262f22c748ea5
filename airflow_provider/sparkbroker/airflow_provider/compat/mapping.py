"""The predecessor's configuration made into a lease's arguments. Pure: also what to warn of is a value."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, Final, TypeVar

from sparkbroker.airflow_provider.compat.arguments import BY_NAME, CONF_ARGUMENTS, CONF_WITHOUT_MEANING
from sparkbroker.airflow_provider.compat.config import (
    SparkBaseConf,
    SparkDeployMode,
    SparkDriverConf,
    SparkExecutorConf,
)
from sparkbroker.airflow_provider.compat.pods import of_executors, of_lease, of_worker, texts
from sparkbroker.airflow_provider.compat.resources import CPU, JvmUnit, Memory
from sparkbroker.airflow_provider.late import is_late

LEAST_OVERHEAD: Final = Memory.mebibytes(384)
"""Of a driver or an executor, whatever the factor: Spark's own rule."""
DEFAULT_EXECUTORS: Final = 2
"""Spark's own spark.executor.instances."""
_DYNAMIC: Final = {
    "spark.dynamicAllocation.enabled": "dynamic_allocation_enabled",
    "spark.dynamicAllocation.minExecutors": "dynamic_allocation_min_executors",
    "spark.dynamicAllocation.maxExecutors": "dynamic_allocation_max_executors",
}
_NO_POD: Final = (
    "in local mode the driver is the task's own process, which Airflow shapes (executor_config); "
    "deploy_mode CONNECT gives the lease pods of its own"
)


class Mapped:
    """What came of it: ``arguments`` of a lease, ``worker``, a part of the worker's Pod where that is the driver, and
    ``warnings``, sentences in order."""

    def __init__(self) -> None:
        self.arguments: dict[str, Any] = {}
        self.worker: dict[str, Any] = {}
        self.warnings: list[str] = []

    def give(self, name: str, value: Any) -> None:
        """Set an argument, unless there is nothing to set."""
        if value not in (None, [], {}):
            self.arguments[name] = value

    def warn(self, what: str, why: str) -> None:
        """Note that something has no effect, once."""
        sentence = f"{what} has no effect here: {why}"
        if sentence not in self.warnings:
            self.warnings.append(sentence)


def lease_arguments(
    base: SparkBaseConf, driver: SparkDriverConf, executors: SparkExecutorConf, extra: Mapping[str, Any]
) -> Mapped:
    """Raise ValueError or TypeError, naming the argument, for what can't be read."""
    mapped = Mapped()
    _check_kind("spark_base_conf", base, SparkBaseConf)
    _check_kind("spark_driver_conf", driver, SparkDriverConf)
    _check_kind("spark_executor_conf", executors, SparkExecutorConf)
    mode = _deploy_mode(base.deploy_mode)
    mapped.give("mode", mode.name)
    executors, rest = _take_dynamic(executors, extra)
    driver = _take_factor(driver, rest, "spark.driver.memoryOverheadFactor")
    executors = _take_factor(executors, rest, "spark.executor.memoryOverheadFactor")
    _warn_of_meaningless(mapped, base, driver, executors)
    _size(mapped, driver, "SparkDriverConf", "")
    if mode is not SparkDeployMode.LOCAL:
        _size(mapped, executors, "SparkExecutorConf", "executor_")
        _count(mapped, executors)
    mapped.give("packages", texts(base.jars))
    conf = _conf(base, driver, executors)
    _pods(mapped, mode, base, driver, executors)
    _extra(mapped, conf, rest)
    mapped.give("conf", conf)
    return mapped


def _pods(
    mapped: Mapped, mode: SparkDeployMode, base: SparkBaseConf, driver: SparkDriverConf, executors: SparkExecutorConf
) -> None:
    if mode is SparkDeployMode.CLIENT:
        mapped.give("pod", of_executors(base, executors))
        mapped.worker = of_worker(base, driver)
        return
    pod = of_lease(base, driver, executors)
    if mode is SparkDeployMode.CONNECT:
        mapped.give("pod", pod)
        if executors.image not in (None, pod.get("image")):
            mapped.warn(
                "SparkExecutorConf.image", "a driver of the broker's and its executors run SparkDriverConf.image"
            )
    elif pod:
        mapped.warn(f"the settings of pods ({', '.join(sorted(pod))})", _NO_POD)


def _check_kind(name: str, conf: object, kind: type) -> None:
    if not isinstance(conf, kind):
        raise TypeError(f"{name}: {conf!r} is no {kind.__name__}; give one, such as {kind.__name__}()")


def _deploy_mode(value: SparkDeployMode | str) -> SparkDeployMode:
    try:
        return SparkDeployMode(value)
    except ValueError as error:
        known = ", ".join(f"SparkDeployMode.{mode.name}" for mode in SparkDeployMode)
        raise ValueError(f"SparkBaseConf.deploy_mode: {value!r} is unknown; give one of {known}") from error


def _warn_of_meaningless(mapped: Mapped, *confs: Any) -> None:
    for conf in confs:
        of = next(kind.__name__ for kind in type(conf).__mro__ if kind.__name__.startswith("Spark"))
        for item in fields(conf):
            name = f"{of}.{item.name}"
            known = BY_NAME.get(name)
            if known is not None and known.meaningless and getattr(conf, item.name) != item.default:
                mapped.warn(name, known.note)


def _size(mapped: Mapped, conf: SparkDriverConf | SparkExecutorConf, of: str, prefix: str) -> None:
    name, cores = ("cores", conf.cores) if conf.cores is not None else ("request_cores", conf.request_cores)
    mapped.give(f"{prefix}cores", _read(cores, f"{of}.{name}", _cores))
    memory = _read(conf.memory, f"{of}.memory", memory_text)
    mapped.give(f"{prefix}memory", memory)
    overhead = _read(conf.memory_overhead, f"{of}.memory_overhead", memory_text)
    if overhead is None and conf.memory_overhead_factor is not None:
        overhead = _read(conf.memory, f"{of}.memory_overhead_factor", lambda of: _overhead(of, conf))
    mapped.give(f"{prefix}memory_overhead", overhead)


def _overhead(memory: Any, conf: Any) -> str:
    if is_late(memory):
        raise ValueError("needs a memory that is known when the DAG is parsed; give memory_overhead instead")
    return str(memory_text(max(LEAST_OVERHEAD, _memory(memory) * float(conf.memory_overhead_factor))))


def _count(mapped: Mapped, conf: SparkExecutorConf) -> None:
    least, most = conf.dynamic_allocation_min_executors, conf.dynamic_allocation_max_executors
    if str(conf.dynamic_allocation_enabled).lower() != "true":
        if least is not None or most is not None:
            mapped.warn("dynamic_allocation_min_executors or …_max_executors", "dynamic_allocation_enabled isn't True")
        mapped.give("executors", conf.instances)
    elif most is None or most == "infinity":
        known = (
            _read(conf.instances, "SparkExecutorConf.instances", _whole) or 0,
            _read(least, "SparkExecutorConf.dynamic_allocation_min_executors", _whole) or 0,
            DEFAULT_EXECUTORS,
        )
        bound = next(filter(is_late, known), None) or max(known)
        mapped.warn(
            "dynamic_allocation_max_executors without a number",
            f"a lease has a bound; it is {bound} now: give the number that you want",
        )
        mapped.give("executors", [0 if least is None else least, bound])
    else:
        mapped.give("executors", [0 if least is None else least, most])


def _take_dynamic(executors: SparkExecutorConf, extra: Mapping[str, Any]) -> tuple[SparkExecutorConf, dict[str, Any]]:
    """What ``spark_extra_conf`` says of dynamic allocation, into the configuration of the executors."""
    found = {_DYNAMIC[key]: value for key, value in extra.items() if key in _DYNAMIC}
    rest = {key: value for key, value in extra.items() if key not in _DYNAMIC}
    return replace(executors, **found) if found else executors, rest


_Sized = TypeVar("_Sized", SparkDriverConf, SparkExecutorConf)


def _take_factor(conf: _Sized, rest: dict[str, Any], key: str) -> _Sized:
    """What ``spark_extra_conf`` says of the overhead's factor, into the configuration, and the memory that it is of."""
    factor = rest.pop(key, None)
    if factor is None and conf.memory_overhead_factor is None:
        return conf
    memory = rest.pop(key.removesuffix("OverheadFactor"), None)
    conf = conf if memory is None else replace(conf, memory=memory)
    return conf if factor is None else replace(conf, memory_overhead_factor=factor)


def _conf(base: SparkBaseConf, driver: SparkDriverConf, executors: SparkExecutorConf) -> dict[str, Any]:
    buffer = _read(base.shuffle_file_buffer, "SparkBaseConf.shuffle_file_buffer", memory_text)
    conf: dict[str, Any] = {"spark.shuffle.file.buffer": buffer}
    for part, of in ((driver, "driver"), (executors, "executor")):
        conf[f"spark.{of}.extraJavaOptions"] = part.extra_java_options
        conf[f"spark.{of}.extraClassPath"] = part.extra_class_path
        conf[f"spark.{of}.extraLibraryPath"] = part.extra_library_path
    return {key: value for key, value in conf.items() if value is not None}


def _extra(mapped: Mapped, conf: dict[str, Any], extra: Mapping[str, Any]) -> None:
    """``spark_extra_conf`` wins over all that comes of the rest; None takes away."""
    for key, value in extra.items():
        name = CONF_ARGUMENTS.get(key)
        if name is not None:
            mapped.arguments.pop(name, None)
            mapped.give(name, value)
        elif key.startswith(CONF_WITHOUT_MEANING):
            if value is not None:
                mapped.warn(f"spark_extra_conf[{key!r}]", "the broker decides it; use pod, the sizes and the profile")
        else:
            conf[key] = value


def _read(value: Any, name: str, reader: Callable[[Any], Any]) -> Any:
    if value is None:
        return None
    try:
        return reader(value)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{name}: {error}") from error


def _whole(value: Any) -> Any:
    return value if is_late(value) else int(value)


def _cores(value: Any) -> Any:
    if is_late(value):
        return value
    amount = value if isinstance(value, CPU) else CPU.from_k8s_spec(value)
    return -(-amount.m_cores // 1000)


def memory_text(value: Any) -> Any:
    """As Spark writes it, in whole MiB where it is one; what comes late is left to the task."""
    if is_late(value):
        return value
    memory = _memory(value)
    for unit in (JvmUnit.m, JvmUnit.k):
        if memory.size_in_bytes % unit == 0:
            return memory.to_jvm_spec(unit)
    return f"{memory.size_in_bytes}b"


def _memory(value: Any) -> Memory:
    if isinstance(value, Memory):
        return value
    try:
        return Memory.from_k8s_spec(value)
    except ValueError:
        return Memory.from_jvm_spec(value)
