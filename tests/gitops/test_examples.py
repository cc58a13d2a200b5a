"""Every example of this project, and any valid spec: from Git to Synced, Healthy where that is what the example is."""

from __future__ import annotations

import copy
import json
import secrets
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from e2e.argocd import ArgoCD, GitRepository
from e2e.cluster import Cluster
from e2e.operator_process import ROOT, OperatorProcess
from modeltiers.api.routingpolicy import RoutingPolicy
from tests.cluster.admission import ApiServer
from tests.cluster.kit import until
from tests.gitops.kit import apply, claim, example, from_git, settled, shown, volume
from tests.unit.test_policy_table_properties import policies

pytestmark = pytest.mark.slow
NAMESPACE = "all-examples"
ABOUT_DELIVERY = {"argocd", "flux"}
OF_OTHERS = {"tenants", "nights.yaml", "hpa.yaml"}
"""Namespaces and admission are an administrator's; KEDA and an adapter of metrics are not in this cluster."""
WAITS = {("DistillJob", name) for name in ("orders", "sums", "tuned")}
"""What is on the way for as long as nobody ends its stages; `test_app_of_apps` does."""


def every_example(api: str) -> dict[str, str | None]:
    """A team's folder with all of them; a resource of the same name in two files would be one that flaps."""
    paths = [path.relative_to(ROOT / "examples") for path in sorted((ROOT / "examples").glob("*/*.yaml"))]
    left_out = ABOUT_DELIVERY | OF_OTHERS | {"kustomization.yaml"}
    kept = [path for path in paths if not left_out & set(path.parts)]
    files: dict[str, str | None] = {"-".join(path.parts): example(f"examples/{path}", api) for path in kept}
    resources = Counter(
        (one["kind"], one["metadata"]["name"]) for text in files.values() for one in yaml.safe_load_all(text or "")
    )
    assert [key for key, count in resources.items() if count > 1] == []
    return {f"teams/{NAMESPACE}/{name}": text for name, text in files.items()}


def test_every_example_becomes_synced_and_healthy(
    control_plane: Cluster, argo: ArgoCD, git: GitRepository, operator: OperatorProcess, models_api: str
) -> None:
    """By the ApplicationSet: all of them in one namespace, as one team's folder."""
    git.commit(every_example(models_api), "every example")
    around = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}]
    around += [volume(NAMESPACE, name) for name in ("models", "orders-store", "sums-store", "mails")]
    around.append(claim(NAMESPACE, "mails"))
    around.append(
        {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "serving"}, "value": 1}
    )
    apply(control_plane, *around, from_git("examples/argocd/applicationset.yaml", git))
    name = f"models-{NAMESPACE}"

    def odd() -> dict[Any, Any]:
        found = {key: value for key, value in argo.health(name).items() if value[0] not in ("", "Healthy")}
        return {key: value for key, value in found.items() if key not in WAITS}

    until(lambda: name in argo.cli("app", "list", "-o", "name"), "the ApplicationSet's Application", 60)
    settled(argo, name, "Progressing", timeout=300)  # the job's first stage runs
    until(lambda: not odd(), lambda: str(odd()), 300)
    assert {status for status, _ in argo.health(name).values()} <= {"", "Healthy", "Progressing"}
    shown(argo, [name])


# --- any valid spec ---------------------------------------------------------------------------------------------------

FIXTURES = ROOT / "tests/cluster/fixtures"
MANY = 25


@st.composite
def thinned(draw: st.DrawFn, body: Any) -> Any:
    """A part of an object: each field may be left out."""
    if isinstance(body, dict):
        return {key: draw(thinned(value)) for key, value in body.items() if draw(st.integers(0, 3))}
    return copy.deepcopy(body)


def some(kind: str, server: ApiServer) -> list[dict[str, Any]]:
    """Objects of a kind that the API server takes: those that have every field, and parts of them."""
    whole = [yaml.safe_load(path.read_text()) for path in sorted((FIXTURES / kind / "accepted").glob("*.yaml"))]
    found = list(whole)

    @settings(max_examples=8 * MANY, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(whole).flatmap(lambda body: thinned(body["spec"]).map(lambda spec: {**body, "spec": spec})))
    def draw(body: dict[str, Any]) -> None:
        if len(found) < MANY and body not in found and server.create(body, NAMESPACE).accepted:
            found.append(body)

    draw()
    return found


def some_policies(server: ApiServer) -> list[dict[str, Any]]:
    """Policies of any form."""
    found = some("routingpolicy", server)

    @settings(max_examples=MANY, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(policies())
    def draw(policy: RoutingPolicy) -> None:
        spec = policy.spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
        body = {
            "apiVersion": "modeltiers.dev/v1alpha1",
            "kind": "RoutingPolicy",
            "metadata": {"name": "p"},
            "spec": spec,
        }
        if server.create(body, NAMESPACE).accepted:
            found.append(body)

    draw()
    return found


@pytest.mark.parametrize("option", ["", "ServerSideApply=true"])
def test_any_valid_spec_stays_synced(
    control_plane: Cluster, argo: ArgoCD, git: GitRepository, operator: OperatorProcess, tmp_path: Path, option: str
) -> None:
    """Whether it can be served or not: what the API server keeps and the operator writes is no difference."""
    namespace = f"fuzzed-{secrets.token_hex(2)}"
    control_plane.kubectl("create", "namespace", NAMESPACE, check=False)
    with ApiServer(control_plane.kubeconfig, tmp_path) as server:
        drawn = [*some("modeltier", server), *some("distilljob", server), *some_policies(server)]
    for number, body in enumerate(drawn):
        body["metadata"] = {"name": f"f{number}"}
    # As JSON, since a model named `y` would be a boolean to who reads YAML as its first version was.
    files = {f"{namespace}/{body['metadata']['name']}.json": json.dumps(body) for body in drawn}
    git.commit(files, "fuzzed")
    application = yaml.safe_load(from_git("examples/argocd/application.yaml", git))
    application["metadata"]["name"] = namespace
    application["spec"]["source"]["path"] = namespace
    application["spec"]["destination"]["namespace"] = namespace
    application["spec"]["syncPolicy"]["syncOptions"] += [option] if option else []
    apply(control_plane, application)

    def looked_at() -> bool:
        found = argo.health(namespace).values()
        there = len(found) >= len(drawn) and "Missing" not in {status for status, _ in found}
        return there and not any(message.startswith("Waiting for the operator") for _, message in found)

    until(looked_at, lambda: argo.cli("app", "get", namespace, check=False), 240)
    status = argo.app(namespace, refresh=True)["status"]
    apart = [one for one in status["resources"] if one.get("status") != "Synced"]
    print(f"{len(drawn)} specs, {option or 'client-side apply'}: {status['sync']['status']}")
    assert apart == [], argo.cli("app", "diff", namespace, check=False)
    assert status["sync"]["status"] == "Synced"
    argo.cli("app", "delete", namespace, "--yes")
    until(lambda: namespace not in argo.cli("app", "list", "-o", "name"), "the application to go", 120)
