"""The configuration classes: their names, arguments and sizes; what they mean for a lease is ``compat.mapping``'s.

Defaults that named the predecessor's own images, accounts and files are None here: the profile has them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from sparkbroker.airflow_provider.compat.resources import CPU, Memory

_ONE_CORE: Final = CPU(1000)
_ONE_GIBIBYTE: Final = Memory.gibibytes(1)


class SparkDeployMode(Enum):
    """Where the driver is."""

    LOCAL = "local"
    CLIENT = "client"
    CONNECT = "connect"


class Sentinel(Enum):
    """A value that the predecessor found out where its worker ran."""

    AUTODETECT = "__AUTODETECT__"


@dataclass(kw_only=True)
class SparkBaseConf:
    """What concerns the whole application."""

    deploy_mode: SparkDeployMode | str = SparkDeployMode.CLIENT
    spark_url: str | None = None
    kubernetes_namespace: Sentinel | str | None = Sentinel.AUTODETECT
    kubernetes_ca_cert_file: str | None = None
    kubernetes_oauth_token_file: str | None = None
    image_pull_policy: str | None = None
    image_pull_secrets: str | Sequence[str] | None = None
    shuffle_file_buffer: Memory | str | None = None
    jars: Sequence[str] | str | None = field(default_factory=list)


@dataclass(kw_only=True)
class _PodConf:
    """What driver and executors have in common. Kubernetes' objects may be its client's, or plain dictionaries."""

    cores: CPU | float | str | None = None
    request_cores: CPU | float | str | None = _ONE_CORE
    memory: Memory | str | None = _ONE_GIBIBYTE
    memory_overhead: Memory | str | None = None
    memory_overhead_factor: float | None = None
    image: str | None = None
    container_name: str | None = None
    service_account_name: Sentinel | str | None = None
    aws_role_arn: Sentinel | str | None = Sentinel.AUTODETECT
    extra_java_options: str | None = None
    extra_class_path: str | None = None
    extra_library_path: str | None = None
    tolerations: Sequence[Any] | None = None
    node_selector: Mapping[str, str] | None = None
    node_affinity: Any = None
    pod_affinity: Any = None
    pod_anti_affinity: Any = None
    containers: Sequence[Any] | None = None
    volumes: Sequence[Any] | None = None
    volume_mounts: Sequence[Any] | None = None
    environment_variables: Sequence[Any] | None = None
    pod_labels: Mapping[str, str] | None = None
    pod_annotations: Mapping[str, str] | None = None


@dataclass(kw_only=True)
class SparkDriverConf(_PodConf):
    """The driver."""

    pod_name: Sentinel | str | None = Sentinel.AUTODETECT
    host: Sentinel | str | None = Sentinel.AUTODETECT


@dataclass(kw_only=True)
class SparkExecutorConf(_PodConf):
    """The executors."""

    instances: int | Any = 1
    dynamic_allocation_enabled: bool | None = None
    dynamic_allocation_min_executors: int | Any = None
    dynamic_allocation_max_executors: int | Any = None
