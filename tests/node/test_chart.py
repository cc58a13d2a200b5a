"""The chart where pods run: two replicas of the operator behind their NetworkPolicy, and `helm test`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from e2e.cluster import Cluster, RealNode, recipes
from e2e.cluster.process import wait_until
from tests.cluster.charts import CHART, NAMESPACE, Helm

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("able")]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of its own: the other tests here have the operator from its manifests."""
    node = RealNode(name="chart", enforces_policies=True)
    with Cluster(tmp_path_factory.mktemp("chart"), name="chart", tied=True, node=node) as running:
        yield running


@pytest.mark.parametrize("major", [3, 4])
def test_it_is_installed_asked_changed_and_removed(real: Cluster, major: int) -> None:
    helm = Helm(major, real)
    made = recipes.operator()
    real.load_image(made.archive)
    registry, _, rest = made.reference.partition("/")
    repository, _, tag = rest.rpartition(":")
    values = {
        "images": {"operator": {"registry": registry, "repository": repository, "tag": tag}},
        "networkPolicy": {"apiServerPorts": [443, urlsplit(real.server).port]},
    }
    given = ("--set-json", ",".join(f"{name}={json.dumps(value)}" for name, value in values.items()))
    release = ("modeltiers", str(CHART), "-n", NAMESPACE)
    helm("install", *release, "--create-namespace", "--wait", "--timeout", "3m", *given)
    said = helm("test", "modeltiers", "-n", NAMESPACE, "--logs")
    assert "[+] cluster" in said
    assert "[+] watches" in said
    assert len(ready(real)) == 2
    before = ready(real)
    helm("upgrade", *release, "--wait", "--timeout", "3m", *given, "--set", "settings.workers=4")
    wait_until(lambda: len(ready(real)) == 2 and not ready(real) & before, "pods with the new settings", timeout=60)
    helm("uninstall", "modeltiers", "-n", NAMESPACE, "--wait", "--timeout", "2m")
    real.kubectl("delete", "crd", "-l", "app.kubernetes.io/part-of=modeltiers", "--timeout=60s")
    real.kubectl("delete", "namespace", NAMESPACE, "--timeout=120s")


def ready(cluster: Cluster) -> set[str]:
    """The operator's pods that are ready."""
    labels = ("-l", "app.kubernetes.io/name=modeltiers-operator", "-o", "json")
    found = json.loads(cluster.kubectl("get", "pods", "-n", NAMESPACE, *labels).stdout)["items"]
    names = set()
    for pod in found:
        said = {one["type"]: one["status"] for one in pod["status"].get("conditions", ())}
        if said.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]:
            names.add(pod["metadata"]["name"])
    return names
