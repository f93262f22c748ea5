"""Drivers as pods of a Kubernetes cluster: a Connect server each, whose executors Spark's own scheduler starts as pods.

Promised: everything is named and labelled by the driver's id, so that what was made before a crash is found and adopted,
or removed, and nothing else is touched. Executors are placed by affinity to their driver, which no setting can drop. What
is reported ABSENT or EXITED was listed from the API server itself and has no pod left: a pod whose node doesn't answer
is still there. One watch per namespace serves all leases, calls are limited on our side, and each is bounded in time. A
broker that ends leaves its drivers running, and the next one with the same owner (by default: key) finds them.

Not promised: protection from code that runs in a driver, beyond what the cluster's own admission does; it has its service
account. That a pod which somebody deleted with ``--force`` has really ended: only its node knew.
"""

from sparkbroker.broker.adapters.kubernetes_provisioner._examine import Refusal, examine
from sparkbroker.broker.adapters.kubernetes_provisioner._provisioner import KubernetesProvisioner

__all__ = ["KubernetesProvisioner", "Refusal", "examine"]
