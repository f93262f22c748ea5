"""Sizes to the MiB by Spark's formula, and pods by Kubernetes' own."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkbroker.broker.domain.asking.pod_sizing import Role, main_resources, pod_memory
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.asking.sizing import charge
from sparkbroker.broker.domain.capacity.resources import CPU, MEMORY, MIB, parse_memory
from sparkbroker.broker.domain.errors import InvalidField
from sparkbroker.broker.domain.lease.lease import ContainerSize, ExecutorSpec, LeaseMode, LeaseSpec
from sparkbroker.broker.domain.pods.quantities import parse_quantity, pod_request
from sparkbroker.broker.domain.pods.settings import PodSettings


def size(memory: str, overhead: str = "", cores: int = 1) -> ContainerSize:
    named = parse_memory(overhead, "") if overhead else None
    return ContainerSize(cores=cores, memory=parse_memory(memory, ""), overhead=named)


OFF_HEAP = {"spark.memory.offHeap.enabled": "true", "spark.memory.offHeap.size": "1g"}


@pytest.mark.parametrize(
    ("given_size", "conf", "total"),
    [
        # As Spark 4.3 made them of the same properties on a real API server.
        (size("3g"), {}, 3456),
        (size("10g"), {"spark.executor.memoryOverheadFactor": "0.25", **OFF_HEAP}, 13824),
        (size("1500m"), {}, 1884),
        (size("2560m", "200m"), {}, 2760),
        (size("10g"), {"spark.kubernetes.memoryOverheadFactor": "0.25"}, 12800),
        (size("1g"), {"spark.executor.minMemoryOverhead": "512m"}, 1536),
        (size("1g"), {"spark.executor.pyspark.memory": "256"}, 1024 + 384 + 256),
        (size("1g"), {"spark.memory.offHeap.enabled": "true", "spark.memory.offHeap.size": str(5 * MIB + 7)}, 1413),
        (size("1g"), {"spark.memory.offHeap.enabled": "false", "spark.memory.offHeap.size": "1g"}, 1408),
    ],
)
def test_an_executors_memory_is_sparks_own(given_size, conf, total):
    assert pod_memory(Role.EXECUTOR, given_size, conf).total == total


def test_a_driver_has_neither_off_heap_nor_python_memory():
    conf = {**OFF_HEAP, "spark.executor.pyspark.memory": "1g", "spark.driver.memoryOverheadFactor": "0.5"}
    assert pod_memory(Role.DRIVER, size("2g"), conf).total == 3072


@pytest.mark.parametrize(
    "conf",
    [
        {"spark.executor.memoryOverheadFactor": "much"},
        {"spark.executor.memoryOverheadFactor": "-1"},
        {"spark.executor.memoryOverheadFactor": "nan"},
        {"spark.executor.minMemoryOverhead": "a lot"},
        {"spark.executor.pyspark.memory": "0"},
        {"spark.memory.offHeap.enabled": "true"},
    ],
)
def test_a_conf_that_is_no_size_is_refused_by_its_key(conf):
    with pytest.raises(InvalidField) as error:
        pod_memory(Role.EXECUTOR, size("1g"), conf)
    assert "spark." in error.value.field


def test_requests_and_limits_of_sparks_container():
    settings = PodSettings(driver_cpu_request="250m", executor_cpu_limit="2")
    assert main_resources(Role.DRIVER, size("1g"), {}, settings) == {
        "requests": {"cpu": "250m", "memory": "1408Mi"},
        "limits": {"memory": "1408Mi"},
    }
    assert main_resources(Role.EXECUTOR, size("1g", cores=3), {}, settings) == {
        "requests": {"cpu": "3", "memory": "1408Mi"},
        "limits": {"memory": "1408Mi", "cpu": "2"},
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("500m", 0.5), ("1.5", 1.5), (".5", 0.5), ("128Mi", 128 << 20), ("1G", 10**9), ("1e3", 1000), ("2E-1", 0.2), ("1Ei", 1 << 60)],
)  # fmt: skip
def test_quantities(text, value):
    assert float(parse_quantity(text, "f")) == value


@pytest.mark.parametrize("text", ["", "-1", "1 Gi", "1gb", "Mi", "1e", "0x10", "NaN", "1,5", "١"])
def test_what_is_no_quantity(text):
    with pytest.raises(InvalidField, match="is not a quantity"):
        parse_quantity(text, "f")


def box(cpu: str = "", memory: str = "", *, limit: str = "", restart: str = "") -> dict[str, Any]:
    requests = {name: value for name, value in (("cpu", cpu), ("memory", memory)) if value}
    return {"resources": {"requests": requests, "limits": {"memory": limit} if limit else {}}, "restartPolicy": restart}


def test_a_pod_takes_the_sum_of_its_containers_or_its_largest_init_container():
    pod: dict[str, Any] = {"containers": [box("1", "1Gi"), box("500m", limit="256Mi")]}
    assert pod_request(pod).quantities == {CPU: 1500, MEMORY: 1280 * MIB}
    # The sidecar runs beside the init container after it, and beside the containers.
    pod["initContainers"] = [box("100m", "100Mi", restart="Always"), box("3", "64Mi")]
    assert pod_request(pod).quantities == {CPU: 3100, MEMORY: 1380 * MIB}
    pod["overhead"] = {"cpu": "1m"}
    assert pod_request(pod)[CPU] == 3101


def test_what_a_pod_asks_for_as_a_whole_counts():
    """As the API server writes it: no less than the containers', and a limit where nobody requests."""
    pod: dict[str, Any] = {"containers": [box("1", "1Gi")], "overhead": {"cpu": "1m"}}
    pod["resources"] = {"requests": {"cpu": "1000"}, "limits": {"memory": "8Gi"}}
    assert pod_request(pod).quantities == {CPU: 1_000_001, MEMORY: 1024 * MIB}
    assert pod_request({"containers": [{}], "resources": {"limits": {"cpu": "2"}}}).quantities == {CPU: 2000}
    assert pod_request({**pod, "resources": None})[CPU] == 1001


def lease(executors: int, **pod) -> tuple[LeaseSpec, Profile]:
    spec = LeaseSpec(
        profile="p",
        queue="q",
        driver=size("1g"),
        executors=ExecutorSpec(size=size("2g", cores=2), min_count=1, max_count=executors) if executors else None,
    )
    settings = PodSettings(image="i", **pod)
    return spec, Profile(name="p", provisioner="kubernetes", defaults=spec, pod=settings)


def test_a_lease_is_charged_for_its_pods_and_their_sidecars():
    spec, profile = lease(3)
    assert charge(spec, profile).quantities == {CPU: 7000, MEMORY: (1408 + 3 * 2432) * MIB}
    spec, profile = lease(3, sidecars=({"name": "s", "resources": {"requests": {"cpu": "100m", "memory": "10Mi"}}},))
    assert charge(spec, profile).quantities == {CPU: 7400, MEMORY: (1418 + 3 * 2442) * MIB}
    spec, profile = lease(1, executor_cpu_request="100m", driver_cpu_request="200m")
    assert charge(spec, profile)[CPU] == 300
    template = {"spec": {"containers": [{"name": "s", "resources": {"limits": {"cpu": "50m"}}}]}}
    spec, profile = lease(2, executor_template=template)
    assert charge(spec, profile)[CPU] == 5100


def test_a_holders_own_pod_settings_are_charged():
    spec, profile = lease(1)
    asked = msgspec.structs.replace(spec, pod={"executor_cpu_request": "500m"})
    assert charge(asked, profile)[CPU] == 1500


def test_a_lease_without_executors_is_one_pod_and_a_local_one_is_none():
    spec, profile = lease(0)
    assert charge(spec, profile).quantities == {CPU: 1000, MEMORY: 1408 * MIB}
    spec, profile = lease(1)
    local = msgspec.structs.replace(spec, mode=LeaseMode.LOCAL)
    assert charge(local, profile)[CPU] == 3000


@given(st.integers(512, 1 << 20), st.integers(0, 64))
def test_a_charge_grows_with_its_executors_by_one_pod_each(memory, count):
    spec, profile = lease(1)
    executors = ExecutorSpec(size=ContainerSize(cores=1, memory=memory * MIB), min_count=0, max_count=count)
    spec = msgspec.structs.replace(spec, executors=executors)
    overhead = max(int(0.1 * memory), 384)
    assert charge(spec, profile)[MEMORY] == (1408 + count * (memory + overhead)) * MIB
