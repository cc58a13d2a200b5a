"""`modeltiers why` and `status` over failures on the real API server: the first cause, and a next command that runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import Cluster
from modeltiers.domain.distill.stages import Stage
from tests.cluster import policies
from tests.cluster.kit import LARGE, SPEC, Tiers, until
from tests.cluster.terminal import Terminal
from tests.cluster.test_distilljob import prepared
from tests.cluster.test_failures import REPLAYS, TAINT, failing

__all__ = ["failing"]

# Reason -> how the next command begins. `kubectl modeltiers` is the plugin itself.
EDIT, POD, LOGS = "kubectl edit mt/", "kubectl describe pod ", "kubectl modeltiers logs mt/"
SECRETS = "kubectl get secrets"
EVICTED = "evicted-ephemeral-storage"
NEXT = {
    "SecretNotFound": SECRETS,
    "CrashLoop": LOGS,
    "DiskFull": LOGS,
    "EngineExited": LOGS,
    "ImagePullDenied": POD,
    "EphemeralStorageEvicted": POD,
    "ModelGated": EDIT,
    "GpuMemoryBusy": LOGS,
    "GpuOutOfMemory": EDIT,
    "HeadsNotDivisible": EDIT,
    "HostOutOfMemory": EDIT,
    "ImageNotFound": POD,
    "ImageNameInvalid": EDIT,
    "KVCacheTooSmall": EDIT,
    "FlagRejected": EDIT,
    "StartupTimeout": LOGS,
    "ModelNotFound": EDIT,
    "RevisionNotFound": EDIT,
}


@pytest.fixture
def terminal(tiers: Tiers, tmp_path: Path) -> Terminal:
    """The administrator at a terminal."""
    return Terminal(tiers.cluster, tiers.namespace, tmp_path)


def why(terminal: Terminal, what: str, *, says: str, then: str, code: int = 0) -> str:
    """Ask until the first line has some words; the second must begin with the command, which must run."""
    lines: list[str] = []

    def told() -> bool:
        lines[:] = terminal("why", what).splitlines() if what else terminal("why").splitlines()
        return says in lines[0]

    until(told, lambda: f"{says!r}; there is\n" + "\n".join(lines), timeout=120)
    command = lines[1].removeprefix("next: ")
    plain = command.replace(f"kubectl --kubeconfig={terminal.cluster.kubeconfig} ", "kubectl ")
    assert plain.startswith(then), command
    terminal.shell(command, code)
    return "\n".join(lines)


def test_seventeen_replayed_failures_at_once(tiers: Tiers, failing: Cluster, terminal: Terminal) -> None:
    """Every pod ends as a failure was recorded; one look tells them all apart."""
    tolerations = [{"key": TAINT, "operator": "Exists"}]
    cases = {case: told for case, told in REPLAYS.items() if case != EVICTED}
    for case in cases:
        tiers.apply(case, scheduling={"nodeSelector": {"example.com/case": case}, "tolerations": tolerations})
    found: dict[str, Any] = {}

    def told() -> bool:
        found.update({one["name"]: one for one in terminal.data("why")["findings"]})
        return all(found.get(case, {}).get("reason") == reason for case, (reason, _) in cases.items())

    until(told, lambda: json.dumps(found, indent=1), timeout=180)
    for case, (reason, word) in cases.items():
        one = found[case]
        whole = f"{one['cause']} {one['remedy']}".lower()
        assert word.lower() in whole, (case, whole)
        command = one["next"].replace(f"kubectl --kubeconfig={terminal.cluster.kubeconfig} ", "kubectl ")
        assert command.startswith(NEXT[reason]), (case, command)
        assert one["way"][0]["kind"] == "ModelTier"
        assert one["way"][-1]["kind"] == "Pod", (case, one["way"])
    told_first = terminal("why").splitlines()
    assert told_first[0].startswith("ModelTier ")
    assert told_first[1].startswith("next: kubectl")
    assert sum(line.startswith("  ModelTier ") for line in told_first) >= len(cases) - 1
    shown = terminal("status").splitlines()
    assert shown[0].startswith(("broken", "on the way"))
    assert all(any(line.startswith(f"{case} ") for line in shown) for case in cases)


def test_pods_that_are_evicted_one_after_the_other(tiers: Tiers, failing: Cluster, terminal: Terminal) -> None:
    """By itself and not for long: each that is evicted is replaced at once, and there would be hundreds."""
    tolerations = [{"key": TAINT, "operator": "Exists"}]
    tiers.apply("x", scheduling={"nodeSelector": {"example.com/case": EVICTED}, "tolerations": tolerations})
    tiers.reasoned("x", "Ready", "False", "EphemeralStorageEvicted", timeout=60)
    told = terminal.data("why", "mt/x")["findings"][0]
    assert told["reason"] == "EphemeralStorageEvicted"
    assert "spec.serving.cache" in told["remedy"]
    tiers.kubectl("delete", "mt", "x")


def test_a_tier_without_a_node_and_the_policy_over_it(tiers: Tiers, terminal: Terminal) -> None:
    tiers.apply("small")
    tiers.apply("large", LARGE, scheduling={"nodeSelector": {"zone": "moon"}})
    tiers.ready("small", timeout=60)
    policies.apply(tiers)
    told = why(
        terminal, "rp/support", says="has the label zone=moon", then="kubectl get nodes -L nvidia.com/gpu.product,zone"
    )
    lines = told.splitlines()
    assert lines[0].startswith(f"RoutingPolicy {tiers.namespace}/support: pod large-")
    way = [line.split()[0] for line in lines[4:9]]
    assert way == ["RoutingPolicy", "ModelTier", "Deployment", "Pod", "Nodes"], told
    alone = terminal("why")
    assert alone.startswith(f"ModelTier {tiers.namespace}/large: ")
    assert "  RoutingPolicy support: because of ModelTier large" in alone
    assert "RoutingPolicy support: because of ModelTier large" in terminal("status")
    assert "nothing is wrong" in terminal("why", "mt/small")
    everywhere = terminal.data("why", "-A")["namespaces"]
    mine = next(one for one in everywhere if one["namespace"] == tiers.namespace)
    assert mine["findings"][0]["name"] == "large"
    assert f"namespace {tiers.namespace}" in terminal("status", "-A", "-o", "wide")
    assert "there is mt/large" in terminal("why", "mt/larg", code=1)


def test_accelerators_that_are_all_taken(tiers: Tiers, terminal: Terminal) -> None:
    tiers.apply("large", LARGE, replicas=9)
    why(
        terminal,
        "mt/large",
        says="too little is free of the 4 nvidia.com/gpu it needs",
        then="kubectl describe node h100-",
    )


def test_more_accelerators_than_a_node_has(tiers: Tiers, terminal: Terminal) -> None:
    pinned = {"mode": "Pinned", "pinned": {"gpus": 16, "tensorParallel": 16, "pipelineParallel": 1}}
    accelerators = [{**SPEC["accelerators"][0], "gpusPerNode": 16}]
    tiers.apply("wide", LARGE, sizing=pinned, accelerators=accelerators)
    why(
        terminal,
        "mt/wide",
        says="needs 16 nvidia.com/gpu on one node, and the largest node has 8",
        then="kubectl get nodes",
    )


def test_a_model_that_nobody_knows(tiers: Tiers, terminal: Terminal) -> None:
    tiers.apply("x", model={"source": "hf://deepseek-ai/DeepSeek-R1-Distill-Qwen-7"})
    why(terminal, "mt/x", says="DeepSeek-R1-Distill-Qwen-7", then="kubectl edit mt/x")


def test_a_model_that_fits_nowhere(tiers: Tiers, terminal: Terminal) -> None:
    big = {"source": "hf://deepseek-ai/DeepSeek-V3-0324"}
    tiers.apply("x", model=big, accelerators=[{"name": "l4", "product": "NVIDIA-L4"}])
    # `plan` ends with 1 where a tier does not fit: that is its answer.
    why(terminal, "mt/x", says="GiB", then="kubectl get mt/x", code=1)


def test_a_quota(tiers: Tiers, terminal: Terminal) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"pods": "0"}}}
    tiers.create(quota)
    tiers.apply("x")
    why(
        terminal,
        "mt/x",
        says="a ResourceQuota of the namespace does not allow it",
        then="kubectl describe resourcequota",
    )


def test_a_limit_range(tiers: Tiers, terminal: Terminal) -> None:
    most = {"type": "Container", "max": {"memory": "1Gi"}}
    tiers.create({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"}, "spec": {"limits": [most]}})
    tiers.apply("x")
    why(terminal, "mt/x", says="a LimitRange of the namespace does not allow it", then="kubectl describe limitrange")


def test_a_claim_that_is_missing_and_one_that_waits_for_a_class(tiers: Tiers, terminal: Terminal) -> None:
    tiers.apply("x", serving={"cache": {"claimName": "weights"}})
    why(terminal, "mt/x", says="PersistentVolumeClaim weights", then="kubectl get pvc")
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "no-such-class",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    tiers.create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "weights"}, "spec": spec})
    told = why(
        terminal, "mt/x", says="PersistentVolumeClaim weights, which is Pending", then="kubectl describe pvc weights"
    )
    assert "no-such-class" in told


def test_a_policy_over_a_tier_that_is_not_there(tiers: Tiers, terminal: Terminal) -> None:
    tiers.apply("small")
    tiers.ready("small", timeout=60)
    policies.apply(tiers)
    why(terminal, "rp/support", says="there is no ModelTier large", then="kubectl get mt -n")


def test_a_policy_whose_own_spec_is_at_fault(tiers: Tiers, terminal: Terminal) -> None:
    tiers.apply("small")
    tiers.apply("large", LARGE)
    policies.apply(tiers)
    # Of two that are born in one second the first by name keeps the model's name.
    policies.apply(tiers, "support-2")
    why(terminal, "rp/support-2", says="has the model name support already", then="kubectl edit rp/support-2")


def test_a_name_that_belongs_to_somebody_else(tiers: Tiers, terminal: Terminal) -> None:
    tiers.kubectl("create", "service", "clusterip", "x", "--tcp=80")
    tiers.apply("x")
    why(terminal, "mt/x", says="the name is taken", then="kubectl get service x")


def test_an_external_api_that_nobody_allowed_and_one_that_does_not_answer(tiers: Tiers, terminal: Terminal) -> None:
    external = {"baseUrl": "https://api.example.org/v1", "model": "m"}
    tiers.apply("frontier", {"external": external})
    why(terminal, "mt/frontier", says="externalHosts", then="kubectl get configmap modeltiers-settings", code=1)
    tiers.apply("gone", {"external": {"baseUrl": "https://localhost:1/v1", "model": "m"}})
    why(terminal, "mt/gone", says="https://localhost:1/v1", then="kubectl edit mt/gone")


def test_an_object_that_waits_for_a_finalizer(tiers: Tiers, terminal: Terminal) -> None:
    tiers.apply("x")
    tiers.ready("x", timeout=60)
    hold = json.dumps({"metadata": {"finalizers": ["example.com/hold"]}})
    tiers.kubectl("patch", "mt", "x", "--type=merge", "-p", hold)
    tiers.kubectl("delete", "mt", "x", "--wait=false")
    why(terminal, "mt/x", says="it waits for example.com/hold", then="kubectl get mt/x")
    tiers.kubectl("patch", "mt", "x", "--type=merge", "-p", json.dumps({"metadata": {"finalizers": None}}))


def test_what_a_person_may_not_read_is_said(tiers: Tiers, terminal: Terminal) -> None:
    """Somebody with rights on our kinds alone still gets what conditions say."""
    tiers.apply("large", LARGE, scheduling={"nodeSelector": {"zone": "moon"}})
    tiers.stalled("large", "Unschedulable", timeout=60)
    tiers.kubectl("create", "serviceaccount", "guest")
    rights = ("--verb=get,list", "--resource=modeltiers.modeltiers.dev")
    tiers.kubectl("create", "role", "guest", *rights)
    tiers.kubectl("create", "rolebinding", "guest", "--role=guest", f"--serviceaccount={tiers.namespace}:guest")
    config = tiers.cluster.service_account_kubeconfig(tiers.namespace, "guest")
    guest = Terminal(tiers.cluster, tiers.namespace, terminal.home, config)
    told = guest("why", "mt/large")
    assert "no node for it" in told.splitlines()[0]
    assert "not looked at: Pod: " in told
    assert "not looked at: Node: " in told
    stranger = tiers.cluster.service_account_kubeconfig(tiers.namespace, "default")
    refused = Terminal(tiers.cluster, tiers.namespace, terminal.home, stranger)("why", code=1)
    assert "cannot list resource" in refused


def test_an_empty_namespace(terminal: Terminal) -> None:
    assert "has no ModelTier, RoutingPolicy or DistillJob" in terminal("why")
    assert "no ModelTier, RoutingPolicy or DistillJob in namespace" in terminal("status")


def test_a_distillation_from_one_hindrance_to_the_next(tiers: Tiers, terminal: Terminal) -> None:
    distill = prepared(tiers)
    distill.apply(store={"claimName": "later"})
    told = why(terminal, "dj/arithmetic", says="later", then="kubectl get pvc")
    assert "PersistentVolumeClaim later" in told
    tiers.kubectl("delete", "dj", "arithmetic")
    none = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none"},
        "spec": {"hard": {"count/pods": "0"}},
    }
    tiers.create(none)
    distill.apply()
    why(terminal, "dj/arithmetic", says="a ResourceQuota", then="kubectl describe resourcequota")
    tiers.kubectl("delete", "resourcequota", "none")
    why(
        terminal,
        "dj/arithmetic",
        says="has no node: no node has the label example.com/nowhere=yes",
        then="kubectl get nodes",
    )
    distill.end(Stage.SNAPSHOT, {"outcome": "BadData", "message": "line 3 is not JSON", "field": "spec.data"}, code=78)
    told = why(terminal, "dj/arithmetic", says="line 3 is not JSON", then="kubectl modeltiers report dj/arithmetic")
    assert "kubectl modeltiers retry dj/arithmetic" in told
    assert "BadData" in terminal("status")
    terminal("retry", "dj/arithmetic")
    terminal("suspend", "dj/arithmetic")
    why(terminal, "dj/arithmetic", says="uspend", then="kubectl modeltiers resume dj/arithmetic")
    assert not distill.get("dj", "arithmetic")["spec"]["suspend"]
