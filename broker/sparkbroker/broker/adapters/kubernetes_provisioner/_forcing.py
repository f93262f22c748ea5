"""What an operator's word does to pods that can't be confirmed gone."""

from sparkbroker.broker.adapters.kubernetes_provisioner._cluster import Cluster
from sparkbroker.broker.adapters.kubernetes_provisioner._pods import Pod
from sparkbroker.broker.adapters.kubernetes_provisioner._reasons import unconfirmable


async def remove_lost(cluster: Cluster, namespace: str, selector: str, wall: float) -> tuple[list[Pod], list[Pod]]:
    """Take those whose nodes don't answer, or are overdue, from the API server's record. Return them, and the others. Raise
    ApiFailed."""
    pods, _ = await cluster.list_pods(namespace, selector)
    lost = [pod for pod in pods if unconfirmable(pod, wall)]
    for pod in lost:
        await cluster.remove_pod(pod)
    return lost, [pod for pod in pods if pod not in lost]
