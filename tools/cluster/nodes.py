"""A kubelet and a containerd of its own for each node."""

import json
import textwrap
from pathlib import Path

from tools.cluster.layout import (
    BIN,
    BRIDGE,
    CACHE,
    CNI_PLUGINS,
    DNS,
    FIRST_POD,
    HOST,
    LAST_POD,
    PAUSE_IMAGE,
    POD_NETWORK,
    RUN,
    Node,
)
from tools.cluster.processes import start, wait

CGROUPS = Path("/sys/fs/cgroup")
CGROUP_HIERARCHIES = ("cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "devices", "freezer", "systemd")
"""Of version 1; version 2 has one for all."""


def start_node(node: Node) -> None:
    """Starts both; the node registers itself and becomes Ready on its own."""
    node.home.mkdir(parents=True)
    node.state.mkdir(parents=True)
    _write_pod_network(node)
    containerd = node.home / "containerd.toml"
    containerd.write_text(_containerd_settings(node))
    start(f"containerd-{node.name}", [BIN / "containerd", "--config", containerd])
    # A kubelet that finds nobody there ends.
    wait(f"containerd of {node.name}", node.containerd_socket.is_socket)
    _make_cgroups(node)
    kubelet = node.home / "kubelet.yaml"
    kubelet.write_text(_kubelet_settings(node))
    start(
        f"kubelet-{node.name}",
        [
            BIN / "kubelet",
            f"--config={kubelet}",
            f"--kubeconfig={RUN}/{node.name}.kubeconfig",
            f"--root-dir={node.state}/kubelet",
            f"--cert-dir={node.home}/pki",
            f"--hostname-override={node.name}",
            f"--node-ip={node.address}",
            f"--node-labels=topology.kubernetes.io/zone={node.zone}",
        ],
    )


def _write_pod_network(node: Node) -> None:
    addresses = {"subnet": POD_NETWORK, "rangeStart": FIRST_POD, "rangeEnd": LAST_POD, "gateway": HOST}
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": f"{RUN}/addresses",
            "routes": [{"dst": "0.0.0.0/0"}],
            "ranges": [[addresses]],
        },
    }
    folder = node.home / "cni"
    folder.mkdir()
    (folder / "10-bridge.conflist").write_text(
        json.dumps({"cniVersion": "0.4.0", "name": "sparkbroker-cluster", "plugins": [bridge]})
    )


def _containerd_settings(node: Node) -> str:
    """NRI is off since several containerds would share its socket; a container's OOM score is kept within what this
    process may set, since some sandboxes lack CAP_SYS_RESOURCE.
    """
    return textwrap.dedent(f"""\
        version = 3
        root = "{CACHE}/containerd/{node.name}"
        state = "{node.home}/containerd"
        [grpc]
          address = "{node.containerd_socket}"
        [ttrpc]
          address = "{node.home}/containerd.ttrpc"
        [plugins.'io.containerd.nri.v1.nri']
          disable = true
        [plugins.'io.containerd.cri.v1.images'.pinned_images]
          sandbox = "{PAUSE_IMAGE}"
        [plugins.'io.containerd.cri.v1.runtime']
          restrict_oom_score_adj = true
        [plugins.'io.containerd.cri.v1.runtime'.cni]
          bin_dirs = ["{CNI_PLUGINS}"]
          conf_dir = "{node.home}/cni"
        """)


def _kubelet_settings(node: Node) -> str:
    """Images are loaded, not pulled: the kubelet must not remove them when the disk fills."""
    return textwrap.dedent(f"""\
        apiVersion: kubelet.config.k8s.io/v1beta1
        kind: KubeletConfiguration
        authentication: {{anonymous: {{enabled: true}}, webhook: {{enabled: false}}}}
        authorization: {{mode: AlwaysAllow}}
        address: {node.address}
        port: 10250
        healthzPort: {node.health_port}
        readOnlyPort: 0
        cgroupDriver: cgroupfs
        cgroupRoot: /{node.name}
        clusterDNS: ["{DNS}"]
        clusterDomain: cluster.local
        failSwapOn: false
        failCgroupV1: false
        containerRuntimeEndpoint: "unix://{node.containerd_socket}"
        podLogsDir: "{node.state}/pod-logs"
        volumePluginDir: "{node.home}/volume-plugins"
        imageGCHighThresholdPercent: 100
        imageGCLowThresholdPercent: 99
        evictionHard: {{memory.available: 100Mi, nodefs.available: "1%", imagefs.available: "1%", nodefs.inodesFree: "1%"}}
        nodeStatusUpdateFrequency: 5s
        """)


def _make_cgroups(node: Node) -> None:
    """The root under which the kubelet puts its pods: it insists that this is there."""
    unified = CGROUPS / "cgroup.controllers"
    if unified.exists():
        (CGROUPS / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in unified.read_text().split()))
        (CGROUPS / node.name).mkdir(exist_ok=True)
        return
    for hierarchy in CGROUP_HIERARCHIES:
        if (CGROUPS / hierarchy).is_dir():
            (CGROUPS / hierarchy / node.name).mkdir(exist_ok=True)
    for key in ("cpuset.cpus", "cpuset.mems"):
        if (CGROUPS / "cpuset" / key).exists():
            (CGROUPS / "cpuset" / node.name / key).write_text((CGROUPS / "cpuset" / key).read_text())
