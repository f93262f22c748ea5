"""The cluster's programs, compiled from the Go modules under ``go`` and kept in the cache folder.

Several modules, since one with everything in it doesn't compile. Cold it takes about six minutes of two cores and 5 GB of
Go's own caches; a module whose sources and flags haven't changed is left as it is.
"""

import hashlib
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tools.cluster.layout import BIN, CACHE, GO_MODULES, KUBERNETES
from tools.cluster.needs import check_build
from tools.cluster.problems import ClusterError
from tools.cluster.processes import run

MODULES = ("containers", "kubernetes")
"""What the cluster is made of; the other modules are compiled for what asks for them."""
GO_CACHES = CACHE / "go"


def build(modules: Sequence[str] = MODULES) -> None:
    """Compiles what is missing or of another version. Raises ClusterError."""
    known = sorted(path.parent.name for path in GO_MODULES.glob("*/go.mod"))
    if unknown := set(modules).difference(known):
        raise ClusterError(f"there is no module {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    stale = [module for module in modules if not _is_built(module)]
    if not stale:
        return
    check_build()
    BIN.mkdir(parents=True, exist_ok=True)
    settings = {
        "CGO_ENABLED": "0",
        "GOBIN": str(BIN),
        "GOFLAGS": "-buildvcs=false -modcacherw",
        "GOTOOLCHAIN": "local",
    }
    with _go_caches() as caches:
        for module in stale:
            print(f"compiling {module} (minutes, the first time)", file=sys.stderr)
            pairs = [f"{name}={value}" for name, value in (settings | caches).items()]
            run("env", *pairs, "go", "install", *_flags(), "tool", cwd=GO_MODULES / module)
            (BIN / f".{module}").write_text(_fingerprint(module))


@contextmanager
def _go_caches() -> Iterator[dict[str, str]]:
    """Settings of Go's caches: a developer's own, which later builds use again.

    In CI they are a folder of this build alone, and go with it: the images need the disk, and the programs are kept.
    """
    if not os.environ.get("CI"):
        yield {}
        return
    try:
        yield {"GOCACHE": f"{GO_CACHES}/build", "GOMODCACHE": f"{GO_CACHES}/modules"}
    finally:
        shutil.rmtree(GO_CACHES, ignore_errors=True)


def _is_built(module: str) -> bool:
    stamp = BIN / f".{module}"
    return stamp.exists() and stamp.read_text() == _fingerprint(module)


def _fingerprint(module: str) -> str:
    sources = sorted(path for path in (GO_MODULES / module).rglob("*") if path.is_file())
    texts = [path.read_bytes() for path in sources]
    return hashlib.sha256(b"\0".join([*texts, os.fsencode(shlex.join(_flags()))])).hexdigest()


def _flags() -> list[str]:
    """Nothing for debuggers, in the objects neither: they are a part of the work, and of the caches."""
    return ["-trimpath", "-gcflags=all=-dwarf=false", "-ldflags", _link_flags()]


def _link_flags() -> str:
    """Without the version in it the API server calls itself v0.0.0, and Helm refuses charts."""
    major, minor, _ = KUBERNETES.split(".")
    values = {"gitVersion": f"v{KUBERNETES}", "gitMajor": major, "gitMinor": minor}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    settings = [
        word for package in packages for name, value in values.items() for word in ("-X", f"{package}.{name}={value}")
    ]
    return shlex.join(["-s", "-w", *settings])
