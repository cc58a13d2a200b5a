"""Builds Containerfiles with buildah, which is fetched from the distribution and seen by its own process alone.

The bases are trees of the distribution's packages and wheels are fetched outside, so that no registry is asked and the
build needs no network. Everything that buildah writes lies in one directory.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from e2e.cluster import distribution, images, recipes
from e2e.cluster.recipes import Made
from e2e.cluster.report import HarnessError

PIP = ("python3-pip", "python3-setuptools", "python3-wheel", "python3-pkg-resources", "python3-distutils")
PIP_NEEDS = ("python3-lib2to3",)
# Laid over /usr and /etc in a mount namespace of its own: nothing is installed, and nothing is left.
INSIDE = """
mount -t overlay overlay -o "lowerdir=$1/usr:/usr" /usr
mount -t tmpfs tmpfs /run && mkdir /run/upper /run/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work /etc
shift && exec buildah "$@"
"""


def build(name: str, home: Path) -> Made:
    """Build images/NAME.Containerfile; returns the archive, as `Cluster.load_image` takes it."""
    wheels = _fetch(recipes.ROOT / "requirements" / f"{name}.txt", home / "wheels")
    (home / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    (home / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    reference, archive = f"{images.PREFIX}/{name}:containerfile", home / f"{name}.tar"
    _buildah(
        home,
        "build",
        f"--signature-policy={home / 'policy.json'}",
        *("--isolation=chroot", "--pull=never"),
        *(f"--volume={wheels}:/wheels:ro", f"--volume={home / 'pip.conf'}:/etc/pip.conf:ro"),
        *(f"--build-arg={stage.upper()}=oci-archive:{archive}" for stage, archive in _bases(home).items()),
        *(f"--file=images/{name}.Containerfile", f"--tag={reference}", "."),
    )
    policy = f"--signature-policy={home / 'policy.json'}"
    _buildah(home, "push", policy, reference, f"oci-archive:{archive}:{reference}")
    return Made(reference, archive)


def _fetch(lock: Path, wheels: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "--only-binary", ":all:"]
    _run([*command, "--no-deps", "--dest", str(wheels), "--requirement", str(lock)])
    return wheels


def _bases(home: Path) -> dict[str, Path]:
    """The two stages' bases: Debian's Python, and the same with pip."""
    python = (recipes.base(), "/")
    stages = {"base": (python,), "build": (python, (distribution.base((*PIP, *PIP_NEEDS)), "/"))}
    made = {}
    for stage, layers in stages.items():
        image = images.Image(f"{stage}:dev", layers, (recipes.INTERPRETER,), {"PATH": recipes.PATH}, user="0:0")
        made[stage] = images.write(image, home / f"{stage}.tar")
    return made


def _buildah(home: Path, command: str, *arguments: str) -> None:
    tree = distribution.tree(("buildah",))
    kept = [f"--root={home / 'storage'}", f"--runroot={home / 'run'}", "--storage-driver=vfs"]
    inside = ["unshare", "--mount", "--propagation=private", "sh", "-euc", INSIDE, "sh", str(tree)]
    _run([*inside, *kept, "--registries-conf=/dev/null", command, *arguments])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=recipes.ROOT, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise HarnessError(f"{command[0]} … failed with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
