"""Find what a real node takes from the distribution: container runtime, network plugins, packet filter, base images.

What is installed is used. What is not is fetched once by the machine's own apt into the user's cache and unpacked
there, never installed: the node sees it, the machine does not. Deleting the cache is how to get newer ones. Knows names
of programs and packages, not how they are used.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from e2e.cluster.binaries import exclusively
from e2e.cluster.report import HarnessError, say

# Programs of a node, and Debian's package of each. A dependency that is installed is not fetched.
PROGRAMS = {
    "containerd": "containerd",
    "containerd-shim-runc-v2": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ip": "iproute2",
    "mount": "mount",
    "nsenter": "util-linux",
}
PLUGINS = ("bridge", "host-local", "loopback", "portmap")
PLUGIN_PACKAGE = "containernetworking-plugins"
PLUGIN_DIRECTORIES = (Path("/usr/lib/cni"), Path("/opt/cni/bin"), Path("/usr/libexec/cni"))
SEARCHED = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What Debian's maintainer scripts would have linked: they are not run.
ALTERNATIVES = {
    f"sbin/{name}": "xtables-nft-multi"
    for name in ("iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore")
}
RECIPE = "1"  # raise it when unpacking changes


def cache() -> Path:
    """Return where what was fetched lies."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modeltiers" / "node"


def missing() -> list[str]:
    """Return the packages of whatever a node needs and this machine does not have installed."""
    lacking = {package for program, package in PROGRAMS.items() if shutil.which(program, path=SEARCHED) is None}
    if plugins(PLUGIN_DIRECTORIES) is None:
        lacking.add(PLUGIN_PACKAGE)
    return sorted(lacking)


def plugins(directories: Iterable[Path]) -> Path | None:
    """Return the first directory that holds every network plugin."""
    return next((path for path in directories if all((path / name).exists() for name in PLUGINS)), None)


def plugins_inside(overlay: Path | None) -> Path | None:
    """Return where the network plugins are once `overlay` lies over /usr."""
    laid = {overlay.parent / path.relative_to("/"): path for path in PLUGIN_DIRECTORIES} if overlay else {}
    found = plugins(laid)
    return laid[found] if found else plugins(PLUGIN_DIRECTORIES)


def can_fetch() -> bool:
    """Tell whether this machine can fetch Debian's packages."""
    return all(shutil.which(program, path=SEARCHED) for program in ("apt-get", "apt-cache", "dpkg-deb"))


def overlay() -> Path | None:
    """Return a `usr` that holds what this machine lacks, to be laid over the node's; None when it lacks nothing."""
    lacking = missing()
    return tree(lacking) / "usr" if lacking else None


def tree(packages: Sequence[str]) -> Path:
    """Return a directory with these packages unpacked, and with those of their dependencies that are not installed."""
    home = cache() / f"packages-{_digest(RECIPE, *packages)}"
    with exclusively(home, "the distribution's packages"):
        if not home.exists():
            say(f"fetching {', '.join(packages)} into {home} (once; nothing is installed)")
            _unpack(_download(_uris("install", "--no-install-recommends", *packages)), home)
    return home


def base(packages: Sequence[str], *, described: bool = False) -> Path:
    """Return a root tree of exactly these packages: the base of an image.

    `described`: with what dpkg knows of each package, in the place where images that have no dpkg keep it.
    """
    home = cache() / f"base-{_digest(RECIPE, *packages, *(['described'] if described else []))}"
    with exclusively(home, "a base image's packages"):
        if not home.exists():
            say(f"fetching {len(packages)} packages for images into {home} (once)")
            _unpack(_download(_uris("download", *packages)), home, described=described)
    return home


def _uris(*command: str) -> list[str]:
    """Ask apt what it would fetch, as addresses with sizes and hashes, which also name the versions.

    A machine whose own lists are missing or old gets lists in our cache; its own are left alone.
    """
    done = _apt("--print-uris", "-y", *command)
    if done.returncode:
        lists = cache() / "lists"
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        _apt("update")
        done = _apt("--print-uris", "-y", *command)
    found = [line for line in done.stdout.splitlines() if line.startswith("'")]
    if done.returncode or not found:
        raise HarnessError(
            f"apt-get cannot name the packages of `{' '.join(command)}`: {done.stderr.strip() or 'no answer'}; "
            f"name a source of them in /etc/apt, or install containerd, runc, {PLUGIN_PACKAGE} and iptables yourself"
        )
    return sorted(found)


def _apt(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    options = ["Debug::NoLocking=1", "APT::Sandbox::User=root"]
    if (cache() / "lists").is_dir():
        options.append(f"Dir::State::lists={cache() / 'lists'}")
    command = ["apt-get", "-qq", *(word for option in options for word in ("-o", option)), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=600)


def _download(archives: Sequence[str]) -> list[Path]:
    """Let apt fetch and check the archives; return the files."""
    home = cache() / "archives"
    home.mkdir(parents=True, exist_ok=True)
    done = _apt("download", *map(_named, archives), cwd=home)
    files = [home / line.split()[1] for line in archives]
    lacking = [file.name for file in files if not file.exists()]
    if done.returncode or lacking:
        raise HarnessError(f"apt-get download failed, {', '.join(lacking)} did not come: {done.stderr.strip()}")
    return files


def _named(line: str) -> str:
    """Return NAME=VERSION from a line of apt's: 'address' NAME_VERSION_ARCH.deb SIZE HASH."""
    name, version, _ = line.split()[1].split("_", 2)
    return f"{name}={version.replace('%3a', ':')}"


def _unpack(archives: Sequence[Path], home: Path, *, described: bool = False) -> None:
    """Lay archives over each other as one merged /usr, and rename the result into place."""
    fresh = home.with_name(f".{home.name}.{os.getpid()}")
    for name in ("bin", "sbin", "lib", "lib64"):
        (fresh / "usr" / name).mkdir(parents=True, exist_ok=True)
        (fresh / name).symlink_to(f"usr/{name}")
    for directory in (fresh, fresh / "usr", *(fresh / "usr").iterdir()):
        directory.chmod(0o755)  # whatever our umask is, others shall read it
    for archive in archives:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE) as source:
            command = ["tar", "--extract", "--keep-directory-symlink", "--directory", str(fresh)]
            done = subprocess.run(command, stdin=source.stdout, capture_output=True, text=True, check=False)
        if done.returncode or source.returncode:
            raise HarnessError(f"cannot unpack {archive}: {done.stderr.strip()}")
        if described:
            known = subprocess.run(["dpkg-deb", "--field", str(archive)], capture_output=True, text=True, check=True)
            facts = fresh / "var/lib/dpkg/status.d" / archive.name.split("_")[0]
            facts.parent.mkdir(parents=True, exist_ok=True)
            facts.write_text(known.stdout)
    for link, target in ALTERNATIVES.items():
        if (fresh / "usr" / "sbin" / target).exists() and not (fresh / "usr" / link).exists():
            (fresh / "usr" / link).symlink_to(target)
    fresh.rename(home)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
