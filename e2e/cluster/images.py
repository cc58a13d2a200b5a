"""Make container images from directories, without a container engine: OCI archives that containerd imports.

Knows the format and nothing of what is in an image. The same content gives the same bytes, so an image's digest says
whether anything changed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
PREFIX = "localhost/modeltiers"


@dataclass(frozen=True)
class Image:
    """What an image runs, and the directories its file system is made of, one over the other.

    `layers` are pairs of a directory and the path that it gets in the image.
    """

    name: str  # without registry; a tag is required, and never `latest`, which kubelet would try to pull
    layers: tuple[tuple[Path, str], ...]
    entrypoint: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = "10001:10001"
    workdir: str = "/"

    @property
    def reference(self) -> str:
        """The name in a pod."""
        return f"{PREFIX}/{self.name}"


def write(image: Image, archive: Path) -> Path:
    """Write an image as an OCI archive, replacing an earlier one at once."""
    fresh = archive.with_name(f".{archive.name}.{os.getpid()}")
    with tarfile.open(fresh, "w", format=tarfile.PAX_FORMAT) as out:
        layers = [_add_layer(out, directory, target, fresh.parent) for directory, target in image.layers]
        config = _add_blob(out, _config(image, [layer["digest"] for layer in layers]))
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, **config},
            "layers": [{"mediaType": LAYER, **layer} for layer in layers],
        }
        named = {"io.containerd.image.name": image.reference, "org.opencontainers.image.ref.name": image.reference}
        entry = {"mediaType": MANIFEST, **_add_blob(out, manifest), "annotations": named}
        _add(out, "index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())
        _add(out, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
    fresh.replace(archive)
    return archive


def _config(image: Image, layers: Iterable[str]) -> dict[str, Any]:
    layers = list(layers)
    return {
        "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
        "os": "linux",
        "config": {
            "User": image.user,
            "Entrypoint": list(image.entrypoint),
            "Env": [f"{name}={value}" for name, value in image.env.items()],
            "WorkingDir": image.workdir,
        },
        "rootfs": {"type": "layers", "diff_ids": layers},  # uncompressed: a layer's digest is its content's
        "history": [{"created_by": "directory"} for _ in layers],  # whoever builds upon it counts them
    }


def _add_layer(out: tarfile.TarFile, directory: Path, target: str, scratch: Path) -> dict[str, Any]:
    """Add a directory as a layer; its tar is written beside the archive first, for its digest names it."""
    path = scratch / f".layer.{os.getpid()}"
    try:
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as layer:
            for entry in sorted(directory.rglob("*")):
                name = f"{target.strip('/')}/{entry.relative_to(directory)}".lstrip("/")
                layer.add(entry, name, recursive=False, filter=_normal)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = path.stat().st_size
            file.seek(0)
            header = tarfile.TarInfo(f"blobs/sha256/{digest}")
            header.size = size
            out.addfile(header, file)
    finally:
        path.unlink(missing_ok=True)
    return {"digest": f"sha256:{digest}", "size": size}


def _normal(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Forget who made a file and when, and let everybody read what its owner may: containers run as nobody of ours."""
    entry.mode |= (entry.mode & 0o500) >> 3 | (entry.mode & 0o500) >> 6
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    return entry


def _add_blob(out: tarfile.TarFile, document: Any) -> dict[str, Any]:
    content = json.dumps(document, sort_keys=True).encode()
    digest = hashlib.sha256(content).hexdigest()
    _add(out, f"blobs/sha256/{digest}", content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


def _add(out: tarfile.TarFile, name: str, content: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    out.addfile(header, io.BytesIO(content))
