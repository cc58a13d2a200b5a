"""From an empty cluster to serving tiers by one Application, and what happens after that: each test goes on where the
one before it stopped.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.argocd import ArgoCD, GitRepository
from e2e.cluster import Cluster
from e2e.operator_process import ROOT, OperatorProcess
from modeltiers.api.distilljob import DistillJobSpec
from modeltiers.domain.distill.stages import Stage, stages_of
from tests.cluster.kit import Tiers, until
from tests.cluster.test_distilljob import GATE, Distill
from tests.gitops.kit import apply, claim, example, from_git, read, settled, shown, volume, watched

pytestmark = pytest.mark.slow
NAMESPACE = "models"
PARTS = ("crds", "operator", "tiers", "policies", "jobs")
APPS = [f"modeltiers-{part}" for part in PARTS]
FROM = {
    "models/tiers/small.yaml": "examples/ladder/small.yaml",
    "models/tiers/large.yaml": "examples/ladder/large.yaml",
    "models/tiers/reasoner.yaml": "examples/pinned/tier.yaml",
    "models/policies/support.yaml": "examples/routing/cascade.yaml",
    "models/policies/assistant.yaml": "examples/routing/rules.yaml",
    **{f"models/jobs/orders/{name}.yaml": f"examples/distill/{name}.yaml" for name in ("tiers", "policy", "job")},
}
DIGEST = "ab" * 16


def test_everything_comes_from_one_application(
    control_plane: Cluster, argo: ArgoCD, git: GitRepository, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """CRDs, operator, tiers, policies and jobs, each after the one before is Healthy, and none Degraded on the way."""
    files = {f"crds/{path.name}": path.read_text() for path in (ROOT / "crds").iterdir()}
    files |= {f"manifests/{name}": read(f"manifests/{name}") for name in ("rbac.yaml", "operator.yaml")}
    files |= {f"apps/{part}.yaml": from_git(f"examples/argocd/app-of-apps/apps/{part}.yaml", git) for part in PARTS}
    files |= {name: example(path) for name, path in FROM.items()}
    files["models/jobs/orders/mails.json"] = json.dumps(claim(NAMESPACE, "mails"))
    git.commit(files, "all of it")
    volumes = [volume(NAMESPACE, name) for name in ("orders-store", "mails")]
    with watched(control_plane, tmp_path) as seen:
        began = time.monotonic()
        apply(control_plane, *volumes, from_git("examples/argocd/app-of-apps/root.yaml", git))
        settled(argo, "modeltiers-crds")
        settled(argo, "modeltiers-operator")
        request.getfixturevalue("operator")  # its pods are simulated: the operator itself runs here
        settled(argo, "modeltiers-tiers")
        settled(argo, "modeltiers-policies")
        settled(argo, "modeltiers-jobs", "Progressing")
        print(f"all of it Synced after {time.monotonic() - began:.0f} s")
    assert "Degraded" not in {health for _, _, health in seen}
    order = [argo.app(name)["metadata"]["creationTimestamp"] for name in APPS]
    assert order == sorted(order)
    shown(argo, ["modeltiers-tiers", "modeltiers-policies"])


def test_a_job_that_waits_for_approval_is_suspended_and_argo_cd_can_approve(
    control_plane: Cluster, argo: ArgoCD, operator: OperatorProcess
) -> None:
    """Progressing, Suspended, approved and taken back by Argo CD's actions: Healthy, with the message."""
    job = Distill(Tiers(control_plane, NAMESPACE), "orders")
    until(lambda: job.status, "the job", 60)
    spec = DistillJobSpec.model_validate(_spec())
    facts: dict[Stage, Any] = {Stage.GATE: GATE, Stage.PACKAGE: {"digest": DIGEST}}
    for stage in stages_of(spec):
        job.complete(stage, facts=facts.get(stage, {}))
    settled(argo, "modeltiers-jobs", "Suspended")
    status, message = argo.health("modeltiers-jobs")["DistillJob", "orders"]
    assert (status, DIGEST in message) == ("Suspended", True)
    shown(argo, ["modeltiers-jobs"])
    who = ("modeltiers-jobs", "--kind", "DistillJob")
    print(argo.cli("app", "actions", "list", *who))
    argo.cli("app", "actions", "run", *who[:1], "approve", *who[1:])
    until(lambda: job.status["promotion"]["state"] == "Canary", lambda: json.dumps(job.status))
    settled(argo, "modeltiers-jobs", "Progressing")
    argo.cli("app", "actions", "run", *who[:1], "rollback", *who[1:])
    settled(argo, "modeltiers-jobs")
    assert argo.health("modeltiers-jobs")["DistillJob", "orders"][1].startswith("RolledBack: ")
    settled(argo, "modeltiers")
    shown(argo, ["modeltiers-jobs", "modeltiers"])


def _spec() -> dict[str, Any]:
    documents = yaml.safe_load_all(example("examples/distill/job.yaml"))
    found: dict[str, Any] = next(one["spec"] for one in documents if one["kind"] == "DistillJob")
    return found


def test_nothing_differs_while_the_operator_works(
    control_plane: Cluster, argo: ArgoCD, operator: OperatorProcess, tmp_path: Path
) -> None:
    """Through a restart of the operator, a restart of a tier by Argo CD's action, and pods that come and go."""
    with watched(control_plane, tmp_path) as seen:
        small = ("--kind", "ModelTier", "--resource-name", "small")
        argo.cli("app", "actions", "run", "modeltiers-tiers", "restart", *small)
        tiers = Tiers(control_plane, NAMESPACE)
        until(lambda: (tiers.get("modeltier", "small") or {})["metadata"]["generation"] == 2, "the new token")
        settled(argo, "modeltiers-tiers")
        operator.stop()
        tiers.kubectl("delete", "pod", "-l", "modeltiers.dev/tier=small", "--grace-period=0", "--force")
        operator.start(wait=False).wait_ready(120)
        for name in APPS:
            settled(argo, name)  # each look compares all of Git with all of the cluster
    changes = sorted(set(seen))
    print("\n".join(" ".join(one) for one in changes))
    assert {sync for _, sync, _ in changes} == {"Synced"}
    assert not {health for _, _, health in changes} & {"Degraded", "Missing", "Unknown"}
    token = (tiers.get("modeltier", "small") or {})["spec"]["rolloutToken"]
    assert token == "restart-1"


def test_a_broken_tier_is_degraded_with_its_reason(argo: ArgoCD, git: GitRepository, operator: OperatorProcess) -> None:
    """And so is the policy over it, until Git is corrected."""
    small = yaml.safe_load(example("examples/ladder/small.yaml"))
    broken = {**small["spec"], "model": {**small["spec"]["model"], "maxModelLen": 1_000_000}}
    git.commit({"models/tiers/small.yaml": yaml.safe_dump({**small, "spec": broken})}, "too long a context")
    settled(argo, "modeltiers-tiers", "Degraded")
    status, message = argo.health("modeltiers-tiers")["ModelTier", "small"]
    assert status == "Degraded"
    assert message.startswith("ContextTooLong: ")
    shown(argo, ["modeltiers-tiers"])
    git.commit({"models/tiers/small.yaml": yaml.safe_dump(small)}, "back")
    settled(argo, "modeltiers-tiers")
    settled(argo, "modeltiers-policies")


def test_what_somebody_changes_is_healed_and_what_git_drops_is_pruned(
    control_plane: Cluster, argo: ArgoCD, git: GitRepository, operator: OperatorProcess
) -> None:
    """A spec and a deleted policy come back; a tier that is gone from Git goes with all its children."""
    tiers = Tiers(control_plane, NAMESPACE)
    rank = (tiers.get("modeltier", "large") or {})["spec"]["rank"]
    tiers.kubectl("patch", "modeltier", "large", "--type=merge", "-p", '{"spec":{"rank":99}}')
    until(lambda: (tiers.get("modeltier", "large") or {})["spec"]["rank"] == rank, "Git's rank", 90)
    before = (tiers.get("routingpolicy", "support") or {})["metadata"]["uid"]
    tiers.kubectl("delete", "routingpolicy", "support")
    until(
        lambda: (tiers.get("routingpolicy", "support") or {"metadata": {"uid": before}})["metadata"]["uid"] != before,
        "a new policy",
        90,
    )
    settled(argo, "modeltiers-policies")
    git.commit({"models/policies/assistant.yaml": None, "models/tiers/reasoner.yaml": None}, "without two of them")
    for name in ("modeltiers-policies", "modeltiers-tiers"):
        argo.app(name, refresh=True)
    until(lambda: tiers.get("routingpolicy", "assistant") is None, "the policy to go", 90)
    until(lambda: tiers.get("modeltier", "reasoner") is None, "the tier to go", 90)
    settled(argo, "modeltiers-tiers")
    left = ("deployments,services,configmaps,pods", "-l", "modeltiers.dev/tier=reasoner", "-o", "name")
    until(lambda: not tiers.kubectl("get", *left).strip(), lambda: tiers.kubectl("get", *left), 120)


def test_the_applications_go_in_one_pass(control_plane: Cluster, argo: ArgoCD, operator: OperatorProcess) -> None:
    """Deleted once, with nothing stuck; the CRDs stay."""
    began = time.monotonic()
    argo.cli("app", "delete", "modeltiers", "--yes")

    def left() -> str:
        return control_plane.kubectl("get", "applications.argoproj.io,tiering", "-A", "-o", "name").stdout.strip()

    until(lambda: not left(), left, 180)
    print(f"gone in {time.monotonic() - began:.0f} s")
    assert control_plane.kubectl("get", "crd", "modeltiers.modeltiers.dev", "-o", "name").stdout.strip()
    tiers = Tiers(control_plane, NAMESPACE)
    children = ("deployments,services,pods,jobs", "-l", "app.kubernetes.io/managed-by=modeltiers", "-o", "name")
    until(lambda: not tiers.kubectl("get", *children).strip(), lambda: tiers.kubectl("get", *children), 120)
