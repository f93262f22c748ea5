"""Storage: a default class without a provisioner, and some volumes of it, which are folders of this machine."""

import json

from tools.cluster.kubectl import kubectl
from tools.cluster.layout import NODES, RUN, STATE, Node
from tools.cluster.problems import ClusterError

CLASS = "standard"
VOLUMES_PER_NODE = 8
"""A volume isn't used again once its claim is deleted: so many claims can be bound in the life of a cluster."""


def make_volumes() -> None:
    """Creates the class and its volumes; nothing if they are there. Raises ClusterError."""
    volumes = [_volume(node, number) for node in NODES for number in range(VOLUMES_PER_NODE)]
    path = RUN / "volumes.json"
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [_storage_class(), *volumes]}))
    done = kubectl("apply", "-f", path)
    if done.returncode:
        raise ClusterError(f"the volumes can't be made: {done.stderr.strip()}")


def _storage_class() -> dict[str, object]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }


def _volume(node: Node, number: int) -> dict[str, object]:
    name = f"{node.name}-{number}"
    folder = STATE / "volumes" / name
    folder.mkdir(parents=True, exist_ok=True)
    on_node = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node.name]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": CLASS,
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_node]}]}},
        },
    }
