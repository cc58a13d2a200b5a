"""Every object in examples/ is taken by a real API server, and what the team's admission promises holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster import Cluster
from tests.cluster.kit import until

EXAMPLES = Path(__file__).parents[2] / "examples"
ELSEWHERE = {"source.toolkit.fluxcd.io", "kustomize.toolkit.fluxcd.io", "keda.sh", "kustomize.config.k8s.io"}
"""Groups that a cluster without these projects does not serve."""
OF_THE_CLUSTER = {"Namespace", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
TEAM = "team-a"
BY = ("--server-side", "--field-manager=example")


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    """Path and object of everything that this cluster serves; Argo CD's own examples have tests of their own."""
    paths = (path for path in sorted(EXAMPLES.rglob("*.yaml")) if "argocd" not in path.parts)
    for path in paths:
        for body in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if body and "kind" in body and body["apiVersion"].partition("/")[0] not in ELSEWHERE:
                yield str(path.relative_to(EXAMPLES)), body


FOUND = list(documents())


@pytest.fixture(scope="module")
def team(installed: Cluster) -> Iterator[Cluster]:
    """The team's namespace as the example has it, limits and approvers in force."""
    for name in ("team.yaml", "approvers.yaml"):
        installed.kubectl("apply", *BY, "-f", str(EXAMPLES / "tenants" / name))
    installed.kubectl("apply", "-f", str(EXAMPLES.parent / "manifests/limits.yaml"))
    over = tier(replicas=5)
    until(lambda: "at most 4 replicas" in refusal(installed, over), "the limits in force", 60)
    yield installed
    for path in (EXAMPLES / "tenants/approvers.yaml", EXAMPLES.parent / "manifests/limits.yaml"):
        installed.kubectl("delete", "-f", str(path))
    installed.delete_namespace(TEAM)


def tier(**spec: Any) -> dict[str, Any]:
    """A small tier of the team, changed."""
    body = yaml.safe_load((EXAMPLES / "ladder/small.yaml").read_text(encoding="utf-8"))
    return {**body, "metadata": {"name": "x", "namespace": TEAM}, "spec": {**body["spec"], **spec}}


def refusal(cluster: Cluster, body: dict[str, Any], *flags: str, verb: str = "create") -> str:
    """What the API server says against an object; nothing when it would take it."""
    done = cluster.kubectl(verb, "--dry-run=server", *flags, "-f", "-", input=json.dumps(body), check=False)
    return done.stderr if done.returncode else ""


def test_every_object_is_taken(team: Cluster, namespace: str) -> None:
    bodies = [body for _, body in FOUND]
    for body in bodies:
        if body["kind"] not in OF_THE_CLUSTER:
            body["metadata"].setdefault("namespace", namespace)
    kinds = {body["kind"] for body in bodies}
    assert {"ModelTier", "RoutingPolicy", "DistillJob", "HorizontalPodAutoscaler", "ResourceQuota"} <= kinds
    assert refusal(team, {"apiVersion": "v1", "kind": "List", "items": bodies}, *BY, verb="apply") == ""


def test_the_limits_of_the_team_are_those_of_its_namespace(team: Cluster) -> None:
    assert refusal(team, tier()) == ""
    assert "does not allow the model source" in refusal(team, tier(model={"source": "hf://other/model"}))
    assert "does not allow the engine flag" in refusal(team, tier(serving={"args": ["--seed=1"]}))


def test_an_author_writes_the_three_kinds_and_no_more(team: Cluster) -> None:
    author = ("--as=ada", "--as-group=team-a", "-n", TEAM)
    for verb, what, may in (
        ("create", "modeltiers.modeltiers.dev", "yes"),
        ("patch", "distilljobs.modeltiers.dev", "yes"),
        ("patch", "modeltiers.modeltiers.dev --subresource=scale", "yes"),
        ("patch", "modeltiers.modeltiers.dev --subresource=status", "no"),
        ("get", "secrets", "no"),
        ("create", "pods", "no"),
    ):
        assert team.kubectl("auth", "can-i", verb, *what.split(), *author, check=False).stdout.strip() == may, (
            verb,
            what,
        )


def test_only_approvers_approve(team: Cluster) -> None:
    """Authors change everything else of a job, and may take an approval back."""
    body = next(one for path, one in FOUND if path == "distill/job.yaml" and one["kind"] == "DistillJob")
    body = {**body, "metadata": {"name": "orders", "namespace": TEAM}}
    team.kubectl("create", "-f", "-", input=json.dumps(body))
    author = ("--as=ada", "--as-group=team-a")
    approver = ("--as=eve", "--as-group=team-a", "--as-group=model-approvers")

    def annotate(value: str, who: tuple[str, ...]) -> str:
        args = ("annotate", "--overwrite", "dj", "orders", "-n", TEAM, *who, f"modeltiers.dev/approve{value}")
        return team.kubectl(*args, check=False).stderr

    until(
        lambda: "only members of the group model-approvers" in annotate("=sha256-one", author),
        "the policy in force",
        60,
    )
    approved = {
        **body,
        "metadata": {"name": "born-approved", "namespace": TEAM, "annotations": {"modeltiers.dev/approve": "x"}},
    }
    assert "only members of the group model-approvers" in refusal(team, approved, *author)
    assert annotate("=sha256-one", approver) == ""
    team.kubectl("patch", "dj", "orders", "-n", TEAM, *author, "--type=merge", "-p", '{"spec": {"suspend": true}}')
    assert "only members" in annotate("=sha256-two", author)
    assert annotate("-", author) == ""
