"""A tier's life on a real control plane: created, changed, scaled, healed, deleted."""

from __future__ import annotations

import json
import time

import pytest

from e2e.cluster import Cluster, NodePool
from e2e.operator_process import USER, OperatorProcess
from tests.cluster.kit import LARGE, SPEC, Tiers, until


def test_a_ladder_becomes_ready_with_gpus_worked_out_from_the_models(tiers: Tiers) -> None:
    tiers.apply("small")
    tiers.apply("large", LARGE)
    tiers.kubectl("wait", "--for=condition=Ready", "modeltier", "--all", "--timeout=90s")
    small, large = tiers.status("small")["sizing"], tiers.status("large")["sizing"]
    assert (small["gpusPerReplica"], small["tensorParallel"]) == (1, 1)
    assert large["gpusPerReplica"] == large["tensorParallel"] > 1
    assert sum(term["bytes"] for term in large["terms"]) <= large["budgetBytes"]
    pod = json.loads(tiers.kubectl("get", "pods", "-l", "modeltiers.dev/tier=large", "-o", "json"))["items"][0]
    container = pod["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == str(large["gpusPerReplica"])
    assert f"--tensor-parallel-size={large['tensorParallel']}" in container["args"]


def test_the_table_that_people_read(tiers: Tiers) -> None:
    tiers.apply("small")
    tiers.ready("small")
    header, row = tiers.kubectl("get", "tiering").splitlines()
    assert header.split() == ["NAME", "READY", "STATUS", "MODEL", "GPUS", "TP", "AGE"]
    # kubectl names the kind once a category has several.
    assert row.split()[:2] == ["modeltier.modeltiers.dev/small", "1/1"]
    assert row.split()[3:6] == ["hf://deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "1", "1"]
    wide = tiers.kubectl("get", "mt", "-o", "wide").splitlines()[0].split()
    assert {"ENDPOINT", "IMAGE", "ACCELERATOR"} <= set(wide)


def test_a_change_of_the_model_rolls_the_pods_and_a_price_does_not(tiers: Tiers) -> None:
    tiers.apply("small")
    tiers.ready("small")
    before = tiers.get("deployment", "small")
    assert before
    tiers.apply("small", price={"gpuHourMicros": 2_000_000}, rank=5)
    until(lambda: tiers.status("small").get("cost"), "a cost in status")
    assert tiers.status("small")["cost"] == {"perHourMicros": 2_000_000, "currency": "USD"}
    same = tiers.get("deployment", "small")
    assert same and same["metadata"]["generation"] == before["metadata"]["generation"]
    tiers.apply("small", sizing={"concurrency": 64}, serving={"args": ["--seed=7"]})
    until(lambda: "--seed=7" in json.dumps((tiers.get("deployment", "small") or {}).get("spec")), "the new argument")
    status = tiers.ready("small")
    assert status["observedGeneration"] == 3


def test_scale_by_subresource_on_a_manifest_without_replicas(tiers: Tiers) -> None:
    tiers.apply("small")
    tiers.ready("small")
    tiers.kubectl("scale", "mt/small", "--replicas=3")
    status = until(lambda: (s := tiers.status("small")).get("readyReplicas") == 3 and s, "three ready")
    assert (status["ready"], status["replicas"]) == ("3/3", 3)
    scale = json.loads(
        tiers.cluster.kubectl(
            "get", "--raw", f"/apis/modeltiers.dev/v1alpha1/namespaces/{tiers.namespace}/modeltiers/small/scale"
        ).stdout
    )
    assert scale["status"] == {"replicas": 3, "selector": "modeltiers.dev/revision=r1,modeltiers.dev/tier=small"}
    tiers.kubectl("scale", "mt/small", "--replicas=0")
    until(lambda: tiers.status("small").get("replicas") == 0, "none left")
    assert tiers.condition("small", "Reconciling").get("status") != "True"


def test_an_hpa_finds_the_tiers_scale_and_its_pods(tiers: Tiers) -> None:
    tiers.apply("small")
    tiers.ready("small")
    tiers.create(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "small"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "modeltiers.dev/v1alpha1", "kind": "ModelTier", "name": "small"},
                "minReplicas": 2,
                "maxReplicas": 3,
                "metrics": [
                    {
                        "type": "Resource",
                        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
                    }
                ],
            },
        }
    )
    # It raises to its minimum without any metric; this proves that it can read and write the scale.
    until(
        lambda: tiers.status("small").get("readyReplicas") == 2,
        lambda: tiers.kubectl("get", "hpa", "-o", "yaml"),
        timeout=60,
    )
    body = tiers.get("modeltier", "small")
    assert body and body["spec"]["replicas"] == 2


@pytest.mark.parametrize(
    ("kind", "patch"),
    [
        ("deployment", {"spec": {"replicas": 4}}),
        (
            "deployment",
            {"spec": {"template": {"spec": {"containers": [{"name": "engine", "image": "evil.example.com/x:1"}]}}}},
        ),
        ("service", {"spec": {"ports": [{"port": 8000, "name": "http", "targetPort": 9999}]}}),
        ("serviceaccount", {"automountServiceAccountToken": True}),
        ("poddisruptionbudget", {"spec": {"maxUnavailable": 3}}),
        ("service", {"metadata": {"labels": {"modeltiers.dev/tier": None}}}),
    ],
)
def test_a_child_edited_by_hand_is_put_back(tiers: Tiers, kind: str, patch: dict[str, object]) -> None:
    tiers.apply("small")
    tiers.ready("small")
    before = tiers.get(kind, "small")
    assert before
    strategic = "merge" if "labels" in json.dumps(patch) else "strategic"
    tiers.kubectl("patch", kind, "small", f"--type={strategic}", "-p", json.dumps(patch))

    def healed() -> bool:
        now = tiers.get(kind, "small")
        same = ("spec", "automountServiceAccountToken")
        return (
            bool(now)
            and all(now.get(k) == before.get(k) for k in same)
            and now["metadata"]["labels"] == before["metadata"]["labels"]
        )  # type: ignore[index,union-attr]  # they are there

    until(healed, lambda: json.dumps(tiers.get(kind, "small"), indent=1)[:3000])


@pytest.mark.parametrize("kind", ["deployment", "service", "serviceaccount", "poddisruptionbudget"])
def test_a_deleted_child_comes_back(tiers: Tiers, kind: str) -> None:
    tiers.apply("small")
    tiers.ready("small")
    before = tiers.get(kind, "small")
    tiers.kubectl("delete", kind, "small", "--wait=false")
    until(
        lambda: (now := tiers.get(kind, "small")) and before and now["metadata"]["uid"] != before["metadata"]["uid"],
        kind,
    )


def test_nothing_of_ours_is_on_the_users_object(tiers: Tiers) -> None:
    tiers.apply("small")
    tiers.ready("small")
    body = tiers.get("modeltier", "small")
    assert body
    assert "finalizers" not in body["metadata"]
    assert "annotations" not in body["metadata"]
    managers = json.loads(tiers.kubectl("get", "mt/small", "-o", "json", "--show-managed-fields"))["metadata"][
        "managedFields"
    ]
    assert {(m["manager"], m.get("subresource")) for m in managers} == {("kubectl", None), ("modeltiers", "status")}


def test_a_settled_tier_is_left_alone(tiers: Tiers) -> None:
    """Ringing without cause writes nothing: the operator's writes in this namespace stay what they are."""
    tiers.apply("small")
    tiers.ready("small")
    time.sleep(1)
    writes = [r for r in tiers.cluster.requests(USER) if r.writes and r.namespace == tiers.namespace]
    tiers.kubectl("annotate", "mt/small", "example.com/ring=1")
    tiers.kubectl("label", "deployment/small", "example.com/ring=1")
    time.sleep(1.5)
    again = [r for r in tiers.cluster.requests(USER) if r.writes and r.namespace == tiers.namespace]
    assert again == writes


def test_deleting_a_tier_takes_everything_with_it(tiers: Tiers) -> None:
    tiers.apply("small")
    tiers.ready("small")
    tiers.kubectl("delete", "mt/small")
    kinds = "deployments,replicasets,pods,services,poddisruptionbudgets,serviceaccounts"
    until(lambda: not tiers.kubectl("get", kinds, "-l", "modeltiers.dev/tier=small", "-o", "name"), "nothing left")


def test_deleted_and_created_again_it_belongs_to_the_new_tier(tiers: Tiers) -> None:
    tiers.apply("small")
    tiers.ready("small")
    tiers.kubectl("delete", "mt/small", "--cascade=background")
    tiers.apply("small", sizing={"concurrency": 8})
    tiers.ready("small", timeout=40)
    body, child = tiers.get("modeltier", "small"), tiers.get("deployment", "small")
    assert body and child
    assert child["metadata"]["ownerReferences"][0]["uid"] == body["metadata"]["uid"]


def test_a_plan_stays_put_while_nodes_come_and_go(tiers: Tiers) -> None:
    tiers.apply("large", LARGE)
    tiers.ready("large")
    before = tiers.get("deployment", "large")
    tiers.cluster.add_pool(NodePool("later", 1, gpus=4))
    time.sleep(1)
    tiers.cluster.remove_node("later-0")
    time.sleep(1)
    after = tiers.get("deployment", "large")
    assert before and after
    assert after["metadata"]["generation"] == before["metadata"]["generation"]


def test_kubectl_diff_and_explain(tiers: Tiers, tmp_path: object) -> None:
    tiers.apply("small")
    tiers.ready("small")
    body = {
        "apiVersion": "modeltiers.dev/v1alpha1",
        "kind": "ModelTier",
        "metadata": {"name": "small", "namespace": tiers.namespace},
        "spec": SPEC,
    }
    done = tiers.cluster.kubectl(
        "diff", "--server-side", "--force-conflicts", "-f", "-", input=json.dumps(body), check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    text = tiers.cluster.kubectl("explain", "modeltier.spec.sizing.concurrency").stdout
    assert "Requests a replica should hold at once" in text


def test_the_namespace_deletes_while_the_operator_works(tiers: Tiers, operator: OperatorProcess) -> None:
    tiers.apply("small")
    tiers.ready("small")
    tiers.cluster.kubectl("delete", "namespace", tiers.namespace, "--wait=true", "--timeout=120s")


def test_the_operator_uses_only_what_it_declares(tiers: Tiers, installed: Cluster) -> None:
    """Every request so far was allowed: the rights generated from the code suffice, under its own account."""
    tiers.apply("small")
    tiers.ready("small")
    refused, allowed = set[tuple[str, ...]](), set[tuple[str, ...]]()
    for r in installed.requests(USER):
        (refused if r.forbidden else allowed).add((r.verb, r.resource, r.subresource, r.namespace))
    # An API server that has just started refuses everything until it has read its roles; another test restarts it.
    never = refused - allowed
    # Another test takes a right away, in its own namespace.
    assert {item for item in never if item[3] in ("", "modeltiers-system", tiers.namespace)} == set()
