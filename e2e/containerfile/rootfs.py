"""What is in an image: its OCI archive read as a container would see its file system, without unpacking it."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"


@dataclass(frozen=True)
class Image:
    """An image as it was written."""

    digest: str
    """Of its manifest: what a pod pins, where a registry has it as it is here."""
    layers: tuple[str, ...]
    """Digests, the lowest first."""
    compressed: int
    """Bytes that a registry holds of it."""
    config: dict[str, Any]
    """What kubelet is told of it."""
    files: dict[str, tarfile.TarInfo]
    """Every file, directory and link by its path without a leading slash."""

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(entry.size for entry in self.files.values() if entry.isreg())


def read(archive: Path) -> Image:
    """Read an OCI archive of one image."""
    with tarfile.open(archive) as outer:

        def document(digest: str) -> Any:
            with _blob(outer, digest) as blob:
                return json.load(blob)

        index = outer.extractfile("index.json")
        if index is None:
            raise ValueError(f"{archive} has no index")
        digest = json.load(index)["manifests"][0]["digest"]
        manifest = document(digest)
        files: dict[str, tarfile.TarInfo] = {}
        for layer in manifest["layers"]:
            with _blob(outer, layer["digest"]) as blob, tarfile.open(fileobj=blob, mode="r|*") as inner:
                _lay(files, inner)
        return Image(
            digest,
            tuple(layer["digest"] for layer in manifest["layers"]),
            sum(layer["size"] for layer in manifest["layers"]),
            document(manifest["config"]["digest"])["config"],
            files,
        )


def _lay(files: dict[str, tarfile.TarInfo], layer: tarfile.TarFile) -> None:
    """Lay a layer over those below: what it has replaces, what it strikes out is gone."""
    mine: dict[str, tarfile.TarInfo] = {}
    for entry in layer:
        path = PurePosixPath(entry.name.removeprefix("./").strip("/"))
        if path.name == OPAQUE:
            _drop(files, str(path.parent))
        elif path.name.startswith(WHITEOUT):
            gone = str(path.with_name(path.name.removeprefix(WHITEOUT)))
            files.pop(gone, None)
            _drop(files, gone)
        elif str(path) != ".":
            mine[str(path)] = entry
    files.update(mine)


def _drop(files: dict[str, tarfile.TarInfo], directory: str) -> None:
    for path in [path for path in files if path.startswith(f"{directory}/")]:
        del files[path]


@contextmanager
def _blob(outer: tarfile.TarFile, digest: str) -> Iterator[IO[bytes]]:
    found = outer.extractfile(f"blobs/{digest.replace(':', '/')}")
    if found is None:
        raise ValueError(f"the archive lacks {digest}")
    with found:
        yield found
