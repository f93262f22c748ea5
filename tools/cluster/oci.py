"""A folder as an OCI image: one layer, and the three small JSON files around it."""

import hashlib
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.cluster.processes import run

MEDIA = "application/vnd.oci.image"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def pack(root: Path, layout: Path, name: str, *, entrypoint: Sequence[str] = ()) -> str:
    """Writes an OCI layout of ``root`` into the new folder ``layout``; returns the manifest's digest.

    The same files give the same digest: their order, times and owners are fixed.
    """
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layer = layout / "layer.tar"
    run("tar", "-C", root, "--numeric-owner", "--sort=name", "--mtime=@0", "-cf", layer, ".")
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = layer.stat().st_size
    layer.rename(blobs / digest)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": [PATH], "Entrypoint": list(entrypoint)},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{MEDIA}.manifest.v1+json",
        "config": _put(blobs, config, f"{MEDIA}.config.v1+json"),
        "layers": [{"mediaType": f"{MEDIA}.layer.v1.tar", "digest": f"sha256:{digest}", "size": size}],
    }
    described = _put(blobs, manifest, f"{MEDIA}.manifest.v1+json")
    annotations = {"io.containerd.image.name": name}
    index = {"schemaVersion": 2, "manifests": [{**described, "annotations": annotations}]}
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return str(described["digest"])


def archive(layout: Path, path: Path) -> None:
    """An OCI layout as the tar file that containerd imports."""
    with tarfile.open(path, "w") as tar:
        tar.add(layout, arcname=".")


def _put(blobs: Path, content: Mapping[str, object], media: str) -> dict[str, object]:
    data = json.dumps(content).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)}
