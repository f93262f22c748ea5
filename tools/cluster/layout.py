"""What the cluster is made of, as values: its folders, addresses, nodes, identities and the names of its images.

Everything lives outside of the source tree: what may be kept (binaries, images, Go's and BuildKit's caches) in the cache
folder, what dies with the cluster (sockets, certificates, logs, pids) in the run folder.
"""

import os
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
GO_MODULES = HERE / "go"
"""The Go modules whose ``tool`` lines name the binaries; ``go.sum`` pins every byte of them."""

CACHE = Path(
    os.environ.get("SPARKBROKER_CLUSTER_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparkbroker-cluster"
)
BIN = CACHE / "bin"
STATE = CACHE / "state"
"""What the running cluster writes in bulk (etcd, pods' volumes and logs): not in /run, which is memory on most machines."""
RUN = Path(os.environ.get("SPARKBROKER_CLUSTER_RUN") or "/run/sparkbroker-cluster")
PKI = RUN / "pki"
LOGS = RUN / "log"
KUBECONFIG = RUN / "admin.kubeconfig"
CNI_PLUGINS = Path("/usr/lib/cni")

KUBERNETES = "1.36.3"
"""As in go/kubernetes/go.mod. A test holds the two together."""

BRIDGE = "sbc0"
POD_NETWORK = "10.89.0.0/16"
HOST = "10.89.0.1"
DNS = "10.89.0.10"
FIRST_POD, LAST_POD = "10.89.1.0", "10.89.200.254"
SERVICE_NETWORK = "10.90.0.0/24"
API_SERVER = f"https://{HOST}:6443"
ETCD, ETCD_PEER = "http://127.0.0.1:23790", "http://127.0.0.1:23800"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One kubelet with its own containerd. All nodes share this machine's kernel, and each reports all of its CPUs."""

    name: str
    address: str
    zone: str
    health_port: int

    @property
    def home(self) -> Path:
        return RUN / self.name

    @property
    def state(self) -> Path:
        return STATE / self.name

    @property
    def containerd_socket(self) -> Path:
        return self.home / "containerd.sock"


NODES = (
    Node(name="node1", address="10.89.255.11", zone="zone-a", health_port=10270),
    Node(name="node2", address="10.89.255.12", zone="zone-a", health_port=10271),
    Node(name="node3", address="10.89.255.13", zone="zone-b", health_port=10272),
)

PAUSE_IMAGE = "sparkbroker-cluster.test/pause:1"
BASE_IMAGE = "debian:bookworm-slim"
"""The one image that a Dockerfile may name in FROM: what debootstrap makes stands in for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a component, or the person at the keyboard, is to the API server: a line of its token file."""

    user: str
    groups: tuple[str, ...] = ()


IDENTITIES = {
    "admin": Identity(user="admin", groups=("system:masters",)),
    "controller-manager": Identity(user="system:kube-controller-manager"),
    "scheduler": Identity(user="system:kube-scheduler"),
    "proxy": Identity(user="system:kube-proxy"),
    "dns": Identity(user="coredns", groups=("system:masters",)),
    "network-policies": Identity(user="kube-network-policies", groups=("system:masters",)),
    **{node.name: Identity(user=f"system:node:{node.name}", groups=("system:nodes",)) for node in NODES},
}
