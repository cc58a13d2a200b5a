"""Words for what the tests with Argo CD do often: wait for an Application, fill the repository, say what is seen."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from e2e.argocd import ArgoCD, GitRepository
from e2e.cluster import Cluster
from e2e.operator_process import ROOT
from tests.cluster.kit import decoded, until

WHERE = {"repoURL: https://git.example.com/platform/modeltiers.git", "repoURL: https://git.example.com/team/models.git"}
WHERE |= {"repoURL: https://git.example.com/platform/teams.git"}
NOWHERE = {"example.com/nowhere": "yes"}
"""No node has it, so that no simulated kubelet ends the pods of a stage: the test does."""
REFRESH = 10.0
"""Seconds after which Argo CD is asked to look again."""


def read(path: str) -> str:
    """A file of this project."""
    return (ROOT / path).read_text(encoding="utf-8")


def from_git(path: str, git: GitRepository) -> str:
    """An example of Argo CD's resources, with the repository of this test."""
    text = read(path)
    for line in WHERE:
        text = text.replace(line, f"repoURL: {git.url}")
    return text


def example(path: str, api: str = "") -> str:
    """An example as a user would commit it; an external API is the one of this machine, and no kubelet ends a stage."""
    documents = [one for one in yaml.safe_load_all(read(path)) if one]
    for one in documents:
        if api and (external := one.get("spec", {}).get("external")):
            external["baseUrl"] = api
            external.pop("apiKeySecretRef", None)  # a key is sent over https alone, and nobody asks here
        if one["kind"] == "DistillJob":
            if api and (endpoint := one["spec"]["teacher"].get("endpoint")):
                endpoint["baseUrl"] = api
                one["spec"]["teacher"].pop("keyRef", None)
            one["spec"].setdefault("scheduling", {})["nodeSelector"] = NOWHERE
    return yaml.safe_dump_all(documents, sort_keys=False)


def settled(argo: ArgoCD, name: str, health: str = "Healthy", *, timeout: float = 300) -> dict[str, Any]:
    """Wait until an Application is Synced and of this health; returns it.

    Argo CD is asked to look, again and again: it may miss that new CRDs are established, and by itself it would look
    after two minutes.
    """
    due = 0.0

    def there() -> dict[str, Any] | None:
        nonlocal due
        refresh = time.monotonic() >= due
        due = time.monotonic() + REFRESH if refresh else due
        status = argo.app(name, refresh=refresh).get("status") or {}
        at = (status.get("sync") or {}).get("status"), (status.get("health") or {}).get("status")
        return status if at == ("Synced", health) else None

    found: dict[str, Any] = until(there, lambda: said(argo, name), timeout)
    return found


def said(argo: ArgoCD, name: str) -> str:
    """What Argo CD shows of an Application, as a person at a terminal sees it."""
    return argo.cli("app", "get", name, check=False)


def shown(argo: ArgoCD, names: Iterable[str]) -> None:
    """Print it, for whoever reads the test's output."""
    for name in names:
        print(f"\n$ argocd app get {name}\n{said(argo, name)}")
        for (kind, what), (status, message) in argo.health(name).items():
            print(f"{kind} {what}: {status or 'no health of its own'} {message}")


def apply(cluster: Cluster, *bodies: Mapping[str, Any] | str) -> None:
    """Apply objects, or texts of them, as the administrator."""
    texts = [one if isinstance(one, str) else json.dumps(one) for one in bodies]
    for text in texts:
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=text)


def volume(namespace: str, claim: str) -> dict[str, Any]:
    """A volume for a claim, as a storage class would make it."""
    spec = {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "",
        "capacity": {"storage": "1Ti"},
        "hostPath": {"path": "/nowhere"},
        "claimRef": {"namespace": namespace, "name": claim},
    }
    metadata = {"name": f"{namespace}-{claim}"}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec}


def claim(namespace: str, name: str) -> dict[str, Any]:
    """A claim of such a volume."""
    resources = {"requests": {"storage": "1Ti"}}
    spec = {"accessModes": ["ReadWriteMany"], "storageClassName": "", "resources": resources}
    spec["volumeName"] = f"{namespace}-{name}"
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


@contextmanager
def watched(cluster: Cluster, place: Path) -> Iterator[list[tuple[str, str, str]]]:
    """Every sync and health status that any Application shows meanwhile; filled at the end."""
    seen: list[tuple[str, str, str]] = []
    path = place / "applications"
    with path.open("w") as out:
        watch = cluster.as_admin.watch("applications.argoproj.io", "-A", out=out)
        try:
            yield seen
        finally:
            watch.terminate()
            watch.wait()
    for state in decoded(path.read_text()):
        status = state.get("status") or {}
        at = (status.get("sync") or {}).get("status", ""), (status.get("health") or {}).get("status", "")
        seen.append((state["metadata"]["name"], *at))
