"""``executor_config["pod_override"]``: how KubernetesExecutor is told of a worker's pod.

The one place that knows the classes of the Kubernetes client, which Airflow wants there. They are imported for tasks of mode
CLIENT only; where that library is missing there is no KubernetesExecutor, and nothing to override.
"""

from collections.abc import Mapping
from typing import Any

from sparkbroker.airflow_provider import client_mode


def with_pod(executor_config: Mapping[str, Any] | None, part: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with this part of a Pod in its ``pod_override``, whose own settings win. Nothing given is changed."""
    config = dict(executor_config or {})
    try:
        from kubernetes.client import ApiClient, Configuration, V1Pod  # noqa: PLC0415  half a second, for CLIENT only
    except ImportError:
        return config
    given = config.get("pod_override")
    if given is not None and not isinstance(given, V1Pod):
        return config  # Airflow says what is wrong with it
    api = ApiClient(configuration=Configuration())
    theirs = {} if given is None else api.sanitize_for_serialization(given)
    # As Airflow itself reads a pod: the public way takes an HTTP response only.
    read = api._ApiClient__deserialize_model  # noqa: SLF001
    return {**config, "pod_override": read(client_mode.merged(part, theirs), V1Pod)}
