"""Spark's properties of a driver in a pod. Pure: values in, values out.

Who wins: a key that sizes, binds or places the driver and its executors is the broker's; of the others the profile's
value wins over the holder's, and both over the broker's defaults.
"""

from typing import Final

from sparkbroker.broker.adapters.kubernetes_provisioner import _launch
from sparkbroker.broker.adapters.kubernetes_provisioner._names import object_name
from sparkbroker.broker.domain.asking.conf import jar_uri
from sparkbroker.broker.domain.asking.pod_sizing import PYSPARK_MEMORY, Role, conf_of, pod_memory
from sparkbroker.broker.domain.capacity.resources import MIB, format_memory
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.lease.lease import ExecutorSpec
from sparkbroker.broker.domain.pods.settings import EXECUTOR_CONTAINER, PodSettings
from sparkbroker.broker.ports.provisioner import DriverRequest

CONNECT_PORT: Final = 15002
DRIVER_PORT: Final = 7078
BLOCK_MANAGER_PORT: Final = 7079
UI_PORT: Final = 4040
SMALLEST_HEAP: Final = 480 * MIB
"""Spark refuses to start in less than 450 MiB, as the JVM counts it, which is less than -Xmx."""
SMALLEST_EXECUTOR: Final = 450 * MIB
"""And with less for executors, by its property (UnifiedMemoryManager)."""

DEFAULTS: Final = {
    # The broker ends sessions with their attachments; Spark's own timeout would end an idle notebook's.
    "spark.connect.session.manager.defaultSessionTimeout": "-1",
    # Else the server opens its port only once most of its executors have registered.
    "spark.scheduler.minRegisteredResourcesRatio": "0",
    # Infinite by default: an idle session would keep executors that hold shuffle data.
    "spark.dynamicAllocation.shuffleTracking.timeout": "10min",
    # Else a driver ends once this many executors have failed, and each that a quota has no room for counts, once a second: a
    # session that is in use would end within seconds of its neighbours' load. The lease says what executors fail of.
    "spark.executor.maxNumFailures": "2147483647",
    # Its account has rights on pods alone; without these Spark logs refusals when it stops.
    "spark.kubernetes.driver.reusePersistentVolumeClaim": "false",
    "spark.kubernetes.driver.service.deleteOnTermination": "false",
}
EXECUTOR_GRACE: Final = 5
DECOMMISSION_GRACE: Final = 120
"""Seconds that an executor's pod has from SIGTERM to SIGKILL."""
_GRACE: Final = "spark.kubernetes.executor.terminationGracePeriodSeconds"
DECOMMISSION: Final = {
    "spark.decommission.enabled": "true",
    "spark.storage.decommission.enabled": "true",
    "spark.storage.decommission.rddBlocks.enabled": "true",
    "spark.storage.decommission.shuffleBlocks.enabled": "true",
}


def properties(request: DriverRequest, settings: PodSettings, namespace: str) -> dict[str, str]:
    """The driver's ``spark.*`` properties but for its address and master, which its pod knows. Raise ProvisionerFailed
    (misconfigured) for sizes that Spark can't run with."""
    spec, profile = request.spec, request.profile
    given = {**defaults(settings), **spec.conf, **profile.conf}
    for key in given:
        if not key.startswith("spark."):
            raise _wrong(f"conf {key!r}: Spark reads only keys that begin with spark.; write spark.hadoop.{key}")
    if spec.driver.memory < SMALLEST_HEAP:
        raise _wrong(f"driver.memory: {format_memory(spec.driver.memory)} is too small; Spark needs at least 480m")
    result = {
        "spark.sql.warehouse.dir": f"{_launch.LOCAL_DIR}/warehouse",
        "spark.app.name": f"sparkbroker {request.driver_id}",
        **given,
        "spark.app.id": object_name(request.driver_id),
        "spark.submit.deployMode": "client",
        "spark.local.dir": f"{_launch.LOCAL_DIR}/local",
        "spark.driver.memory": format_memory(spec.driver.memory),
        "spark.driver.cores": str(spec.driver.cores),
        "spark.driver.port": str(DRIVER_PORT),
        "spark.driver.blockManager.port": str(BLOCK_MANAGER_PORT),
        "spark.connect.grpc.binding.address": "0.0.0.0",  # noqa: S104 (a pod's own address, behind its token)
        "spark.connect.grpc.binding.port": str(CONNECT_PORT),
        "spark.ui.enabled": str(profile.ui).lower(),
        "spark.ui.port": str(UI_PORT),
    }
    # Executors are handed this where it is set, in place of the pod's address.
    result.pop("spark.driver.bindAddress", None)
    if spec.executors is None:
        result["spark.master"] = f"local[{spec.driver.cores}]"
    else:
        result |= _executors(request, spec.executors, settings, namespace)
    for key, items in (("spark.jars", tuple(map(jar_uri, spec.jars))), ("spark.jars.packages", spec.packages)):
        if items:
            result[key] = ",".join(items)
    return result


def defaults(settings: PodSettings) -> dict[str, str]:
    """What holds unless a conf says otherwise."""
    # Spark writes the time that executors have for their end over that of their template.
    usual = DECOMMISSION_GRACE if settings.decommission else EXECUTOR_GRACE
    grace = settings.executor_template.get("spec", {}).get("terminationGracePeriodSeconds", usual)
    return {**DEFAULTS, **(DECOMMISSION if settings.decommission else {}), _GRACE: f"{grace}s"}


def client_properties(
    request: DriverRequest, settings: PodSettings, namespace: str, pod: str, ip: str
) -> dict[str, str]:
    """Those of a classic session in the holder's own pod, but for the master and what names files there: the template, the
    credential. Raise ProvisionerFailed (misconfigured)."""
    spec, profile = request.spec, request.profile
    if spec.executors is None:
        raise _wrong("a lease of mode CLIENT without executors is what the mode LOCAL is for")
    if spec.driver.memory < SMALLEST_HEAP:
        raise _wrong(f"driver.memory: {format_memory(spec.driver.memory)} is too small; Spark needs at least 480m")
    given = {**defaults(settings), **spec.conf, **profile.conf}
    result = {
        **{key: value for key, value in given.items() if not key.startswith("spark.connect.")},
        "spark.app.id": object_name(request.driver_id),
        "spark.submit.deployMode": "client",
        "spark.driver.memory": format_memory(spec.driver.memory),
        "spark.driver.cores": str(spec.driver.cores),
        "spark.driver.host": ip,
        "spark.driver.port": str(DRIVER_PORT),
        "spark.driver.blockManager.port": str(BLOCK_MANAGER_PORT),
        "spark.ui.enabled": str(profile.ui).lower(),
        **_executors(request, spec.executors, settings, namespace),
        "spark.kubernetes.driver.pod.name": pod,
    }
    result.pop("spark.driver.bindAddress", None)
    del result["spark.kubernetes.executor.podTemplateFile"]
    for key, items in (("spark.jars", tuple(map(jar_uri, spec.jars))), ("spark.jars.packages", spec.packages)):
        if items:
            result[key] = ",".join(items)
    return result


def _executors(
    request: DriverRequest, executors: ExecutorSpec, settings: PodSettings, namespace: str
) -> dict[str, str]:
    if executors.size.memory < SMALLEST_EXECUTOR:
        raise _wrong(
            f"executors.memory: {format_memory(executors.size.memory)} is too small; Spark needs at least 450m"
        )
    name = object_name(request.driver_id)
    conf = conf_of(request.spec, request.profile)
    memory = pod_memory(Role.EXECUTOR, executors.size, conf)
    result = {
        "spark.executor.cores": str(executors.size.cores),
        "spark.executor.memory": format_memory(executors.size.memory),
        # Named, so that Spark's arithmetic can't differ from what is charged.
        "spark.executor.memoryOverhead": f"{memory.overhead}m",
        "spark.kubernetes.namespace": namespace,
        "spark.kubernetes.container.image": settings.image,
        "spark.kubernetes.driver.pod.name": name,
        "spark.kubernetes.executor.podNamePrefix": name,
        "spark.kubernetes.executor.podTemplateFile": f"{_launch.FILES}/{_launch.TEMPLATE}",
        "spark.kubernetes.executor.podTemplateContainerName": EXECUTOR_CONTAINER,
        "spark.kubernetes.executor.request.cores": settings.executor_cpu_request or str(executors.size.cores),
        # What it would hold is in its environment already, and this way the driver needs no right to make one.
        "spark.kubernetes.executor.disableConfigMap": "true",
        **_counts(executors),
    }
    if settings.image_pull_policy:
        result["spark.kubernetes.container.image.pullPolicy"] = settings.image_pull_policy
    if settings.image_pull_secrets:
        result["spark.kubernetes.container.image.pullSecrets"] = ",".join(settings.image_pull_secrets)
    if settings.executor_cpu_limit:
        result["spark.kubernetes.executor.limit.cores"] = settings.executor_cpu_limit
    if settings.executor_service_account:
        result["spark.kubernetes.authenticate.executor.serviceAccountName"] = settings.executor_service_account
    if PYSPARK_MEMORY in conf:
        # Spark counts it into the pod only for what it takes to be a Python application.
        result["spark.kubernetes.resource.type"] = "python"
    return result


def _counts(executors: ExecutorSpec) -> dict[str, str]:
    if executors.min_count == executors.max_count:
        return {"spark.executor.instances": str(executors.max_count), "spark.dynamicAllocation.enabled": "false"}
    return {
        "spark.dynamicAllocation.enabled": "true",
        "spark.dynamicAllocation.shuffleTracking.enabled": "true",
        "spark.dynamicAllocation.minExecutors": str(executors.min_count),
        "spark.dynamicAllocation.initialExecutors": str(executors.min_count),
        "spark.dynamicAllocation.maxExecutors": str(executors.max_count),
    }


def _wrong(message: str) -> ProvisionerFailed:
    return ProvisionerFailed(message, retryable=False, misconfigured=True)
