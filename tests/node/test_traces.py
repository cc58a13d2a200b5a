"""A real node leaves nothing behind: no mount, interface, rule, cgroup, process or directory, however it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from e2e.cluster import Cluster, HarnessError, RealNode, preflight, sandbox
from e2e.cluster.process import Processes, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("able")]

ROOT = Path(__file__).parents[2]
# A harness as any test has it: a cluster, a pod that runs on the real node, and then nothing more.
HARNESS = """
import json, pathlib, sys, time
from e2e.cluster import Cluster, RealNode
cluster = Cluster(pathlib.Path(sys.argv[1]), tied=sys.argv[2] == "tied", node=RealNode(gpus=1))
cluster.up()
container = {"name": "main", "image": "localhost/modeltiers/pause:1", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "held"}, "spec": {"containers": [container]}}
cluster.kubectl("create", "-f", "-", input=json.dumps(pod))
cluster.kubectl("wait", "--for=condition=Ready", "pod/held", "--timeout=30s")
print("up", flush=True)
if sys.argv[2] == "tied":
    time.sleep(600)
"""
PLACES = (
    *("/var/lib/kubelet", "/var/lib/containerd", "/var/lib/cni", "/var/log/pods", "/var/log/containers"),
    *("/run/containerd", "/run/netns", "/etc/cni", "/opt/cni", "/usr/libexec/kubernetes"),
)


@dataclass(frozen=True)
class Machine:
    """What a node might change on a machine, seen from outside every sandbox."""

    mounts: int
    interfaces: tuple[str, ...]
    places: tuple[str, ...]
    settings: tuple[str, ...]


def machine() -> Machine:
    """Look at this machine."""
    settings = [*sandbox.KEPT_SYSCTLS, "net/ipv4/ip_forward", "kernel/hostname"]
    return Machine(
        mounts=len(Path("/proc/self/mountinfo").read_text().splitlines()),
        interfaces=tuple(sorted(path.name for path in Path("/sys/class/net").iterdir())),
        places=tuple(path for path in PLACES if Path(path).exists()),
        settings=tuple(Path("/proc/sys", name).read_text() for name in settings),
    )


NAMESPACES = ("mnt", "net", "pid", "ipc", "uts", "cgroup")


def namespaces(process: Path) -> frozenset[Path]:
    """Return the namespaces of a process."""
    return frozenset((process / "ns" / name).readlink() for name in NAMESPACES)


@dataclass(frozen=True)
class Sandbox:
    """How processes of one sandbox are told: by its namespaces, and those of containers by its cgroup."""

    spaces: frozenset[Path]
    group: str

    def living(self) -> list[str]:
        """Return the commands of all processes in it."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self.group in (process / "cgroup").read_text() or self.spaces & namespaces(process):
                    found.append((process / "comm").read_text().strip())
        return found


@dataclass(frozen=True)
class Running:
    """A harness in a process of its own, with a pod on its node."""

    state: Path
    process: subprocess.Popen[str]
    before: Machine
    sandbox: Sandbox
    cgroups: tuple[Path, ...]

    @property
    def keeper(self) -> int:
        """The pid of the sandbox's keeper."""
        return int(sandbox.read_record(self.state)["keeper"]["pid"])

    @property
    def supervisor(self) -> int:
        """The pid of the sandbox's first process."""
        return Processes(self.state, self.state / "logs").living()["supervisor"]

    def assert_nothing_is_left(self, *, cgroups: bool = True) -> None:
        """Every process has ended, and the machine is as it was."""
        wait_until(lambda: not self.sandbox.living(), f"the end of {self.sandbox.living()}", timeout=10)
        if cgroups:
            wait_until(lambda: not any(path.exists() for path in self.cgroups), "the cgroups to go", timeout=10)
            assert not sandbox.read_record(self.state)
        assert machine() == self.before


@contextlib.contextmanager
def harness(state: Path, how: str) -> Iterator[Running]:
    """Run a harness until its pod runs."""
    before = machine()
    command = [sys.executable, "-c", HARNESS, str(state), how]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "up\n"
            supervisor = Processes(state, state / "logs").living()["supervisor"]
            groups = tuple(map(Path, sandbox.read_record(state)["cgroups"]))
            held = Sandbox(namespaces(Path(f"/proc/{supervisor}")) - namespaces(Path("/proc/self")), groups[0].name)
            assert len(held.spaces) == len(NAMESPACES)
            assert {"kubelet", "containerd", "coredns"} <= set(held.living())
            assert held.living().count("pause") == 2  # the pod's holder, and its container
            assert all(any(path.rglob("kubepods")) for path in groups if path.parts[-2] in ("cpu", "memory"))
            yield Running(state, process, before, held, groups)
        finally:
            process.kill()
            Cluster(state).down()


def test_a_node_that_is_taken_down_leaves_nothing(tmp_path: Path) -> None:
    """`down` from another process, with a pod at work."""
    with harness(tmp_path, "detached") as running:
        running.process.wait(10)
        assert running.sandbox.living()
        Cluster(tmp_path).down()
        running.assert_nothing_is_left()
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "logs"]


def test_a_killed_harness_leaves_nothing(tmp_path: Path) -> None:
    """kill -9 of the process that brought it up: nobody calls `down`."""
    with harness(tmp_path, "tied") as running:
        running.process.kill()
        running.assert_nothing_is_left()


def test_a_killed_supervisor_leaves_nothing(tmp_path: Path) -> None:
    """The first process of the sandbox takes every other one along."""
    with harness(tmp_path, "tied") as running:
        os.kill(running.supervisor, signal.SIGKILL)
        running.assert_nothing_is_left()


def test_what_a_killed_keeper_leaves_goes_with_the_next_down(tmp_path: Path) -> None:
    """Only empty cgroups outlive the keeper, and they are written down."""
    with harness(tmp_path, "tied") as running:
        os.kill(running.keeper, signal.SIGKILL)
        running.assert_nothing_is_left(cgroups=False)
        Cluster(tmp_path).down()
        running.assert_nothing_is_left()


def test_a_sandbox_that_cannot_be_made_says_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start fails at once, in words, and is undone."""
    before = machine()
    monkeypatch.setattr(preflight, "prepare", lambda state: Path("/nowhere/usr"))
    with pytest.raises(HarnessError, match=r"the sandbox cannot be made: .*cannot mount overlay"):
        with Cluster(tmp_path, tied=True, node=RealNode()):
            pass
    assert machine() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "logs"]


def test_a_node_comes_back_as_after_a_power_cut(tmp_path: Path) -> None:
    """`up` after a kill: the API remembers the pod, the runtime does not, and the kubelet starts it again."""
    with harness(tmp_path, "detached") as running:
        running.process.wait(10)
        os.kill(running.supervisor, signal.SIGKILL)
        running.assert_nothing_is_left()
        again = Cluster(tmp_path, tied=True)
        again.up()

        def restarts() -> str:
            path = "jsonpath={.status.containerStatuses[0].restartCount}/{.status.containerStatuses[0].ready}"
            return again.kubectl("get", "pod", "held", "-o", path).stdout

        wait_until(lambda: restarts() == "1/true", "the pod to run again", timeout=60, poll=0.2)
        again.down()
