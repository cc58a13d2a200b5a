"""The charts, by real Helm on a real API server of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster import Cluster, binaries

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "modeltiers-crds"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster without our CRDs: those of the shared one belong to kubectl."""
    with Cluster(tmp_path_factory.mktemp("charts"), name="charts", tied=True, pools=()) as made:
        yield made


def helm(*arguments: str, cluster: Cluster | None = None) -> str:
    """Run Helm and return what it printed."""
    where = ["--kubeconfig", str(cluster.kubeconfig)] if cluster else []
    done = subprocess.run([binaries.helm(), *arguments, *where], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def documents(text: str) -> list[dict[str, Any]]:
    return [body for body in yaml.safe_load_all(text) if body]


def test_the_chart_renders_the_crds_and_says_keep() -> None:
    rendered = documents(helm("template", "crds", str(CHART)))
    assert {body["metadata"].pop("annotations")["helm.sh/resource-policy"] for body in rendered} == {"keep"}
    plain = [document for path in sorted((ROOT / "crds").glob("*.yaml")) for document in documents(path.read_text())]
    assert sorted(rendered, key=str) == sorted(plain, key=str)


def test_the_chart_lints() -> None:
    helm("lint", "--strict", str(CHART))


def test_crds_outlive_the_chart_and_are_taken_over_again(bare: Cluster) -> None:
    """Uninstalled by mistake, no tier is lost; installed again, the same CRDs belong to the release."""
    helm("install", "crds", str(CHART), "--wait", cluster=bare)
    bare.kubectl("wait", "--for=condition=Established", "crd/modeltiers.modeltiers.dev", "--timeout=30s")
    bare.kubectl("apply", "--server-side", "-f", str(ROOT / "examples" / "ladder" / "small.yaml"))
    helm("upgrade", "crds", str(CHART), cluster=bare)
    helm("uninstall", "crds", cluster=bare)
    assert "small" in bare.kubectl("get", "modeltiers", "-A", "-o", "name").stdout
    helm("install", "crds", str(CHART), cluster=bare)
