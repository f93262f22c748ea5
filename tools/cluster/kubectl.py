"""The admin's view of the cluster."""

import subprocess
import textwrap
from pathlib import Path

from tools.cluster.layout import API_SERVER, BIN, KUBECONFIG, NODES, PKI, RUN
from tools.cluster.processes import run


def write_kubeconfig(name: str) -> Path:
    """The kubeconfig file of one of ``layout.IDENTITIES``."""
    path = RUN / f"{name}.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(
        textwrap.dedent(f"""\
        apiVersion: v1
        kind: Config
        clusters: [{{name: cluster, cluster: {{server: "{API_SERVER}", certificate-authority: "{PKI}/apiserver.crt"}}}}]
        users: [{{name: user, user: {{token: "{name}-token"}}}}]
        contexts: [{{name: context, context: {{cluster: cluster, user: user}}}}]
        current-context: context
        """)
    )
    return path


def kubectl(*argv: object) -> subprocess.CompletedProcess[str]:
    """Runs kubectl as admin; returns its result, whatever the exit status."""
    return run(BIN / "kubectl", "--kubeconfig", KUBECONFIG, "--request-timeout=5s", *argv, check=False, quiet=True)


def api_server_ready() -> bool:
    """Whether the API server answers, and says that it is ready."""
    return kubectl("get", "--raw", "/readyz").returncode == 0


def ready_nodes() -> int:
    """How many of this cluster's own."""
    listed = kubectl("get", "nodes", "--no-headers", *(node.name for node in NODES)).stdout
    return sum(" Ready " in line for line in listed.splitlines())


def default_account_exists() -> bool:
    """Until the controller-manager has made it, no pod can be created in the default namespace."""
    return kubectl("get", "serviceaccount", "default").returncode == 0
