"""The charts, by real Helm 3 and 4 on a real API server of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.cluster import Cluster
from tests.cluster.charts import CHART, CRD_CHART, MAJORS, NAMESPACE, ROOT, Helm, documents


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster without our CRDs: those of the shared one belong to kubectl."""
    with Cluster(tmp_path_factory.mktemp("charts"), name="charts", tied=True, pools=()) as made:
        yield made


@pytest.fixture(params=MAJORS, ids=lambda major: f"helm{major}")
def helm(request: pytest.FixtureRequest, bare: Cluster) -> Iterator[Helm]:
    """Helm on the bare cluster, which is bare again afterwards."""
    major: int = request.param
    yield Helm(major, bare)
    bare.kubectl("delete", "crd", "--all")
    bare.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")


@pytest.mark.parametrize("major", MAJORS)
def test_the_crd_chart_renders_the_crds_and_says_keep(major: int) -> None:
    rendered = Helm(major).render(chart=CRD_CHART)
    assert {body["metadata"].pop("annotations")["helm.sh/resource-policy"] for body in rendered} == {"keep"}
    plain = [document for path in sorted((ROOT / "crds").glob("*.yaml")) for document in documents(path.read_text())]
    assert sorted(rendered, key=str) == sorted(plain, key=str)


@pytest.mark.parametrize("major", MAJORS)
@pytest.mark.parametrize("chart", [CHART, CRD_CHART], ids=lambda chart: chart.name)
def test_the_charts_lint(major: int, chart: str) -> None:
    Helm(major)("lint", "--strict", str(chart))


def test_crds_outlive_the_chart_and_are_taken_over_again(bare: Cluster, helm: Helm) -> None:
    """Uninstalled by mistake, no tier is lost; installed again, the same CRDs belong to the release."""
    helm("install", "crds", str(CRD_CHART), "--wait")
    bare.kubectl("wait", "--for=condition=Established", "crd/modeltiers.modeltiers.dev", "--timeout=30s")
    bare.kubectl("apply", "--server-side", "-f", str(ROOT / "examples" / "ladder" / "small.yaml"))
    helm("upgrade", "crds", str(CRD_CHART))
    helm("uninstall", "crds")
    assert "small" in bare.kubectl("get", "modeltiers", "-A", "-o", "name").stdout
    helm("install", "crds", str(CRD_CHART))
    helm("uninstall", "crds")


def test_the_operator_installs(bare: Cluster, helm: Helm) -> None:
    helm("install", "modeltiers", str(CHART), "-n", NAMESPACE, "--create-namespace")
    bare.kubectl("wait", "--for=condition=Established", "crd/modeltiers.modeltiers.dev", "--timeout=30s")
    assert bare.kubectl("get", "deployment", "-n", NAMESPACE, "-o", "name").stdout == (
        "deployment.apps/modeltiers-operator\n"
    )
    helm("uninstall", "modeltiers", "-n", NAMESPACE)
