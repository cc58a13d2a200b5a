"""Bills of materials: what syft finds in an image, the distribution's packages and Python's, as CycloneDX."""

from __future__ import annotations

import os
import tarfile
import tempfile
from pathlib import Path

from e2e.cluster import binaries
from e2e.cluster.recipes import Made
from e2e.containerfile.build import run

FORMAT = "cyclonedx-json@1.6"
VARIABLES = {"SYFT_CHECK_FOR_APP_UPDATE": "false", "SYFT_FILE_METADATA_SELECTION": "none"}


def write(made: Made, version: str, out: Path) -> Path:
    """Write the bill of an image into a file."""
    program = str(binaries.syft())
    name = made.reference.rpartition(":")[0]
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=made.archive.parent, prefix=".syft-") as scratch:
        with tarfile.open(
            made.archive
        ) as archive:  # syft itself takes none whose layers are of 2 GB, which the trainer's are
            archive.extractall(f"{scratch}/image", filter="data")
        run(
            [
                *(program, "scan", f"oci-dir:{scratch}/image", "--quiet"),
                *(f"--output={FORMAT}={out}", f"--source-name={name}", f"--source-version={version}"),
            ],
            {**os.environ, **VARIABLES, "TMPDIR": scratch, "SYFT_CACHE_DIR": scratch},
        )
    return out
