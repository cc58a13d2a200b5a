"""Put the processes of one cluster into namespaces of their own, so that a real node in it leaves nothing behind.

Runs as a program of its own (`python sandbox.py STATE TIE`), standard library only. It stays outside as the keeper:
makes cgroups, listens on the host's ports, starts the supervisor as PID 1 of the namespaces, waits for its end and
removes the cgroups. Interfaces, rules, mounts and processes go with the namespaces. It knows nothing of Kubernetes, and
what it cannot do it says in words on standard error.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from e2e.cluster.supervisor import LIBC, PR_SET_PDEATHSIG, UNTIED, identity, write_private
else:  # as a program it has neither the project nor any package on its path
    sys.path.insert(0, str(Path(__file__).parent))
    from supervisor import LIBC, PR_SET_PDEATHSIG, UNTIED, identity, write_private

PLAN = "sandbox-plan.json"
RECORD = "sandbox.json"
FAILED = "the sandbox cannot be made"
SUPERVISOR = Path(__file__).parent / "supervisor.py"
CGROUPS = Path("/sys/fs/cgroup")

# What the sandbox sees emptied: a node writes there, and the host's own must neither be seen nor be touched.
HIDDEN = ("/run", "/var/lib", "/var/log")
# kubelet overwrites these for the whole machine and never restores them; bound over them, a file takes the value.
KEPT_SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}

CLONE = {"mount": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000, "net": 0x40000000}
CLONE_PID = 0x20000000
MS_READ_ONLY, MS_NO_SUID, MS_NO_DEV, MS_NO_EXEC, MS_BIND, MS_RECURSIVE = 0x1, 0x2, 0x4, 0x8, 0x1000, 0x4000
MS_PRIVATE, MS_SHARED = 0x40000, 0x100000
MNT_DETACH = 2


@dataclass(frozen=True)
class Hierarchy:
    """One cgroup hierarchy as this process sees it: what it controls, and where our own group lies in it.

    `controllers` is empty for the unified one (version 2).
    """

    mount: Path
    controllers: tuple[str, ...]
    own: Path

    @property
    def unified(self) -> bool:
        """Whether this is version 2."""
        return not self.controllers


def hierarchies(mountinfo: str, membership: str) -> list[Hierarchy]:
    """Read the hierarchies from /proc/self/mountinfo and /proc/self/cgroup: all of version 1, else the unified one."""
    groups = dict(line.split(":", 2)[1:] for line in membership.splitlines())
    found, unified = [], []
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        root, mount = fields.split()[3:5]
        kind, _, options = rest.split()[:3]
        if kind == "cgroup2" and "" in groups:
            unified.append(Hierarchy(Path(mount), (), _within(mount, root, groups[""])))
        for names, group in groups.items():
            if kind == "cgroup" and names and set(names.split(",")) <= set(options.split(",")):
                found.append(Hierarchy(Path(mount), tuple(names.split(",")), _within(mount, root, group)))
    return found if any(not name.startswith("name=") for one in found for name in one.controllers) else unified[:1]


def _within(mount: str, root: str, group: str) -> Path:
    """Return where a group is below a mount that may show only a part of its hierarchy."""
    relative = os.path.relpath(group, root) if root != "/" else group.lstrip("/")
    return Path(mount) / relative if not relative.startswith("..") else Path(mount)


def here() -> list[Hierarchy]:
    """Return the hierarchies of this process."""
    return hierarchies(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())


def place(hierarchy: Hierarchy, name: str) -> Path:
    """Return where a node's cgroup goes: below our own, which keeps its limits.

    In the unified hierarchy a group with processes may not have controlled children: there it goes to the top.
    """
    return (hierarchy.mount if hierarchy.unified else hierarchy.own) / name


def make(hierarchy: Hierarchy, directory: Path) -> None:
    """Make a node's cgroup and let it be entered."""
    directory.mkdir(exist_ok=True)
    if "cpuset" in hierarchy.controllers:
        for name in ("cpuset.cpus", "cpuset.mems"):  # empty in a new group, and then nothing can enter
            (directory / name).write_text((hierarchy.own / name).read_text())
        (directory / "cgroup.clone_children").write_text("1")


def delegate(group: Path) -> list[str]:
    """Let the children of a unified group be controlled; return the controllers that this added."""
    have = (group / "cgroup.subtree_control").read_text().split()
    added = [name for name in (group / "cgroup.controllers").read_text().split() if name not in have]
    for name in added:
        (group / "cgroup.subtree_control").write_text(f"+{name}")
    return added


def read_record(state: Path) -> dict[str, Any]:
    """Return what a keeper wrote down about itself and its cgroups; empty when it has cleaned up."""
    try:
        found: dict[str, Any] = json.loads((state / RECORD).read_text())
    except FileNotFoundError:
        return {}
    return found


def kept(state: Path) -> bool:
    """Tell whether the keeper of this sandbox still runs."""
    keeper = read_record(state).get("keeper", {"pid": 0, "started": ""})
    return bool(identity(keeper["pid"]) == keeper["started"])


def clear(state: Path, record: dict[str, Any] | None = None, timeout: float = 5) -> None:
    """Remove the cgroups of a sandbox whose processes have ended, from its record alone; may be repeated."""
    record = read_record(state) if record is None else record
    for directory in map(Path, record.get("cgroups", ())):
        deadline = time.monotonic() + timeout
        while directory.exists() and not _removed(directory):
            if time.monotonic() > deadline:  # a process that ends holds its group for a moment, not for seconds
                raise OSError(f"the cgroup {directory} still has processes: {_processes(directory)}")
            time.sleep(0.02)
    for group, controllers in record.get("delegated", {}).items():
        for name in controllers:
            (Path(group) / "cgroup.subtree_control").write_text(f"-{name}")
    (state / RECORD).unlink(missing_ok=True)


def _removed(directory: Path) -> bool:
    try:
        for path, _, _ in os.walk(directory, topdown=False):
            Path(path).rmdir()
    except FileNotFoundError:
        return not directory.exists()
    except OSError:
        return False
    return True


def _processes(directory: Path) -> str:
    return " ".join(file.read_text() for file in directory.rglob("cgroup.procs")).replace("\n", " ").strip() or "none"


# -- inside: PID 1 before it becomes the supervisor --------------------------------------------------------------------


def mount(source: str, target: str | Path, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount, and say what and where when it fails."""
    arguments = (source.encode(), str(target).encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())
    if LIBC.mount(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"cannot mount {kind or source} there: {os.strerror(number)}", str(target))


def unshare(flags: int) -> None:
    """Enter new namespaces."""
    if LIBC.unshare(flags):
        number = ctypes.get_errno()
        raise OSError(number, f"cannot make namespaces: {os.strerror(number)}")


def _mount_cgroups(found: list[Hierarchy]) -> None:
    if found[0].unified:
        mount("cgroup2", CGROUPS, "cgroup2", MS_NO_SUID | MS_NO_DEV | MS_NO_EXEC)
        (CGROUPS / "init").mkdir()
        (CGROUPS / "init" / "cgroup.procs").write_text("0")
        delegate(CGROUPS)
        return
    mount("tmpfs", CGROUPS, "tmpfs", data="mode=755")
    for hierarchy in found:
        names = ",".join(hierarchy.controllers)
        directory = CGROUPS / names.removeprefix("name=")
        directory.mkdir()
        mount("cgroup", directory, "cgroup", data=f"none,{names}" if names.startswith("name=") else names)
        for name in hierarchy.controllers if len(hierarchy.controllers) > 1 else ():
            (CGROUPS / name).symlink_to(directory.name)


def _mount_all(plan: dict[str, Any], found: list[Hierarchy]) -> None:
    mount("none", "/", flags=MS_RECURSIVE | MS_PRIVATE)
    mount("none", "/", flags=MS_RECURSIVE | MS_SHARED)  # among ourselves: containers get later mounts of volumes
    if plan["overlay"]:
        mount("overlay", "/usr", "overlay", MS_READ_ONLY, f"lowerdir={plan['overlay']}:/usr")
    LIBC.umount2(b"/sys", MNT_DETACH)  # the inherited cgroup mounts must go, or every reader finds them first
    mount("sysfs", "/sys", "sysfs", MS_NO_SUID | MS_NO_DEV | MS_NO_EXEC)
    _mount_cgroups(found)
    binds = {target: os.open(source, os.O_PATH) for target, source in plan["binds"].items()}  # before it is hidden
    for directory in HIDDEN:
        mount("tmpfs", directory, "tmpfs", data="mode=755")
    for target, source in binds.items():
        Path(target).mkdir(parents=True, exist_ok=True)
        mount(f"/proc/self/fd/{source}", target, flags=MS_BIND)
        os.close(source)
    mount("proc", "/proc", "proc", MS_NO_SUID | MS_NO_DEV | MS_NO_EXEC)
    for name, value in KEPT_SYSCTLS.items():
        file = Path("/run/sysctl") / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")
        mount(str(file), f"/proc/sys/{name}", flags=MS_BIND)


def _make_network(plan: dict[str, Any]) -> None:
    """Give the node an address. A loopback one is refused by Kubernetes, and a bridge needs no driver."""
    bridge = plan["bridge"]
    for command in (
        ["link", "set", "lo", "up"],
        ["link", "add", bridge, "type", "bridge"],
        ["address", "add", f"{plan['address']}/24", "dev", bridge],
        ["link", "set", bridge, "up"],
        ["route", "add", "default", "dev", bridge],  # without a route no packet lives to be redirected by a Service
    ):
        done = subprocess.run(["ip", *command], capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"ip {' '.join(command)}: {done.stderr.strip()}")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    bridged = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if not bridged.exists():
        raise OSError("the kernel does not filter bridged packets; run `modprobe br_netfilter` and try again")
    bridged.write_text("1")


def _become_supervisor(state: Path, tie: str, plan: dict[str, Any], groups: list[tuple[Hierarchy, Path]]) -> None:
    outside = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    for _, group in groups:
        (group / "cgroup.procs").write_text("0")
    unshare(sum(CLONE.values()))
    socket.sethostname(plan["hostname"])
    _mount_all(plan, [hierarchy for hierarchy, _ in groups])
    _make_network(plan)
    os.set_inheritable(outside, True)
    os.umask(0o022)  # containers and volumes are made with modes that their users must be able to read
    arguments = [sys.executable, "-I", "-S", str(SUPERVISOR), str(state), tie, str(outside)]
    os.execv(sys.executable, arguments)  # noqa: S606 - PID 1 stays PID 1


# -- outside: the keeper -----------------------------------------------------------------------------------------------


def _listen(ports: list[int]) -> dict[str, int]:
    """Listen on the host's loopback ports; the sandbox answers there through what inherits these."""
    listeners = {}
    for port in ports:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
        listener.set_inheritable(True)
        listeners[str(port)] = listener.detach()
    return listeners


def _load_bridge_filter() -> None:
    """Load the one module that nothing asks for by itself; it stays loaded, as after any container engine's start."""
    if not Path("/proc/sys/net/bridge").exists() and shutil.which("modprobe"):
        subprocess.run(["modprobe", "br_netfilter"], capture_output=True, check=False)  # its lack is said inside


def _prepare(state: Path, plan: dict[str, Any]) -> tuple[list[tuple[Hierarchy, Path]], dict[str, Any]]:
    """Make the cgroups, written down before they are there, so that nothing is forgotten however we end."""
    groups = [(hierarchy, place(hierarchy, plan["name"])) for hierarchy in here()]
    pid = os.getpid()
    record: dict[str, Any] = {
        "keeper": {"pid": pid, "started": identity(pid)},
        "cgroups": [str(path) for _, path in groups],
        "delegated": {},
        "listeners": _listen(plan["ports"]),
    }
    write_private(state / RECORD, json.dumps(record))
    for hierarchy, path in groups:
        if hierarchy.unified:
            record["delegated"] = {str(path.parent): delegate(path.parent)}
            write_private(state / RECORD, json.dumps(record))
        make(hierarchy, path)
    return groups, record


def keep(state: Path, tie: str) -> int:
    """Start the sandbox, wait for its end, remove what the kernel does not; return the exit code of its PID 1."""
    plan = json.loads((state / PLAN).read_text())
    _load_bridge_filter()
    groups, record = _prepare(state, plan)
    unshare(CLONE_PID)  # for the next child
    child = os.fork()
    if not child:
        try:
            # Not supervisor.end_with: from a new PID namespace the parent's pid reads 0 whether it lives or not.
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            _become_supervisor(state, tie, plan, groups)
        except OSError as error:
            print(f"{FAILED}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # not earlier: the child would inherit it
        signal.signal(number, signal.SIG_IGN)
    _, status = os.waitpid(child, 0)
    clear(state, record)  # not what the file says now: somebody may have deleted the state of a running cluster
    return os.waitstatus_to_exitcode(status)


def main() -> None:
    """Detach unless tied, then keep."""
    state, tie = Path(sys.argv[1]), sys.argv[2]
    os.umask(0o077)
    if tie == UNTIED and os.fork():
        os._exit(0)
    try:
        code = keep(state, tie)
    except OSError as error:
        print(f"{FAILED}: {error}", file=sys.stderr, flush=True)
        clear(state)
        code = 1
    os._exit(1 if code else 0)


if __name__ == "__main__":
    main()
