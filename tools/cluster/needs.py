"""What this machine must have, checked before anything is changed: one message names all that is missing."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tools.cluster.layout import CNI_PLUGINS, GO_MODULES
from tools.cluster.problems import ClusterError

PACKAGES = {
    "runc": "runc",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "gcc": "gcc libc6-dev",
    "openssl": "openssl",
    "umount": "mount",
}
"""Command -> the Debian packages that bring it."""
BRIDGE_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


def check_build() -> None:
    """Raises ClusterError without a Go that can compile the tools."""
    wanted = newest_go_line(path.read_text() for path in sorted(GO_MODULES.glob("*/go.mod")))
    if not shutil.which("go"):
        raise ClusterError(f"the cluster's programs are compiled from Go modules: install Go {wanted} or newer")
    done = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=False)
    found = done.stdout.strip().removeprefix("go")
    if done.returncode or version(found) < version(wanted):
        raise ClusterError(f"the cluster's programs need Go {wanted} or newer; this is {found or done.stderr.strip()}")


def missing_packages() -> list[str]:
    """Debian packages that this machine lacks."""
    missing = [package for command, package in PACKAGES.items() if not shutil.which(command, path=search_path())]
    if not (CNI_PLUGINS / "bridge").exists():
        missing.append("containernetworking-plugins")
    return missing


def check_run() -> None:
    """Raises ClusterError where kubelets can't run: not root, a missing package, a kernel without bridge filtering."""
    if os.geteuid():
        raise ClusterError("the cluster needs root: its kubelets start containers")
    if missing := missing_packages():
        raise ClusterError(f"missing Debian packages: apt-get install {' '.join(missing)}")
    if not BRIDGE_FILTER.exists():
        subprocess.run(["modprobe", "br_netfilter"], capture_output=True, check=False)
    if not BRIDGE_FILTER.exists():
        raise ClusterError(
            "the kernel has no br_netfilter module: without it no pod's answer to a service's client arrives"
        )


def search_path() -> str:
    """PATH with the folders of system programs, which some users' lacks."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def newest_go_line(mods: Iterable[str]) -> str:
    """The highest version that a ``go`` line of these go.mod texts asks for."""
    found = [match[1] for text in mods if (match := re.search(r"^go (\S+)$", text, re.MULTILINE))]
    return max(found, key=version)


def version(text: str) -> tuple[int, ...]:
    """``1.26.8`` as numbers; what follows them (``rc1``, `` X:experiment``) is left out."""
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
