"""A real Kubernetes cluster of three nodes on one Linux machine, from Go modules and Debian packages: no Docker, no registry.

Real: etcd, API server (RBAC, NodeRestriction, Pod Security), controller-manager, scheduler, kube-proxy, CoreDNS, NetworkPolicies, and
three kubelets, each with its own containerd: node1 and node2 in zone-a, node3 in zone-b. Not real: one kernel, and each node
reports the whole machine's CPUs and memory.
"""

import argparse
import fcntl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from tools.cluster.binaries import MODULES, build
from tools.cluster.images import build_image, load
from tools.cluster.kubectl import api_server_ready
from tools.cluster.layout import BIN, CACHE, KUBECONFIG
from tools.cluster.lifecycle import down, up
from tools.cluster.needs import missing_packages
from tools.cluster.problems import ClusterError
from tools.cluster.processes import restart

CHANGES = ("build", "up", "down", "image", "load", "restart")
TOOLS = ("kubectl", "helm")


def main() -> int:
    """Runs one command; 0, or 1 with a sentence on stderr."""
    words = sys.argv[1:]
    if words[:1] and words[0] in TOOLS:  # argparse would take their options for its own.
        return subprocess.run([BIN / words[0], "--kubeconfig", KUBECONFIG, *words[1:]], check=False).returncode
    args = _parser().parse_args(words)
    try:
        with _alone() if args.command in CHANGES else nullcontext():
            _run(args)
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    return 0


def _run(args: argparse.Namespace) -> None:
    match args.command:
        case "build":
            build(args.module or MODULES)
        case "up":
            began = time.monotonic()
            up()
            print(f"ready after {time.monotonic() - began:.1f} s", file=sys.stderr)
            print(KUBECONFIG)
        case "down":
            down()
        case "image":
            build_image(args.name, args.context, args.file, ahead=args.ahead)
        case "load":
            load(args.archive)
        case "restart":
            restart(args.name)
        case "needs":
            print(" ".join(missing_packages()))
        case "kubeconfig":
            if not (KUBECONFIG.exists() and api_server_ready()):  # The file outlives a machine's sudden end.
                raise ClusterError("the cluster isn't up")
            print(KUBECONFIG)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m tools.cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    built = commands.add_parser("build", help="compile the programs (minutes the first time, kept afterwards)")
    built.add_argument("module", nargs="*", help=f"(default: {' '.join(MODULES)})")
    commands.add_parser("needs", help="print the Debian packages that are missing")
    commands.add_parser("up", help="start the cluster, unless it is up, and print the path of its kubeconfig")
    commands.add_parser("down", help="stop everything, unmount, and keep binaries and images")
    image = commands.add_parser("image", help="build an image with BuildKit and load it into every node")
    image.add_argument("name", help="with a tag, for example sparkbroker.test/spark:1")
    image.add_argument("context", type=Path, help="the folder that the Dockerfile copies from")
    image.add_argument("-f", "--file", type=Path, help="the Dockerfile (default: Dockerfile in that folder)")
    image.add_argument("--ahead", action="store_true", help="only build it: the cluster may not be up yet")
    commands.add_parser("load", help="load an OCI archive into every node").add_argument("archive", type=Path)
    commands.add_parser("restart", help="end one of the daemons and start it again").add_argument(
        "name", help="for example apiserver, or kubelet-node1"
    )
    commands.add_parser("kubeconfig", help="print the path of the running cluster's kubeconfig")
    for tool in TOOLS:
        commands.add_parser(tool, help=f"run the cluster's own {tool}, with all that follows as its arguments")
    return parser


@contextmanager
def _alone() -> Iterator[None]:
    """One command at a time changes the cluster."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main())
