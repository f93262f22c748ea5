"""etcd, API server, controller-manager, scheduler, kube-proxy and CoreDNS, as processes of this machine."""

import textwrap

from tools.cluster.kubectl import api_server_ready, write_kubeconfig
from tools.cluster.layout import (
    API_SERVER,
    BIN,
    DNS,
    ETCD,
    ETCD_PEER,
    HOST,
    IDENTITIES,
    NODES,
    PKI,
    POD_NETWORK,
    RUN,
    SERVICE_NETWORK,
    STATE,
)
from tools.cluster.processes import run, start, wait


def start_control_plane() -> None:
    """Returns when the API server is ready; the others become so by themselves."""
    run("openssl", "genrsa", "-out", PKI / "accounts.key", "2048", quiet=True)
    (PKI / "tokens.csv").write_text(_tokens())
    for name in IDENTITIES:
        write_kubeconfig(name)
    _start_etcd()
    _start_api_server()
    wait("the API server", api_server_ready)
    _start_controller_manager()
    start(
        "scheduler",
        [
            BIN / "kube-scheduler",
            f"--kubeconfig={RUN}/scheduler.kubeconfig",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
        ],
    )
    _start_proxy()
    _start_dns()


def _tokens() -> str:
    rows = enumerate(IDENTITIES.items())
    return "".join(f'{name}-token,{who.user},{uid},"{",".join(who.groups)}"\n' for uid, (name, who) in rows)


def _start_etcd() -> None:
    start(
        "etcd",
        [
            BIN / "server",
            f"--data-dir={STATE}/etcd",
            "--unsafe-no-fsync",  # The cluster doesn't outlive the machine.
            f"--listen-client-urls={ETCD}",
            f"--advertise-client-urls={ETCD}",
            f"--listen-peer-urls={ETCD_PEER}",
        ],
    )


def _start_api_server() -> None:
    start(
        "apiserver",
        [
            BIN / "kube-apiserver",
            f"--etcd-servers={ETCD}",
            f"--bind-address={HOST}",
            f"--advertise-address={HOST}",
            f"--secure-port={API_SERVER.rpartition(':')[2]}",
            f"--cert-dir={PKI}",
            f"--token-auth-file={PKI}/tokens.csv",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged",  # As everywhere: what forbids it is admission.
            "--enable-admission-plugins=NodeRestriction",
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={PKI}/accounts.key",
            f"--service-account-signing-key-file={PKI}/accounts.key",
            "--kubelet-preferred-address-types=InternalIP",
            "--shutdown-delay-duration=0s",
        ],
    )


def _start_controller_manager() -> None:
    start(
        "controller-manager",
        [
            BIN / "kube-controller-manager",
            f"--kubeconfig={RUN}/controller-manager.kubeconfig",
            f"--service-account-private-key-file={PKI}/accounts.key",
            f"--root-ca-file={PKI}/apiserver.crt",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            "--node-monitor-grace-period=20s",
        ],
    )


def _start_proxy() -> None:
    path = RUN / "proxy.yaml"
    path.write_text(
        textwrap.dedent(f"""\
        apiVersion: kubeproxy.config.k8s.io/v1alpha1
        kind: KubeProxyConfiguration
        clientConnection: {{kubeconfig: "{RUN}/proxy.kubeconfig"}}
        mode: iptables
        clusterCIDR: {POD_NETWORK}
        hostnameOverride: {NODES[0].name}
        conntrack: {{maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
        """)
    )
    start("proxy", [BIN / "kube-proxy", f"--config={path}"])


def _start_dns() -> None:
    path = RUN / "Corefile"
    path.write_text(
        textwrap.dedent(f"""\
        .:53 {{
          bind {DNS}
          errors
          kubernetes cluster.local {{
            kubeconfig {RUN}/dns.kubeconfig context
          }}
          forward . /etc/resolv.conf
          cache 5
        }}
        """)
    )
    start("dns", [BIN / "coredns", "-conf", path])
