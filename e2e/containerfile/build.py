"""Builds Containerfiles with buildah: the one on PATH, or one that is fetched from the distribution and seen by its own
process alone.

All that buildah keeps lies in one directory, and is deleted when the image is written.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from e2e.cluster import distribution, images, recipes
from e2e.cluster.recipes import Made
from e2e.cluster.report import HarnessError

NAMES = ("operator", "router", "distill", "train")
LONGEST = 1800
ROOM_GIB = {"train": 28.0}
"""What the disk must have: wheels, the stage that builds, the image and its archive are there at once."""
# Laid over /usr and /etc in a mount namespace of its own: nothing is installed, and nothing is left.
INSIDE = """
mount -t overlay overlay -o "lowerdir=$1/usr:/usr" /usr
mount -t tmpfs tmpfs /run && mkdir /run/upper /run/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work /etc
shift && exec buildah "$@"
"""


def build(
    name: str,
    home: Path,
    *,
    tag: str = "containerfile",
    bases: Mapping[str, Path] | None = None,
    top: Path = recipes.ROOT,
) -> Made:
    """Build images/NAME.Containerfile of the tree `top`; returns the archive, as `Cluster.load_image` takes it.

    `bases`: archives in the place of the bases that it names, by build argument; the packages are then fetched by this
    machine's pip, and the build asks nobody. Without them, buildah fetches what the Containerfile names.
    """
    home.mkdir(parents=True, exist_ok=True)
    refuse_a_full_disk(home, ROOM_GIB.get(name, 2.0))
    reference, archive = f"{images.PREFIX}/{name}:{tag}", home / f"{name}.tar"
    buildah = Buildah(home / "storage")
    try:
        given = offline(name, home, bases) if bases else []
        given.append(f"--file={top / 'images' / f'{name}.Containerfile'}")
        if bases:  # the packages are installed: those of the trainer take gigabytes, and so does what comes next
            buildah.run("build", *given, "--target=build", str(top))
            for wheel in (home / "wheels").iterdir():
                wheel.unlink()
        buildah.run("build", *given, f"--tag={reference}", str(top))
        archive.unlink(missing_ok=True)
        buildah.run("push", reference, f"oci-archive:{archive}:{reference}")
    finally:
        buildah.forget()
        shutil.rmtree(home / "wheels", ignore_errors=True)
    return Made(reference, archive)


def offline(name: str, home: Path, bases: Mapping[str, Path]) -> list[str]:
    """What tells a build to take bases and packages from this machine."""
    wheels = fetch(name, home / "wheels")
    settings = home / "storage/pip.conf"
    settings.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    return [
        "--pull=never",
        *(f"--volume={wheels}:/wheels:ro", f"--volume={settings}:/etc/pip.conf:ro"),
        *(f"--build-arg={argument}=oci-archive:{archive}" for argument, archive in bases.items()),
    ]


def locks(name: str) -> list[Path]:
    """The lock files of an image's packages."""
    files = (recipes.ROOT / "requirements" / f"{name}{end}.txt" for end in ("", "-cuda"))
    return [file for file in files if file.exists()]


def fetch(name: str, wheels: Path) -> Path:
    """Fetch the packages of an image's lock files, as anybody gets them: without builds that this machine alone has."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-cache-dir", "--require-hashes", "--no-deps"]
    wanted = [part for lock in locks(name) for part in ("--requirement", str(lock))]
    ours = {key: value for key, value in os.environ.items() if key != "PIP_FIND_LINKS"}
    run([*command, "--only-binary", ":all:", "--dest", str(wheels), *wanted], ours)
    return wheels


class Buildah:
    """One buildah, and where it keeps what it makes."""

    def __init__(self, storage: Path) -> None:
        storage.mkdir(exist_ok=True)
        self._storage, self._policy = storage, storage / "policy.json"
        self._policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        self._inside: list[str] = []
        if shutil.which("buildah") is None:
            tree = distribution.tree(("buildah",))
            self._inside = ["unshare", "--mount", "--propagation=private", "sh", "-euc", INSIDE, "sh", str(tree)]

    def run(self, command: str, *arguments: str) -> str:
        """Run one of its commands; returns what it prints."""
        program = self._inside or ["buildah"]
        kept = [f"--root={self._storage / 'root'}", f"--runroot={self._storage / 'run'}"]
        if os.geteuid() == 0:
            kept.append("--storage-driver=overlay")
        how = {"build": ["--isolation=chroot", "--layers", "--timestamp=0"]}.get(command, [])
        asked = [f"--signature-policy={self._policy}"] if command in ("build", "push") else []
        blobs = self._storage / "blobs"
        blobs.mkdir(parents=True, exist_ok=True)
        given = [*program, *kept, "--registries-conf=/dev/null", command, *asked, *how, *arguments]
        return run(given, {**os.environ, "TMPDIR": str(blobs)})

    def forget(self) -> None:
        """Delete all that it keeps."""
        if os.geteuid():  # files of other users of its own, which we may not delete
            self.run("rmi", "--all", "--force")
        shutil.rmtree(self._storage, ignore_errors=True)


def run(command: list[str], env: Mapping[str, str] | None = None, *, cwd: Path = recipes.ROOT) -> str:
    """Run a program; what it printed, or an error with the end of it."""
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=LONGEST)
    if done.returncode:
        raise HarnessError(f"{command[0]} … failed with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def refuse_a_full_disk(folder: Path, gib: float) -> None:
    """Raise where there is not enough space."""
    free = shutil.disk_usage(folder).free / 2**30
    if free < gib:
        raise HarnessError(f"building an image needs {gib:.0f} GiB in {folder}, which has {free:.1f}")
