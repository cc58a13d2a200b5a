"""The support bundle of a namespace with a canary in every place that people put secrets and texts; and completion."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster import policies
from tests.cluster.kit import LARGE, Tiers
from tests.cluster.terminal import Terminal
from tests.cluster.test_distilljob import SPEC as DISTILL

CANARY = "canary7f3a"


@pytest.fixture
def terminal(tiers: Tiers, tmp_path: Path) -> Terminal:
    """The administrator at a terminal."""
    return Terminal(tiers.cluster, tiers.namespace, tmp_path)


def planted(tiers: Tiers) -> None:
    """Tiers, a policy, a job and what lies beside them, with the canary wherever it may be."""
    env = [
        {"name": "HF_PLAIN", "value": CANARY},
        {"name": "HF_KEPT", "secretKeyRef": {"name": "hidden", "key": "key"}},
    ]
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hidden"}, "stringData": {"key": CANARY}}
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rows"}, "data": {"rows.jsonl": CANARY}}
    tiers.create(secret)
    tiers.create(settings)
    tiers.apply("small", serving={"env": env})
    tiers.apply("large", LARGE)
    tiers.ready("small", timeout=60)
    tiers.ready("large", timeout=60)
    tiers.kubectl("annotate", "mt", "small", f"example.com/note={CANARY}")
    rule = {"name": "odd", "when": {"keywords": [CANARY]}, "floor": "large"}
    policies.apply(tiers, classify=[rule])
    asked = {"system": f"You are {CANARY}."}
    body = {"apiVersion": "modeltiers.dev/v1alpha1", "kind": "DistillJob", "metadata": {"name": "arithmetic"}}
    tiers.create({**body, "spec": {**DISTILL, "generation": asked}})


def test_no_canary_is_in_the_bundle(tiers: Tiers, terminal: Terminal) -> None:
    planted(tiers)
    there = tiers.kubectl("get", "mt,rp,dj,deployments,configmaps", "-o", "yaml")
    assert there.count(CANARY) >= 5
    path = terminal.home / "shop.tar.gz"
    told = terminal("report", "--bundle", str(path))
    assert "written to" in told
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as archive:
        files = {one.name: archive.extractfile(one).read() for one in archive.getmembers()}  # type: ignore[union-attr]  # all are files
    assert not [name for name, body in files.items() if CANARY.encode() in body]
    assert CANARY not in told
    found = {name.partition("/")[2] for name in files}
    space = tiers.namespace
    for name in ("ModelTier", "RoutingPolicy", "DistillJob", "Deployment", "Pod", "Event", "ConfigMap"):
        assert f"{space}/{name}.yaml" in found, sorted(found)
        assert f"{space}/{name}.yaml" in told
    assert {"INDEX.txt", "versions.txt", "cluster/Node.yaml", f"{space}/why.txt", f"{space}/status.yaml"} <= found
    assert not any("Secret" in name for name in found)
    assert b"deepseek" in files[f"shop/{space}/ModelTier.yaml"]
    # These nodes have no kubelet: what could not be had is said.
    assert "not in it:" in told
    assert "there is dj/arithmetic" in terminal("report", "dj/arithmetc", code=1)
    assert "is there already" in terminal("report", "--bundle", str(path), code=1)


def test_kubectl_completes_names_from_the_cluster(tiers: Tiers, terminal: Terminal) -> None:
    tiers.apply("small")
    tiers.apply("frontier")
    terminal.plugins()
    namespace = tiers.namespace
    told = terminal.shell(f"kubectl __complete modeltiers why -n {namespace} mt/").splitlines()
    assert {"mt/small", "mt/frontier", ":4"} <= set(told)
    assert namespace in terminal.shell(f"kubectl __complete modeltiers why -n {namespace[:8]}").splitlines()
    assert "Unschedulable" in terminal.shell("kubectl __complete modeltiers docs Unsch").splitlines()
    assert "kubectl-modeltiers" in terminal.shell("kubectl plugin list")


def test_logs_of_what_has_none(tiers: Tiers, terminal: Terminal) -> None:
    tiers.apply("large", LARGE, scheduling={"nodeSelector": {"zone": "moon"}})
    tiers.stalled("large", "Unschedulable", timeout=60)
    told = terminal("logs", "mt/large", code=1)
    assert "container engine: the pod has no node yet" in told
    assert "has the label zone=moon" in told
    assert "there is no ModelTier small" in terminal("logs", "mt/small", code=1)
    assert "there is mt/large" in terminal("logs", "mt/larg", code=1)


def test_a_cluster_that_is_not_there_or_does_not_know_us(terminal: Terminal) -> None:
    missing = terminal.home / "nothing.yaml"
    assert "give another --kubeconfig" in terminal("status", "--kubeconfig", str(missing), where=False, code=1)
    lost = replace(terminal, env={"KUBECONFIG": str(missing)})
    assert "set KUBECONFIG" in lost("status", where=False, code=1)
    config = json.loads(terminal.shell("kubectl config view --raw -o json"))
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    gone = terminal.home / "gone.json"
    gone.write_text(json.dumps(config))
    assert "is the cluster up" in terminal("status", "--kubeconfig", str(gone), where=False, code=1)
    assert "get-contexts" in terminal("status", "--context", "nobody", code=1)
