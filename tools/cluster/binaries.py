"""The cluster's programs, compiled from the Go modules under ``go`` and kept in the cache folder.

Several modules, since one with everything in it doesn't compile. Cold it takes about six minutes of two cores and 8 GB of
Go's own caches; a module whose go.mod, go.sum and flags haven't changed is left as it is.
"""

import hashlib
import os
import shlex
import sys

from tools.cluster.layout import BIN, GO_MODULES, KUBERNETES
from tools.cluster.needs import check_build
from tools.cluster.processes import run

MODULES = ("containers", "kubernetes", "addons", "policies")


def build() -> None:
    """Compiles what is missing or of another version. Raises ClusterError."""
    stale = [module for module in MODULES if not _is_built(module)]
    if not stale:
        return
    check_build()
    BIN.mkdir(parents=True, exist_ok=True)
    settings = {"CGO_ENABLED": "0", "GOBIN": str(BIN), "GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local"}
    for module in stale:
        print(f"compiling {module} (minutes, the first time)", file=sys.stderr)
        pairs = [f"{name}={value}" for name, value in settings.items()]
        words = ["env", *pairs, "go", "install", "-trimpath", "-ldflags", _link_flags(), "tool"]
        run(*words, cwd=GO_MODULES / module)
        (BIN / f".{module}").write_text(_fingerprint(module))


def _is_built(module: str) -> bool:
    stamp = BIN / f".{module}"
    return stamp.exists() and stamp.read_text() == _fingerprint(module)


def _fingerprint(module: str) -> str:
    texts = [(GO_MODULES / module / name).read_bytes() for name in ("go.mod", "go.sum")]
    return hashlib.sha256(b"\0".join([*texts, os.fsencode(_link_flags())])).hexdigest()


def _link_flags() -> str:
    """Without the version in it the API server calls itself v0.0.0, and Helm refuses charts."""
    major, minor, _ = KUBERNETES.split(".")
    values = {"gitVersion": f"v{KUBERNETES}", "gitMajor": major, "gitMinor": minor}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    settings = [
        word for package in packages for name, value in values.items() for word in ("-X", f"{package}.{name}={value}")
    ]
    return shlex.join(["-s", "-w", *settings])
