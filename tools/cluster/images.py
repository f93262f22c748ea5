"""Images without a registry: built by BuildKit over a base that debootstrap makes, and loaded into every node."""

import concurrent.futures
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.cluster import oci
from tools.cluster.kubectl import api_server_ready
from tools.cluster.layout import BASE_IMAGE, BIN, CACHE, HERE, NODES, PAUSE_IMAGE, RUN, Node
from tools.cluster.needs import check_run
from tools.cluster.problems import ClusterError
from tools.cluster.processes import run, start, wait

BUILDKIT_DAEMON = "buildkitd"
BUILDKIT = RUN / "buildkitd.sock"
DEBIAN = "bookworm"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
"""This machine's, copied into the base: behind a company's proxy nothing can be installed without them."""


def build_image(name: str, context: Path, dockerfile: Path | None = None, *, ahead: bool = False) -> None:
    """Builds ``context`` and loads it into every node as ``name`` (with a tag other than ``latest``).

    ``ahead`` of the cluster's start nothing is loaded: the layers wait in BuildKit's cache.
    """
    if ":" not in name.rpartition("/")[2] or name.endswith(":latest"):
        raise ClusterError(
            f"{name!r} needs a tag other than latest, or the kubelets try to pull it: for example {name}:1"
        )
    dockerfile = dockerfile or context / "Dockerfile"
    if not dockerfile.is_file():
        raise ClusterError(f"there is no {dockerfile}")
    if ahead:
        check_run()
    else:
        _need_cluster()
    words = _prepared(context, dockerfile)
    if ahead:
        run(*words)
        return
    with _temporary_archive() as path:
        built = _export(words, name, path)
        if not all(_has(node, name, built) for node in NODES):
            load(path)


def load(path: Path) -> None:
    """Loads an OCI archive into every node."""
    if not path.is_file():
        raise ClusterError(f"there is no {path}")
    _need_cluster()
    with concurrent.futures.ThreadPoolExecutor(len(NODES)) as pool:
        list(pool.map(lambda node: _load_into(node, path), NODES))


def load_pause() -> None:
    """The image of every pod's first container, made here once."""
    path = CACHE / "pause.tar"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            root, layout = Path(folder, "root"), Path(folder, "layout")
            root.mkdir()
            run("gcc", "-Os", "-static", "-o", root / "pause", HERE / "pause.c")
            oci.pack(root, layout, PAUSE_IMAGE, entrypoint=["/pause"])
            oci.archive(layout, Path(folder, "pause.tar"))
            Path(folder, "pause.tar").rename(path)
    load(path)


def _need_cluster() -> None:
    if not api_server_ready():
        raise ClusterError("the cluster isn't up: start it first (`make cluster`, or `python3 -m tools.cluster up`)")


def _base() -> tuple[Path, str]:
    """An OCI layout that stands in for the base image, and its digest."""
    layout = CACHE / "base"
    stamp = layout / "digest"
    if not stamp.exists():
        shutil.rmtree(layout, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix="rootfs-") as folder:
            root = Path(folder)
            root.chmod(0o755)
            run("debootstrap", "--variant=minbase", "--include=ca-certificates", DEBIAN, root, quiet=True)
            shutil.copy(AUTHORITIES, root / AUTHORITIES.relative_to("/"))
            for emptied in ("var/cache/apt/archives", "var/lib/apt/lists"):
                shutil.rmtree(root / emptied, ignore_errors=True)
                (root / emptied / "partial").mkdir(parents=True)
            stamp_text = oci.pack(root, layout, BASE_IMAGE)
        stamp.write_text(stamp_text)
    return layout, stamp.read_text()


def _start_buildkit() -> None:
    if _buildkit_ready():
        return
    BUILDKIT.unlink(missing_ok=True)
    start(
        BUILDKIT_DAEMON,
        [
            BIN / "buildkitd",
            f"--root={CACHE}/buildkit",
            f"--addr=unix://{BUILDKIT}",
            "--oci-worker=true",
            "--oci-worker-net=host",
            "--containerd-worker=false",
        ],
    )
    wait("BuildKit", _buildkit_ready)


def _buildkit_ready() -> bool:
    asked = run(BIN / "buildctl", f"--addr=unix://{BUILDKIT}", "debug", "workers", check=False, quiet=True)
    return BUILDKIT.exists() and asked.returncode == 0


def _prepared(context: Path, dockerfile: Path) -> list[object]:
    """The command of a build, whose daemon runs; it shows its progress on the terminal.

    A named context replaces the base and leaves the Dockerfile alone.
    """
    layout, digest = _base()
    _start_buildkit()
    return [
        BIN / "buildctl",
        f"--addr=unix://{BUILDKIT}",
        "build",
        "--frontend=dockerfile.v0",
        "--progress=plain",
        f"--local=context={context}",
        f"--local=dockerfile={dockerfile.parent}",
        f"--opt=filename={dockerfile.name}",
        f"--oci-layout=base={layout}",
        f"--opt=context:{BASE_IMAGE}=oci-layout://base@{digest}",
    ]


def _export(words: list[object], name: str, path: Path) -> str:
    """Runs a build and writes the image to ``path``; returns its digest."""
    described = path.with_suffix(".json")
    output = f"type=oci,name={name},dest={path},compression=uncompressed"
    run(*words, f"--output={output}", f"--metadata-file={described}")
    digest: str = json.loads(described.read_text())["containerimage.digest"]
    described.unlink()
    return digest


def _has(node: Node, name: str, digest: str) -> bool:
    return digest in run(*_ctr(node), "images", "list", f"name=={name}", quiet=True).stdout


def _ctr(node: Node) -> tuple[str, ...]:
    return str(BIN / "ctr"), f"--address={node.containerd_socket}", "--namespace=k8s.io"


@contextmanager
def _temporary_archive() -> Iterator[Path]:
    path = CACHE / f"image-{os.getpid()}.tar"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _load_into(node: Node, path: Path) -> None:
    run(*_ctr(node), "images", "import", "--local", "--discard-unpacked-layers", path.resolve(), quiet=True)
