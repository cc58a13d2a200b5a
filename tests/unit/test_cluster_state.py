"""State directories, processes and the audit log, without a cluster."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.cluster import Cluster, ExternalCluster, HarnessError, NodePool, layout
from e2e.cluster.audit import requests
from e2e.cluster.supervisor import identity


def test_a_directory_with_something_else_is_refused(tmp_path: Path) -> None:
    """`down` deletes a directory `etcd`, so `up` must not adopt one that it did not make."""
    (tmp_path / "etcd").mkdir()
    with pytest.raises(HarnessError, match="name an empty --state"):
        layout.prepare(tmp_path)
    assert Cluster(tmp_path).down() == ()
    assert (tmp_path / "etcd").is_dir()


def test_nothing_to_take_down_is_no_error(tmp_path: Path) -> None:
    """`down` is always possible."""
    assert Cluster(tmp_path / "never").down() == ()


def test_a_cluster_that_is_not_there_names_the_way_out(tmp_path: Path) -> None:
    """Using one before `up` is a plain mistake."""
    with pytest.raises(HarnessError, match=r"python -m e2e\.cluster up --name"):
        _ = Cluster(tmp_path / "never").kubeconfig


def test_an_unknown_component_is_named(tmp_path: Path) -> None:
    """The error lists what there is."""
    with pytest.raises(HarnessError, match="kube-apiserver, kube-controller-manager"):
        Cluster(tmp_path).stop("apiserver")


def test_identity_tells_processes_apart() -> None:
    """A gone process has none; a living one keeps its own."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert identity(child.pid) == identity(child.pid) != identity(os.getppid())
    assert identity(child.pid) is None


def test_the_current_context_is_never_used_unasked(tmp_path: Path) -> None:
    """An empty name is refused before anything is read."""
    with pytest.raises(HarnessError, match="--context NAME"):
        ExternalCluster(" ", tmp_path)


def test_a_pool_without_gpus_is_a_plain_node() -> None:
    """No GPU label, no taint, no resource."""
    node = next(NodePool("cpu", 1, gpus=0).nodes())
    assert "nvidia.com/gpu" not in json.dumps(node)


def event(**fields: object) -> str:
    """One line of an audit log."""
    line = {"stage": "ResponseComplete", "verb": "get", "user": {"username": "robot"}, "responseStatus": {"code": 200}}
    return json.dumps(line | fields) + "\n"


def test_writes_are_told_from_reads_and_reviews(tmp_path: Path) -> None:
    """A review of rights is sent as a creation and changes nothing; a half-written line is left for later."""
    log = tmp_path / "audit.log"
    log.write_text(
        event()
        + event(verb="patch", objectRef={"resource": "modeltiers", "subresource": "status", "name": "small"})
        + event(verb="create", objectRef={"resource": "selfsubjectaccessreviews"})
        + event(verb="create", user={"username": "somebody"}, objectRef={"resource": "pods"})
        + event(stage="ResponseStarted", verb="watch")
        + '{"stage": "Resp'
    )
    found = requests(log, "robot")
    assert len(found) == 3
    assert [(request.verb, request.resource, request.name) for request in found if request.writes] == [
        ("patch", "modeltiers", "small")
    ]
