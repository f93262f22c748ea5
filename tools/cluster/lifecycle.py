"""The whole cluster's start and end."""

import shutil
from pathlib import Path

from tools.cluster.binaries import build
from tools.cluster.control_plane import start_control_plane
from tools.cluster.images import BUILDKIT_DAEMON, load_pause
from tools.cluster.kubectl import default_account_exists, ready_nodes
from tools.cluster.layout import LOGS, NODES, PKI, RUN, STATE
from tools.cluster.needs import check_run
from tools.cluster.network import make_network, remove_network
from tools.cluster.nodes import start_node
from tools.cluster.policies import start_policies, stop_policies
from tools.cluster.processes import daemons, run, stop_all, wait
from tools.cluster.volumes import make_volumes


def up() -> None:
    """Returns when three nodes are Ready and pods can be created. A cluster that is up is left alone.

    One of which a part has died is replaced, and with it everything on it.

    Raises ClusterError; what had been started is then left as it is, with its logs, until the next ``up`` or ``down``.
    """
    check_run()
    build()
    if _is_up():
        return
    down()
    for folder in (PKI, LOGS, STATE):
        folder.mkdir(parents=True)
    RUN.chmod(0o700)
    make_network()
    start_control_plane()
    start_policies()
    for number, node in enumerate(NODES, 1):
        start_node(node)
        # One after the other: each takes the socket for device plugins, whose path is the same for all, from the last one.
        wait(node.name, lambda number=number: ready_nodes() == number)  # type: ignore[misc]
    load_pause()
    make_volumes()
    wait("the default service account", default_account_exists)


def down() -> None:
    """Ends all processes and pods and removes what they left, but for binaries, images and caches. Safe to repeat."""
    stop_all()
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted(mounts, reverse=True):
        if mount.startswith((f"{RUN}/", f"{STATE}/")):
            run("umount", "-l", mount, check=False, quiet=True)
    stop_policies()
    remove_network()
    for folder in (RUN, STATE):
        shutil.rmtree(folder, ignore_errors=True)


def _is_up() -> bool:
    started = [daemon for daemon in daemons() if daemon.name != BUILDKIT_DAEMON]
    return bool(started) and all(daemon.lives() for daemon in started) and ready_nodes() == len(NODES)
