"""An executor's pod as Spark makes one, for tests that change it."""

import copy
import hashlib

IMAGE = "sparkbroker.test/none:1"
"""Nothing is pulled or run: the pods of these tests belong to no node."""
RESTRICTED = {"runAsNonRoot": True, "runAsUser": 185, "seccompProfile": {"type": "RuntimeDefault"}}
OWNER = "r-" + hashlib.sha256(b"none/r").hexdigest()[:16]
"""The chart's for a release ``r`` in the namespace ``none``."""
CONTAINED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def pod(name, role, driver, **spec):
    labels = {"sparkbroker.io/role": role, "sparkbroker.io/driver": driver, "sparkbroker.io/owner": OWNER}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "restartPolicy": "Never",
            "nodeSelector": {"no": "node"},
            "securityContext": RESTRICTED,
            "containers": [
                {
                    "name": "spark-kubernetes-executor",
                    "image": IMAGE,
                    "securityContext": CONTAINED,
                    "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}},
                }
            ],
            **spec,
        },
    }


def container(manifest):
    return manifest["spec"]["containers"][0]


def init_container(manifest):
    """A second one, beside Spark's own."""
    [made] = manifest["spec"]["initContainers"] = [copy.deepcopy(container(manifest)) | {"name": "init"}]
    return made
