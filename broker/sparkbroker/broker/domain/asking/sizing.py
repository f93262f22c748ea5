"""How large a driver of a given spec is, and so what its lease is charged for.

With the master ``local`` there is one process. Its threads are the cores of the driver and of all executors, its heap
the sum of their memory; its overhead is Spark's formula applied once to that heap (one process has one metaspace and
one code cache), or, where the holder named overheads, their sum::

    threads  = driver.cores + n * executor.cores
    heap     = driver.memory + n * executor.memory
    overhead = max(trunc(0.1 * heap), 384 MiB)        n = max_count, all in MiB
    charge   = threads cores, heap + overhead

With ``local-cluster`` or ``spark://`` the executors are processes of their own, each with its own overhead::

    charge   = driver + n * executor, each: cores, memory + max(trunc(0.1 * memory), 384 MiB)

A lease of mode LOCAL is charged as if its master were ``local``. A static endpoint is charged one ``endpoint``, and
nothing if it is shared: its cores and memory are not ours. With the provisioner ``kubernetes`` driver and executors are
pods: ``pod_sizing`` counts them, with their sidecars.
"""

from typing import Final

import msgspec

from sparkbroker.broker.domain.asking.pod_sizing import pods_charge
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.capacity.resources import Resources, overhead
from sparkbroker.broker.domain.lease.lease import ContainerSize, LeaseMode, LeaseSpec

ENDPOINT: Final = "endpoint"


class ProcessSize(msgspec.Struct, frozen=True):
    """One JVM: task threads, and bytes of heap and of overhead."""

    threads: int
    heap: int
    overhead: int

    @property
    def resources(self) -> Resources:
        return Resources.of(cores=self.threads, memory=self.heap + self.overhead)


def container(size: ContainerSize) -> ProcessSize:
    """A driver or an executor that is a process of its own."""
    return ProcessSize(size.cores, size.memory, overhead(size.memory) if size.overhead is None else size.overhead)


def single_process(spec: LeaseSpec) -> ProcessSize:
    """Driver and executors in one process (master ``local``)."""
    sizes = [spec.driver]
    if spec.executors is not None:
        sizes += [spec.executors.size] * spec.executors.max_count
    heap = sum(size.memory for size in sizes)
    named = [size.overhead for size in sizes if size.overhead is not None]
    return ProcessSize(sum(size.cores for size in sizes), heap, sum(named) if named else overhead(heap))


def is_single_process(spec: LeaseSpec, profile: Profile) -> bool:
    """Whether driver and executors share one process."""
    return spec.mode is LeaseMode.LOCAL or (profile.provisioner == "local" and profile.master == "local")


def charge(spec: LeaseSpec, profile: Profile) -> Resources:
    """What a lease of this spec takes from its queue and its pool."""
    if profile.provisioner == "static":
        return Resources() if profile.shared_endpoints else Resources({ENDPOINT: 1})
    if is_single_process(spec, profile):
        return single_process(spec).resources
    if profile.provisioner == "kubernetes":
        return pods_charge(spec, profile)
    result = container(spec.driver).resources
    if spec.executors is not None:
        result += container(spec.executors.size).resources * spec.executors.max_count
    return result
