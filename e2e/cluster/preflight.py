"""Say what a machine lacks for a real node, before anything is started, and with the way out.

A program that can do without a real node asks `lacks` and goes on; one that cannot calls `prepare`, which raises.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from e2e.cluster import binaries, distribution, sandbox
from e2e.cluster.report import HarnessError

CONTROLLERS = frozenset({"cpu", "cpuset", "memory", "pids"})
CONTROLLERS_V1 = CONTROLLERS | {"cpuacct", "devices", "freezer"}
DISK_GIB = 2.0
CAP_SYS_ADMIN, CAP_NET_ADMIN = 21, 12
FAKE_ONLY = "without it the cluster still runs on fake nodes alone"


def lacks(state: Path | None = None) -> list[str]:
    """Return what keeps this machine from running a real node, one sentence each; empty when nothing does."""
    first = _first(_not_linux, _not_root, _no_cgroups)
    if first:
        return first
    return _all(_no_packages, _no_namespaces, lambda: _no_disk(state or Path(tempfile.gettempdir())))


def prepare(state: Path) -> Path | None:
    """Return what is laid over the node's /usr, None when all is installed; refuse a machine that cannot do it."""
    found = lacks(state) + _hidden(state)
    if found:
        raise HarnessError("a real node cannot run here:\n" + "\n".join(f"- {sentence}" for sentence in found))
    return distribution.overlay()


def _first(*checks: Callable[[], str]) -> list[str]:
    for check in checks:
        if said := check():
            return [said]
    return []


def _all(*checks: Callable[[], str]) -> list[str]:
    return [said for check in checks if (said := check())]


def _not_linux() -> str:
    return "" if sys.platform == "linux" else f"this is {sys.platform}: a node's containers are Linux's; {FAKE_ONLY}"


def _not_root() -> str:
    """Mounts, network namespaces and cgroups take root; a container's root may lack what makes it one."""
    if os.geteuid():
        return f"you are not root: run it with sudo; {FAKE_ONLY}"
    status = Path("/proc/self/status").read_text()
    effective = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), 16)
    missing = [
        name
        for name, bit in (("CAP_SYS_ADMIN", CAP_SYS_ADMIN), ("CAP_NET_ADMIN", CAP_NET_ADMIN))
        if not effective >> bit & 1
    ]
    if missing:
        return f"root here lacks {' and '.join(missing)}, as in a container: run it on the machine itself; {FAKE_ONLY}"
    return ""


def _no_cgroups() -> str:
    found = sandbox.here()
    if not found:
        return f"no cgroups are mounted below /sys/fs/cgroup: mount them; {FAKE_ONLY}"
    if found[0].unified:
        have, wanted = set((found[0].mount / "cgroup.controllers").read_text().split()), CONTROLLERS
    else:
        have, wanted = {name for hierarchy in found for name in hierarchy.controllers}, CONTROLLERS_V1
    lacking = ", ".join(sorted(wanted - have))
    if lacking:
        return f"the cgroup controllers {lacking} are not there: enable them at boot (cgroup_enable=…); {FAKE_ONLY}"
    if not os.access(found[0].mount, os.W_OK):
        return f"{found[0].mount} cannot be written, as in a container: run it on the machine itself; {FAKE_ONLY}"
    return ""


def _no_packages() -> str:
    lacking = distribution.missing()
    if not lacking or distribution.can_fetch():
        return ""
    return f"{', '.join(lacking)} are not installed, and without apt they cannot be fetched: install them; {FAKE_ONLY}"


def _no_namespaces() -> str:
    """Try what the sandbox does first, in a child that ends: namespaces, and a file system laid over another."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        said = ""
        try:
            sandbox.unshare(sum(sandbox.CLONE.values()))
            sandbox.mount("none", "/", flags=sandbox.MS_RECURSIVE | sandbox.MS_PRIVATE)
            sandbox.mount("tmpfs", "/mnt", "tmpfs")
            for name in ("lower", "upper", "work", "merged"):
                Path("/mnt", name).mkdir()
            layers = "lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work"
            sandbox.mount("overlay", "/mnt/merged", "overlay", data=layers)
        except OSError as error:
            said = f"the kernel refuses what a node needs ({error}): run it on a machine that allows it; {FAKE_ONLY}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


def _no_disk(state: Path) -> str:
    place = next(path for path in (state, *state.parents) if path.exists())
    free = shutil.disk_usage(place).free / 2**30
    return "" if free >= DISK_GIB else f"{place} has {free:.1f} GiB free and a node takes {DISK_GIB:.0f}: free some"


def _hidden(state: Path) -> list[str]:
    """A node has these directories to itself, so nothing that it is started from may lie there."""
    places = {"the state directory": state, "the cache of tools": distribution.cache(), "the project": binaries.TOOLS}
    return [
        f"{what} {path} lies in {hidden}, which a node has to itself: choose --state or XDG_CACHE_HOME elsewhere"
        for what, path in places.items()
        for hidden in sandbox.HIDDEN
        if path.resolve().is_relative_to(hidden)
    ]
