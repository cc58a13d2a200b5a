"""A real node's parts that need neither root nor a cluster: cgroups, images, volumes, and what a machine lacks."""

import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import (
    Cluster,
    HarnessError,
    RealNode,
    binaries,
    distribution,
    images,
    layout,
    node,
    preflight,
    volumes,
)
from e2e.cluster.images import Image
from e2e.cluster.layout import Layout
from e2e.cluster.ports import Ports
from e2e.cluster.sandbox import Hierarchy, hierarchies, place, read_record


def mounted(*entries: tuple[str, str, str, str]) -> str:
    """Lines of /proc/self/mountinfo: root, mount point, type, options."""
    return "\n".join(
        f"36 25 0:31 {root} {at} rw,nosuid - {kind} cgroup {options}" for root, at, kind, options in entries
    )


class TestCgroups:
    """Where a node's cgroups go, on machines of every kind."""

    def test_each_hierarchy_of_version_1_keeps_its_own_path(self) -> None:
        """A limit on us is a limit on the node, whatever the controller."""
        info = mounted(
            ("/", "/sys/fs/cgroup/memory", "cgroup", "rw,memory"),
            ("/", "/sys/fs/cgroup/cpu,cpuacct", "cgroup", "rw,cpu,cpuacct"),
            ("/", "/sys/fs/cgroup/systemd", "cgroup", "rw,xattr,name=systemd"),
            ("/", "/sys/fs/cgroup/unified", "cgroup2", "rw"),
        )
        found = hierarchies(info, "4:memory:/limited\n3:cpu,cpuacct:/\n1:name=systemd:/a.scope\n0::/a.scope")
        assert [(one.controllers, str(place(one, "n"))) for one in found] == [
            (("memory",), "/sys/fs/cgroup/memory/limited/n"),
            (("cpu", "cpuacct"), "/sys/fs/cgroup/cpu,cpuacct/n"),
            (("name=systemd",), "/sys/fs/cgroup/systemd/a.scope/n"),
        ]

    def test_the_unified_hierarchy_takes_the_node_at_its_top(self) -> None:
        """Below our own group it could not be controlled, because that holds processes."""
        info = mounted(("/", "/sys/fs/cgroup", "cgroup2", "rw,nsdelegate"))
        (found,) = hierarchies(info, "0::/user.slice/session-1.scope")
        assert found.unified
        assert place(found, "n") == Path("/sys/fs/cgroup/n")

    def test_a_systemd_of_version_1_alone_does_not_hide_the_unified_one(self) -> None:
        """It controls nothing."""
        info = mounted(
            ("/", "/sys/fs/cgroup/unified", "cgroup2", "rw"),
            ("/", "/sys/fs/cgroup/systemd", "cgroup", "rw,name=systemd"),
        )
        assert [one.unified for one in hierarchies(info, "1:name=systemd:/\n0::/")] == [True]

    def test_a_mount_that_shows_a_part_is_read_from_that_part(self) -> None:
        """A container's own group is the root of what it sees."""
        info = mounted(("/docker/abc", "/sys/fs/cgroup/memory", "cgroup", "rw,memory"))
        (found,) = hierarchies(info, "4:memory:/docker/abc")
        assert found == Hierarchy(Path("/sys/fs/cgroup/memory"), ("memory",), Path("/sys/fs/cgroup/memory"))

    def test_a_sandbox_that_was_never_made_has_no_record(self, tmp_path: Path) -> None:
        """`down` asks."""
        assert read_record(tmp_path) == {}


class TestPreflight:
    """What a machine lacks, in words that name the way out."""

    def test_who_is_not_root_is_told_so_and_nothing_else(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What only root can look at is not guessed."""
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        (said,) = preflight.lacks()
        assert "run it with sudo" in said
        assert "fake nodes alone" in said

    def test_a_cluster_with_a_real_node_is_refused_before_anything_starts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The error lists what is missing; no process, no port, no certificate was made."""
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        cluster = Cluster(tmp_path, node=RealNode())
        with pytest.raises(HarnessError, match="a real node cannot run here:\n- you are not root"):
            cluster.up()
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "config", "logs"]

    def test_without_apt_the_packages_are_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A machine of another distribution is told what to install."""
        monkeypatch.setattr(distribution, "SEARCHED", "/nowhere")
        monkeypatch.setattr(distribution, "PLUGIN_DIRECTORIES", ())
        said = preflight._no_packages()
        assert all(name in said for name in ("containerd", "runc", "containernetworking-plugins", "iptables"))
        assert "install them" in said

    def test_a_state_that_a_node_would_hide_is_refused(self) -> None:
        """/var/lib is the node's own."""
        (said,) = preflight._hidden(Path("/var/lib/somebody/state"))
        assert "the state directory /var/lib/somebody/state lies in /var/lib" in said

    def test_plugins_count_only_when_all_are_there(self, tmp_path: Path) -> None:
        """Half a set would fail at the first pod."""
        half, whole = tmp_path / "half", tmp_path / "whole"
        for directory, names in ((half, distribution.PLUGINS[:2]), (whole, distribution.PLUGINS)):
            directory.mkdir()
            for name in names:
                (directory / name).touch()
        assert distribution.plugins((half, whole)) == whole
        assert distribution.plugins((half,)) is None


class TestImages:
    """Archives that containerd imports."""

    def image(self, tmp_path: Path) -> Image:
        """An image of one file that only its owner may read."""
        home = tmp_path / "tree"
        (home / "bin").mkdir(parents=True, exist_ok=True)
        (home / "bin" / "tool").write_text("#!/bin/sh\n")
        (home / "bin" / "tool").chmod(0o700)
        return Image("tool:1", ((home, "/opt"),), ("/opt/bin/tool",), {"A": "b"})

    def test_the_same_content_gives_the_same_bytes(self, tmp_path: Path) -> None:
        """Whenever it is made, by whomever."""
        first = images.write(self.image(tmp_path), tmp_path / "first.tar").read_bytes()
        os.utime(tmp_path / "tree" / "bin" / "tool", (1, 1))
        assert images.write(self.image(tmp_path), tmp_path / "second.tar").read_bytes() == first
        assert sorted(path.name for path in tmp_path.iterdir()) == ["first.tar", "second.tar", "tree"]

    def test_an_archive_holds_what_its_manifest_names(self, tmp_path: Path) -> None:
        """The index names the image, the manifest its blobs, and a container's user may read every file."""
        archive = images.write(self.image(tmp_path), tmp_path / "image.tar")
        with tarfile.open(archive) as read:

            def blob(entry: dict[str, str]) -> str:
                return f"blobs/sha256/{entry['digest'].removeprefix('sha256:')}"

            def document(name: str) -> Any:
                file = read.extractfile(name)
                assert file
                return json.loads(file.read())

            (entry,) = document("index.json")["manifests"]
            assert entry["annotations"]["io.containerd.image.name"] == "localhost/modeltiers/tool:1"
            manifest = document(blob(entry))
            config = document(blob(manifest["config"]))
            assert config["config"]["Entrypoint"] == ["/opt/bin/tool"]
            (layer,) = manifest["layers"]
            with tarfile.open(fileobj=read.extractfile(blob(layer))) as tree:
                assert {member.name: oct(member.mode & 0o777) for member in tree} == {
                    "opt/bin": "0o755",
                    "opt/bin/tool": "0o755",
                }


class TestRealNode:
    """What a node says of itself."""

    def test_a_node_with_gpus_looks_like_one(self) -> None:
        """Labels that sizing reads, a taint if asked, a claim that the scheduler counts."""
        real = RealNode(gpus=4, tainted=True, extra_labels={"zone": "a"})
        assert real.labels()["nvidia.com/gpu.product"] == "NVIDIA-L40S"
        assert real.labels()["zone"] == "a"
        assert [taint["key"] for taint in real.taints()] == ["nvidia.com/gpu"]
        assert {patch["path"]: patch["value"] for patch in real.advertisement()} == {
            "/status/capacity/nvidia.com~1gpu": "4",
            "/status/allocatable/nvidia.com~1gpu": "4",
        }
        assert RealNode().labels() == {}

    def test_another_process_finds_the_node_of_a_cluster(self, tmp_path: Path) -> None:
        """`down` and `status` are told by the state directory alone."""
        real = RealNode(gpus=2, extra_labels={"zone": "a"})
        Layout(tmp_path, "n", Ports(20000), {}, real).save()
        found = layout.load(tmp_path)
        assert found
        assert found.node == real
        assert set(node.PROGRAMS) <= set(Cluster(tmp_path).components)
        with pytest.raises(HarnessError, match="containerd, kubelet"):
            Cluster(tmp_path).stop("docker")

    def test_a_node_is_ready_when_nothing_speaks_against_it(self) -> None:
        """A taint of the controllers outweighs what the kubelet last said."""
        ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}, "spec": {}}
        gone = {"key": "node.kubernetes.io/unreachable"}
        assert node.is_ready(ready)
        assert not node.is_ready(ready | {"spec": {"taints": [gone]}})
        assert not node.is_ready({})

    def test_a_cluster_without_a_real_node_says_so(self, tmp_path: Path) -> None:
        """The error shows how to get one."""
        Layout(tmp_path, "n", Ports(20000), {}).save()
        with pytest.raises(HarnessError, match=r"node=RealNode\(\)"):
            Cluster(tmp_path).gate("127.0.0.1:80")

    def test_its_programs_are_pinned_with_the_others(self) -> None:
        """kubelet is of the control plane's release; DNS has a version of its own."""
        versions = {tool.name: binaries.version(tool) for tool in binaries.tools() + binaries.node_tools()}
        assert versions["kubelet"] == versions["kube-proxy"] == versions["kube-apiserver"]
        assert versions["coredns"].startswith("v1.")


class TestVolumes:
    """Directories of this machine as volumes."""

    def test_a_claim_gets_its_directory_and_no_other(self, tmp_path: Path) -> None:
        """Both sides name each other, on the node that has the directory."""
        tmp_path.chmod(0o755)
        volume, claim = volumes.local(RealNode(), "team", "models", tmp_path)
        assert volume["spec"]["claimRef"] == {"namespace": "team", "name": "models"}
        assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
        assert volume["spec"]["local"]["path"] == str(tmp_path)
        assert "node1" in json.dumps(volume["spec"]["nodeAffinity"])

    def test_a_directory_that_no_container_could_read_is_refused(self, tmp_path: Path) -> None:
        """The engine would say that the model does not exist."""
        tmp_path.chmod(0o700)
        with pytest.raises(HarnessError, match=r"chmod o\+rx"):
            volumes.local(RealNode(), "team", "models", tmp_path)
