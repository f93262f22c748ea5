"""NetworkPolicies enforced: kube-network-policies decides about the first packet of each connection between pods.

The rules by which it gets those packets are ours. Its own need nftables' ``queue``, which some kernels were built without;
where that is so it tries them again each second, in its log. Ours are iptables', for packets between pods alone: what comes
from this machine itself passes, as it does from a node elsewhere.
"""

from tools.cluster.kubectl import write_kubeconfig
from tools.cluster.layout import BIN, NODES, POD_NETWORK
from tools.cluster.processes import run, start

DAEMON = "network-policies"
QUEUE = "100"
QUEUEING = (
    "FORWARD", "-s", POD_NETWORK, "-d", POD_NETWORK, "-m", "conntrack", "--ctstate", "NEW",
    "-j", "NFQUEUE", "--queue-num", QUEUE, "--queue-bypass",
)  # fmt: skip
"""``bypass``: without the daemon everything passes."""


def start_policies() -> None:
    """Nothing where the kernel can't queue packets: then no policy has an effect, and the tests of them are skipped."""
    if run("iptables", "-t", "mangle", "-I", *QUEUEING, check=False, quiet=True).returncode:
        return
    start(
        DAEMON,
        [
            BIN / "standard",  # What the module calls its program.
            f"--kubeconfig={write_kubeconfig(DAEMON)}",
            f"--hostname-override={NODES[0].name}",
            f"--nfqueue-id={QUEUE}",
            "--metrics-bind-address=127.0.0.1:0",
            "--disable-nri",
            "--netfilter-bug-1766-fix=false",
        ],
    )


def stop_policies() -> None:
    """The rule; the daemon ends with the others."""
    run("iptables", "-t", "mangle", "-D", *QUEUEING, check=False, quiet=True)
