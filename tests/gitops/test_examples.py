"""Every example of this project, and any valid spec: from Git to Synced, Healthy where that is what the example is."""

from __future__ import annotations

import json
import secrets
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.argocd import ArgoCD, GitRepository
from e2e.cluster import Cluster
from e2e.operator_process import ROOT, OperatorProcess
from tests.cluster.admission import ApiServer, Body
from tests.cluster.kit import until
from tests.gitops.kit import apply, claim, example, from_git, settled, shown, volume, watched
from tests.gitops.specs import drawn_specs

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
    control_plane: Cluster, argo: ArgoCD, git: GitRepository, operator: OperatorProcess, models_api: str, tmp_path: Path
) -> None:
    """By the ApplicationSet: all of them in one namespace, as one team's folder, and never Degraded on the way."""
    git.commit(every_example(models_api), "every example")
    around = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}]
    around += [volume(NAMESPACE, name) for name in ("models", "orders-store", "sums-store", "mails")]
    around.append(claim(NAMESPACE, "mails"))
    around.append(
        {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "serving"}, "value": 1}
    )
    name = f"models-{NAMESPACE}"

    def odd() -> dict[Any, Any]:
        found = {key: value for key, value in argo.health(name).items() if value[0] not in ("", "Healthy")}
        return {key: value for key, value in found.items() if key not in WAITS}

    with watched(control_plane, tmp_path) as seen:
        apply(control_plane, *around, from_git("examples/argocd/applicationset.yaml", git))
        settled(argo, name, "Progressing")  # the job's first stage runs
        until(lambda: not odd(), lambda: str(odd()), 300)
    assert "Degraded" not in {health for _, _, health in seen}
    shown(argo, [name])


@pytest.fixture(scope="module")
def drawn(control_plane: Cluster, operator: OperatorProcess, tmp_path_factory: pytest.TempPathFactory) -> list[Body]:
    """Valid specs."""
    control_plane.kubectl("create", "namespace", NAMESPACE, check=False)
    with ApiServer(control_plane.kubeconfig, tmp_path_factory.mktemp("drawn")) as server:
        return drawn_specs(server, NAMESPACE)


@pytest.mark.parametrize("option", ["", "ServerSideApply=true"])
def test_any_valid_spec_stays_synced(
    control_plane: Cluster, argo: ArgoCD, git: GitRepository, drawn: list[Body], option: str
) -> None:
    """Whether it can be served or not: what the API server keeps and the operator writes is no difference."""
    namespace = f"fuzzed-{secrets.token_hex(2)}"
    # As JSON, since a model named `y` would be a boolean to who reads YAML as its first version was.
    files = {f"{namespace}/{body['metadata']['name']}.json": json.dumps(body) for body in drawn}
    git.commit(files, "fuzzed")
    application = yaml.safe_load(from_git("examples/argocd/application.yaml", git))
    application["metadata"]["name"] = namespace
    application["spec"]["source"]["path"] = namespace
    application["spec"]["destination"]["namespace"] = namespace
    application["spec"]["syncPolicy"]["syncOptions"] += [option] if option else []
    began = time.monotonic()
    apply(control_plane, application)

    def looked_at() -> bool:
        found = argo.health(namespace).values()
        there = len(found) >= len(drawn) and "Missing" not in {status for status, _ in found}
        return there and not any(message.startswith("Waiting for the operator") for _, message in found)

    until(looked_at, lambda: argo.cli("app", "get", namespace, check=False), 240)
    status = argo.app(namespace, refresh=True)["status"]
    apart = [one for one in status["resources"] if one.get("status") != "Synced"]
    took = f"after {time.monotonic() - began:.0f} s"
    print(f"{len(drawn)} specs, {option or 'client-side apply'}: {status['sync']['status']} {took}")
    assert apart == [], argo.cli("app", "diff", namespace, check=False)
    assert status["sync"]["status"] == "Synced"
    argo.cli("app", "delete", namespace, "--yes")
    until(lambda: namespace not in argo.cli("app", "list", "-o", "name"), "the application to go", 120)
