"""Where nginx, haproxy and wrk are: the machine's own, or the distribution's packages laid into a folder of the user's.

The packages come through apt with the sources that the machine has set up, without being installed and without root.
Decides nothing about how they are run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

PROGRAMS: Final = ("nginx", "haproxy", "wrk")
"""Each is in the package of its own name."""
FOLDERS: Final = ("usr/sbin", "usr/bin", "sbin", "bin")
SECONDS: Final = 300


class MissingProgram(RuntimeError):
    """A program that is neither here nor to be had."""


@dataclass(frozen=True)
class Programs:
    """Where each program is, and what it needs in its environment to find its libraries."""

    paths: dict[str, Path]
    environment: dict[str, str] = field(default_factory=dict)


def programs(cache: Path | None = None) -> Programs:
    """Return the programs; raises MissingProgram with the command that would install them.

    `cache` is where packages are unpacked if need be; the user's cache folder when left out.
    """
    missing = [name for name in PROGRAMS if _installed(name) is None]
    if not missing:
        return Programs({name: found for name in PROGRAMS if (found := _installed(name))})
    root = (cache or _cache()) / "modeltiers/bench"
    if not all(_unpacked(root, name) for name in missing):
        _fetch(root, missing)
    paths = {name: found for name in PROGRAMS if (found := _installed(name) or _unpacked(root, name))}
    if absent := [name for name in PROGRAMS if name not in paths]:
        raise MissingProgram(f"the packages hold no {', '.join(absent)}; {_by_hand(absent)}")
    libraries = sorted({str(one.parent) for one in root.rglob("*.so*")})
    return Programs(paths, {"LD_LIBRARY_PATH": ":".join(libraries)} if libraries else {})


def _installed(name: str) -> Path | None:
    places = os.pathsep.join([os.environ.get("PATH", ""), *(f"/{folder}" for folder in FOLDERS)])
    found = shutil.which(name, path=places)
    return Path(found) if found else None


def _unpacked(root: Path, name: str) -> Path | None:
    return next((path for folder in FOLDERS if (path := root / folder / name).is_file()), None)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _fetch(root: Path, names: Sequence[str]) -> None:
    """Download the packages and what they depend on that is not installed, and unpack them under `root`."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise MissingProgram(f"{', '.join(names)} not found, and no {tool} to fetch them with; install them")
    archives = root / "archives"
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    options = ["-o", "Debug::NoLocking=1", "-o", f"Dir::Cache::archives={archives}"]
    command = ["apt-get", "-y", "-q", "--download-only", "--no-install-recommends", *options, "install", *names]
    _run(command, names)
    for package in sorted(archives.glob("*.deb")):
        _run(["dpkg-deb", "-x", str(package), str(root)], names)


def _run(command: Sequence[str], names: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise MissingProgram(f"{command[0]} took more than {SECONDS} s; {_by_hand(names)}") from None
    if done.returncode:
        raise MissingProgram(f"{command[0]} failed; {_by_hand(names)}. It said:\n{done.stderr[-1000:]}")


def _by_hand(names: Sequence[str]) -> str:
    return f"install them by hand: apt-get update && apt-get install {' '.join(names)}"
