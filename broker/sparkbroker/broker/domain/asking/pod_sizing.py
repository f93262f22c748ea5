"""How large the pods of a lease are: Spark's own formula for its containers, Kubernetes' for the pod around them.

Spark 4 (``BasicDriverFeatureStep``, ``BasicExecutorFeatureStep``, ``Utils.executorOffHeapMemorySizeAsMb``), all in MiB::

    overhead = as named, else max(trunc(factor * heap), minimum)          factor 0.1, minimum 384, unless the conf says
    driver   = heap + overhead
    executor = heap + overhead + off-heap, if enabled + PySpark's, if limited

Limit and request of memory are equal. A container requests its size's whole cores unless the profile names a request.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.capacity.resources import (
    MIB,
    MIN_OVERHEAD_MIB,
    OVERHEAD_FACTOR,
    Resources,
    overhead,
    parse_memory,
)
from sparkbroker.broker.domain.errors import InvalidField
from sparkbroker.broker.domain.lease.lease import ContainerSize, LeaseMode, LeaseSpec
from sparkbroker.broker.domain.pods.quantities import pod_request
from sparkbroker.broker.domain.pods.settings import (
    DRIVER_CONTAINER,
    EXECUTOR_CONTAINER,
    PodSettings,
    merge,
    parse_pod,
)

OFF_HEAP: Final = "spark.memory.offHeap.enabled"
OFF_HEAP_SIZE: Final = "spark.memory.offHeap.size"
PYSPARK_MEMORY: Final = "spark.executor.pyspark.memory"
_FACTOR: Final = "spark.{}.memoryOverheadFactor"
_ANY_FACTOR: Final = "spark.kubernetes.memoryOverheadFactor"
_MINIMUM: Final = "spark.{}.minMemoryOverhead"


class Role(StrEnum):
    """Of a pod."""

    DRIVER = "driver"
    EXECUTOR = "executor"

    @property
    def container(self) -> str:
        """The name of Spark's own container in it."""
        return DRIVER_CONTAINER if self is Role.DRIVER else EXECUTOR_CONTAINER


class PodMemory(msgspec.Struct, frozen=True, kw_only=True):
    """Of Spark's container, in MiB."""

    heap: int
    overhead: int
    off_heap: int = 0
    pyspark: int = 0

    @property
    def total(self) -> int:
        return self.heap + self.overhead + self.off_heap + self.pyspark


def settings_of(spec: LeaseSpec, profile: Profile) -> PodSettings:
    """The profile's pod settings with the holder's. Raise InvalidField."""
    return merge(profile.pod, parse_pod(spec.pod, "spec.pod")) if spec.pod else profile.pod


def conf_of(spec: LeaseSpec, profile: Profile) -> dict[str, str]:
    """The conf that a lease's sizes depend on: the profile's wins."""
    return {**spec.conf, **profile.conf}


def pod_memory(role: Role, size: ContainerSize, conf: Mapping[str, str]) -> PodMemory:
    """See the module. Raise InvalidField for a value of the conf that is no size."""
    heap = size.memory // MIB
    named = None if size.overhead is None else size.overhead // MIB
    extra = PodMemory(heap=heap, overhead=named if named is not None else _overhead(role, size.memory, conf))
    if role is Role.DRIVER:
        return extra
    return msgspec.structs.replace(extra, off_heap=_off_heap(conf), pyspark=_mib(conf, PYSPARK_MEMORY))


def main_resources(role: Role, size: ContainerSize, conf: Mapping[str, str], settings: PodSettings) -> dict[str, Any]:
    """``resources`` of Spark's own container, as in a Pod."""
    memory = f"{pod_memory(role, size, conf).total}Mi"
    request = getattr(settings, f"{role}_cpu_request") or str(size.cores)
    limit = getattr(settings, f"{role}_cpu_limit")
    limits = {"memory": memory, **({"cpu": limit} if limit else {})}
    return {"requests": {"cpu": request, "memory": memory}, "limits": limits}


def init_containers(template: Mapping[str, Any], ours: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of a pod whose role has this template (a pod's spec), in the order in which they run.

    The charge depends on it as much as the pod does: beside what runs after a restartable one (a sidecar) that one runs too.
    """
    return [*template.get("initContainers", ()), *ours]


def role_request(role: Role, spec: LeaseSpec, profile: Profile, settings: PodSettings) -> Resources:
    """What one pod of this role takes, its sidecars and init containers included: as ``pods.quantities.pod_request`` of the pod that is made."""
    size = spec.driver if role is Role.DRIVER or spec.executors is None else spec.executors.size
    template = getattr(settings, f"{role}_template").get("spec", {})
    main = {"name": role.container, "resources": main_resources(role, size, conf_of(spec, profile), settings)}
    beside = [item for item in template.get("containers", ()) if item.get("name") != role.container]
    pod = {
        **template,
        "containers": [main, *beside, *settings.sidecars],
        "initContainers": init_containers(template, settings.init_containers),
    }
    return pod_request(pod, f"spec.pod.{role}")


def holder_request(spec: LeaseSpec, profile: Profile, settings: PodSettings) -> Resources:
    """What the holder's own pod (mode CLIENT) may take, all its containers together: the driver's size, and no sidecars of
    ours."""
    size = main_resources(Role.DRIVER, spec.driver, conf_of(spec, profile), settings)
    return pod_request({"containers": [{"name": "holder", "resources": size}]}, "spec.driver")


def pods_charge(spec: LeaseSpec, profile: Profile) -> Resources:
    """What the pods of a lease take together, with all the executors that it may have."""
    settings = settings_of(spec, profile)
    if spec.mode is LeaseMode.CLIENT:
        result = holder_request(spec, profile, settings)
    else:
        result = role_request(Role.DRIVER, spec, profile, settings)
    if spec.executors is not None:
        result += role_request(Role.EXECUTOR, spec, profile, settings) * spec.executors.max_count
    return result


def _overhead(role: Role, memory: int, conf: Mapping[str, str]) -> int:
    key = _FACTOR.format(role)
    text = conf.get(key, conf.get(_ANY_FACTOR))
    factor = OVERHEAD_FACTOR if text is None else _factor(text, key if key in conf else _ANY_FACTOR)
    minimum = _mib(conf, _MINIMUM.format(role)) or MIN_OVERHEAD_MIB
    return overhead(memory, factor, minimum) // MIB


def _factor(text: str, key: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = -1.0
    if not 0 < factor <= 100:
        raise InvalidField(f"conf[{key!r}]", f"{text[:40]!r} is not a factor", 'write a number such as "0.2"')
    return factor


def _mib(conf: Mapping[str, str], key: str) -> int:
    text = conf.get(key)
    return 0 if text is None else parse_memory(text, f"conf[{key!r}]") // MIB


def _off_heap(conf: Mapping[str, str]) -> int:
    """Spark reads its size in bytes where it has no unit."""
    if conf.get(OFF_HEAP, "false").strip().lower() != "true":
        return 0
    text = conf.get(OFF_HEAP_SIZE, "0").strip()
    amount = int(text) if text.isdecimal() else parse_memory(text, f"conf[{OFF_HEAP_SIZE!r}]")
    if amount < MIB:
        raise InvalidField(f"conf[{OFF_HEAP_SIZE!r}]", f"{text[:40]!r} is too small", f"set it, or {OFF_HEAP} to false")
    return amount // MIB
