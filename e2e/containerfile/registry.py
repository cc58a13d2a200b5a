"""Brings an image to a registry and attaches its bill of materials to it there, by oras.

Who may push there is for `docker login` or `oras login` to say, before.
"""

from __future__ import annotations

from pathlib import Path

from e2e.cluster import binaries
from e2e.containerfile.build import run

BILL = "application/vnd.cyclonedx+json"
HERE = ("localhost", "127.0.0.1", "[::1]")


def push(archive: Path, digest: str, bill: Path, target: str) -> str:
    """Copy the image with this digest to `target`, REGISTRY/NAME:TAG, with its bill; returns the name to pin."""
    oras = str(binaries.oras())
    plain = target.rpartition(":")[0].split("/")[0].rpartition(":")[0] in HERE
    run(
        [
            oras,
            "cp",
            "--no-tty",
            *(["--to-plain-http"] if plain else []),
            "--from-oci-layout",
            f"{archive}@{digest}",
            target,
        ]
    )
    pinned = f"{target.rpartition(':')[0]}@{digest}"
    how = [f"--artifact-type={BILL}", *(["--plain-http"] if plain else [])]
    run([oras, "attach", "--no-tty", *how, pinned, f"{bill.name}:{BILL}"], cwd=bill.parent)
    return pinned
