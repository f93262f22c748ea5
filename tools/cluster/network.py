"""The network that all nodes and pods share: one bridge on this machine."""

from pathlib import Path

from tools.cluster.layout import BRIDGE, DNS, HOST, NODES, POD_NETWORK
from tools.cluster.needs import BRIDGE_FILTER
from tools.cluster.processes import run

MAC = "02:00:00:00:00:01"
"""Fixed: a bridge takes over the lowest address of its ports, so that pods coming and going stall their neighbours' DNS."""
FORWARDING = ("FORWARD", "-s", POD_NETWORK, "-d", POD_NETWORK, "-m", "comment", "--comment", BRIDGE, "-j", "ACCEPT")
"""Some machines (with Docker, for one) forward nothing by default."""


def make_network() -> None:
    """The bridge with the host's, the DNS server's and the nodes' addresses; nothing if it is there."""
    if run("ip", "link", "show", BRIDGE, check=False, quiet=True).returncode == 0:
        return
    prefix = POD_NETWORK.partition("/")[2]
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "link", "set", BRIDGE, "address", MAC)
    run("ip", "addr", "add", f"{HOST}/{prefix}", "dev", BRIDGE)
    for address in (DNS, *(node.address for node in NODES)):
        run("ip", "addr", "add", f"{address}/32", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    BRIDGE_FILTER.write_text("1")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    if run("iptables", "-C", *FORWARDING, check=False, quiet=True).returncode:
        run("iptables", "-I", *FORWARDING)


def remove_network() -> None:
    """The bridge and its rule; kube-proxy's rules stay, without effect, until the next cluster replaces them."""
    run("iptables", "-D", *FORWARDING, check=False, quiet=True)
    run("ip", "link", "delete", BRIDGE, check=False, quiet=True)
