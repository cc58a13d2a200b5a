"""A control plane with GPU nodes, a real Argo CD beside it, and a Git repository: slow, so `make e2e` runs it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from e2e.argocd import ArgoCD, GitRepository
from e2e.cluster import Cluster
from e2e.cluster.kwok import NodePool
from e2e.operator_process import NAMESPACE, ROOT, OperatorProcess, install
from tests.cluster.conftest import SETTINGS
from tests.gitops.routers import Routers, external_api

PATCHES = ("manifests/argocd/argocd-cm.yaml", "examples/argocd/app-of-apps/argocd-cm.yaml")
HOUSE = NodePool("house", 1, product="Example-Accelerator-48GB", memory_mib=46068, gpus=4)
POOLS = (
    NodePool("h100", 6),
    NodePool("l40s", 2, product="NVIDIA-L40S", memory_mib=46068),
    HOUSE,
    NodePool("plain", 1, gpus=0),
)
EXAMPLES: dict[str, Any] = yaml.safe_load((ROOT / "examples/settings.yaml").read_text())


@pytest.fixture(scope="package")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane of its own: nothing of ours is in it."""
    if shutil.which("git") is None or shutil.which("go") is None:
        pytest.skip("a real Argo CD wants git, and Go to be built with")
    with Cluster(tmp_path_factory.mktemp("argocd-cluster"), name="argocd", tied=True, pools=POOLS) as running:
        yield running


@pytest.fixture(scope="package")
def git(tmp_path_factory: pytest.TempPathFactory) -> GitRepository:
    """An empty repository."""
    return GitRepository(tmp_path_factory.mktemp("git") / "models")


@pytest.fixture(scope="package")
def argo(control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArgoCD]:
    """Argo CD with our scripts, applied as the documentation says."""
    with ArgoCD(control_plane, tmp_path_factory.mktemp("argocd") / "argocd") as running:
        for number, path in enumerate(PATCHES):
            who = ("--server-side", f"--field-manager=modeltiers-{number}")
            control_plane.kubectl("apply", *who, "-f", str(ROOT / path))
        yield running


@pytest.fixture(scope="package")
def models_api() -> Iterator[str]:
    """The base URL of an external API that serves the models of the examples."""
    with external_api() as url:
        yield url


@pytest.fixture(scope="module")
def operator(control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """The operator as a process, with real routers for the simulated pods."""
    going = f"--for=delete namespace/{NAMESPACE} --timeout=120s".split()  # with Argo CD's Application of the operator
    if "Terminating" in control_plane.kubectl("get", "namespace", NAMESPACE, check=False).stdout:
        control_plane.kubectl("wait", *going, check=False)
    install(control_plane)
    settings = EXAMPLES | {name: SETTINGS[name] for name in ("router", "facts", "distill", "externalHosts")}
    running = OperatorProcess(control_plane, tmp_path_factory.mktemp("operator"), settings=settings)
    try:
        with Routers(control_plane, tmp_path_factory.mktemp("routers") / "routers"):
            running.start(wait=False).wait_ready(120)
            yield running
            assert running.metric("modeltiers_reconcile_errors_total", reason="Bug") == 0, running.tail(200)
    finally:
        running.close()
