"""The charts, by real Helm 3 and 4 on a real API server of their own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from e2e.cluster import Cluster
from e2e.cluster.kwok import NodePool
from e2e.operator_process import CRDS, OperatorProcess
from tests.cluster.charts import CHART, CRD_CHART, FIRST, MAJORS, NAMESPACE, ROOT, Helm, documents
from tests.cluster.kit import Tiers, until, without_crds

GOING = {"metadata": {"deletionTimestamp": ""}}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster without our CRDs: those of the shared one belong to kubectl."""
    with Cluster(tmp_path_factory.mktemp("charts"), name="charts", tied=True, pools=()) as made:
        yield made


@pytest.fixture(params=MAJORS, ids=lambda major: f"helm{major}")
def helm(request: pytest.FixtureRequest, bare: Cluster) -> Iterator[Helm]:
    """Helm on the bare cluster, which is bare again afterwards."""
    yield Helm(request.param, bare)
    swept(bare)


@pytest.fixture
def newest(bare: Cluster) -> Iterator[Helm]:
    """Helm 4 alone, for what does not depend on it."""
    yield Helm(4, bare)
    swept(bare)


def swept(cluster: Cluster) -> None:
    """Take away everything that a release may have left; its own record goes with its namespace."""
    cluster.kubectl("delete", "clusterrole,clusterrolebinding", "-l", "app.kubernetes.io/part-of=modeltiers")
    without_crds(cluster, *CRDS)
    cluster.kubectl("delete", "namespace", NAMESPACE, "elsewhere", "poor", "--ignore-not-found", "--timeout=90s")


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
    bare.wait_established("modeltiers.modeltiers.dev")
    bare.kubectl("apply", "--server-side", "-f", str(ROOT / "examples" / "ladder" / "small.yaml"))
    helm("upgrade", "crds", str(CRD_CHART))
    helm("uninstall", "crds")
    assert "small" in bare.kubectl("get", "modeltiers", "-A", "-o", "name").stdout
    helm("install", "crds", str(CRD_CHART))
    helm("uninstall", "crds")


class Installed:
    """A release of the operator's chart, and the operator as it would run in its pods."""

    def __init__(self, cluster: Cluster, home: Path) -> None:
        self.cluster, self._home, self._starts = cluster, home, 0

    def operator(self) -> OperatorProcess:
        """The operator under the release's own ServiceAccount, with the release's own settings."""
        self._starts += 1
        text = json.loads(self.get("configmap", "modeltiers-settings"))["data"]["settings.yaml"]
        name = f"operator-{self._starts}"
        return OperatorProcess(self.cluster, self._home, name=name, settings=yaml.safe_load(text), namespace=NAMESPACE)

    def get(self, kind: str, name: str) -> str:
        """An object of the release, as JSON."""
        return self.cluster.kubectl("get", kind, name, "-n", NAMESPACE, "-o", "json").stdout

    def left(self) -> str:
        """What there is of the release."""
        kinds = "deployment,service,configmap,serviceaccount,role,rolebinding,pdb,networkpolicy,pod"
        ours = "app.kubernetes.io/part-of=modeltiers"
        inside = self.cluster.kubectl("get", kinds, "-n", NAMESPACE, "-l", ours, "-o", "name").stdout
        around = self.cluster.kubectl("get", "clusterrole,clusterrolebinding", "-l", ours, "-o", "name").stdout
        return inside + around


@pytest.fixture
def installed(bare: Cluster, tmp_path: Path) -> Installed:
    """Words for a release on the bare cluster."""
    return Installed(bare, tmp_path)


@pytest.fixture
def team(bare: Cluster) -> Iterator[Tiers]:
    """A namespace of tiers, with accelerators to run them on; both go afterwards."""
    pool = NodePool("h100", 1)
    bare.add_pool(pool)
    yield Tiers(bare, bare.create_namespace("team"))
    bare.kubectl("delete", "namespace", "team", "--timeout=180s")
    for node in json.loads(bare.kubectl("get", "nodes", "-o", "json").stdout)["items"]:
        bare.remove_node(node["metadata"]["name"])


def pods(tiers: Tiers) -> str:
    """What tells one pod of the namespace from the next."""
    return tiers.kubectl("get", "pods", "-o", "jsonpath={.items[*].metadata.uid}")


def established(cluster: Cluster) -> None:
    cluster.wait_established("modeltiers.modeltiers.dev")


def test_from_the_first_chart_to_this_one_and_back_no_pod_of_a_tier_restarts(
    helm: Helm, installed: Installed, team: Tiers
) -> None:
    """Install, upgrade, roll back, uninstall with tiers first and with the operator first."""
    helm("install", "modeltiers", str(FIRST), "-n", NAMESPACE, "--create-namespace")
    established(team.cluster)
    with installed.operator():
        team.apply("small")
        team.ready("small", timeout=40)
    before = pods(team)

    helm("upgrade", "modeltiers", str(CHART), "-n", NAMESPACE)
    assert json.loads(installed.get("deployment", "modeltiers-operator"))["spec"]["replicas"] == 2
    with installed.operator():
        team.reasoned("small", "UpdateAvailable", "True", "NewerAvailable", timeout=40)
        team.ready("small")
    assert pods(team) == before

    helm("rollback", "modeltiers", "1", "-n", NAMESPACE)
    assert json.loads(installed.get("deployment", "modeltiers-operator"))["spec"]["replicas"] == 1
    with installed.operator():
        until(lambda: team.condition("small", "UpdateAvailable").get("status") != "True", "no update", timeout=40)
        team.ready("small")
    assert pods(team) == before

    # The operator first: what runs goes on running, and everything can be deleted without it.
    helm("uninstall", "modeltiers", "-n", NAMESPACE)
    assert installed.left() == ""
    assert pods(team) == before
    team.kubectl("delete", "modeltier", "small", "--timeout=180s")
    until(lambda: not pods(team), "its pods gone", timeout=60)

    # Installed again it takes the CRDs over; then the tiers first.
    helm("install", "modeltiers", str(CHART), "-n", NAMESPACE)
    with installed.operator():
        team.apply("small")
        team.ready("small", timeout=40)
        team.kubectl("delete", "modeltier", "--all", "--timeout=180s")
        until(lambda: not pods(team), "its pods gone", timeout=60)
    helm("uninstall", "modeltiers", "-n", NAMESPACE)
    assert installed.left() == ""
    without_crds(team.cluster, *CRDS)


def test_a_release_of_helm_3_goes_on_under_helm_4(bare: Cluster, newest: Helm, installed: Installed) -> None:
    """Who changes Helm changes nothing else; values are kept by the one flag that also knows of new ones."""
    before = Helm(3, bare)
    first = ("--set", "images.router.tag=mine", "--set", "operator.resources.limits.memory=1Gi")
    before("install", "modeltiers", str(FIRST), "-n", NAMESPACE, "--create-namespace", *first)
    said = newest("upgrade", "modeltiers", str(CHART), "-n", NAMESPACE, "--reuse-values", refused=True)
    assert "missing properties" in said
    assert "networkPolicy" in said
    newest("upgrade", "modeltiers", str(CHART), "-n", NAMESPACE, "--reset-then-reuse-values")
    text = json.loads(installed.get("configmap", "modeltiers-settings"))["data"]["settings.yaml"]
    assert yaml.safe_load(text)["router"]["image"] == "localhost/modeltiers/router:mine"
    newest("rollback", "modeltiers", "1", "-n", NAMESPACE)
    spec = json.loads(installed.get("deployment", "modeltiers-operator"))["spec"]
    assert spec["replicas"] == 1
    assert spec["template"]["spec"]["containers"][0]["resources"]["limits"] == {"memory": "1Gi"}
    newest("uninstall", "modeltiers", "-n", NAMESPACE)
    assert installed.left() == ""


def test_namespaced_it_works_with_roles_alone(helm: Helm, installed: Installed, team: Tiers) -> None:
    watched = f"settings.watchNamespaces={{{team.namespace}}}"
    helm("install", "modeltiers", str(CHART), "-n", NAMESPACE, "--create-namespace", "--set", watched)
    established(team.cluster)
    assert "cluster" not in installed.left()
    with installed.operator():
        team.apply("small")
        assert team.ready("small", timeout=40)["sizing"]["freeGpus"] == "unknown"
    helm("uninstall", "modeltiers", "-n", NAMESPACE)
    assert installed.left() == ""


def test_every_pod_of_the_chart_is_admitted_where_pod_security_is_restricted(bare: Cluster) -> None:
    """The API server judges them, warnings included."""
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    space = bare.create_namespace("restricted", labels)
    try:
        for body in Helm(4).render("--set", "crds.enabled=false"):
            if body["kind"] in ("Deployment", "Pod"):
                body["metadata"]["namespace"] = space
                done = bare.kubectl("create", "--dry-run=server", "-f", "-", input=json.dumps(body))
                assert "violate" not in done.stderr
    finally:
        bare.delete_namespace(space)


def test_kubectl_applies_the_manifests(bare: Cluster) -> None:
    """What the chart makes of its defaults, without Helm."""
    bare.kubectl("apply", "-k", str(ROOT / "manifests"))
    try:
        established(bare)
        found = bare.kubectl(
            "get", "deployment,pdb,networkpolicy,service", "-n", NAMESPACE, "-o", "name"
        ).stdout.split()
        assert len(found) == 4
        assert "unchanged" in bare.kubectl("apply", "-k", str(ROOT / "manifests")).stdout
    finally:
        bare.kubectl("delete", "-k", str(ROOT / "manifests"), "--wait=false")
        without_crds(bare, *CRDS)
        bare.kubectl("delete", "-k", str(ROOT / "manifests"), "--ignore-not-found", "--timeout=180s")


# --- what goes wrong at an install ------------------------------------------------------------------------------------


def test_without_its_crds_the_operator_says_so_waits_and_goes_on(helm: Helm, installed: Installed, team: Tiers) -> None:
    helm("install", "modeltiers", str(CHART), "-n", NAMESPACE, "--create-namespace", "--set", "crds.enabled=false")
    operator = installed.operator()
    with contextlib.closing(operator.start(wait=False)):
        said_not_served(operator, "ModelTier, RoutingPolicy, DistillJob")
        assert "modeltiers-crds" in operator.get("/readyz")[1]
        helm("install", "crds", str(CRD_CHART), "-n", NAMESPACE)
        operator.wait_ready(60)
        team.apply("small")
        team.ready("small", timeout=40)
    said = [
        line for line in operator.log.read_text().splitlines() if "ModelTier, RoutingPolicy, DistillJob not" in line
    ]
    assert len(said) == 1  # not at every look


def said_not_served(operator: OperatorProcess, kinds: str) -> None:
    """Wait until the operator says that these kinds are missing, while it lives."""
    until(lambda: f"{kinds} not served" in operator.get("/readyz")[1], operator.tail, timeout=60)
    assert operator.get("/healthz")[0] == 200  # a restart would not help


def test_crds_that_are_deleted_under_the_operator(newest: Helm, installed: Installed, bare: Cluster) -> None:
    """It ends, and its new start says what is missing, for as long as that is so; then it has it, by itself."""
    newest("install", "modeltiers", str(CHART), "-n", NAMESPACE, "--create-namespace")
    established(bare)
    with contextlib.closing(installed.operator().start()) as first:
        without_crds(bare, "routingpolicies.modeltiers.dev")
        until(lambda: first.process.poll() is not None, first.tail, timeout=150)  # a watch is begun anew every 100 s
        assert first.process.returncode == 0
        assert "routingpolicies are not served any more" in first.tail(10)
    with contextlib.closing(installed.operator().start(wait=False)) as second:
        said_not_served(second, "RoutingPolicy")
        newest("upgrade", "modeltiers", str(CHART), "-n", NAMESPACE)
        until(lambda: second.process.poll() is not None, second.tail, timeout=90)
        assert second.process.returncode == 0
        assert "RoutingPolicy served now" in second.tail(10)
    with installed.operator() as third:
        assert third.get("/readyz")[0] == 200


def test_rights_that_are_gone_are_named(newest: Helm, installed: Installed, bare: Cluster) -> None:
    """Half of an install was removed: the operator says which right it misses, and needs no restart when it is back."""
    newest("install", "modeltiers", str(CHART), "-n", NAMESPACE, "--create-namespace")
    established(bare)
    bare.kubectl("delete", "clusterrolebinding", "modeltiers-operator")
    operator = installed.operator()
    with contextlib.closing(operator.start(wait=False)):
        until(lambda: "cannot list what there is" in operator.get("/readyz")[1], operator.tail, timeout=60)
        assert "forbidden" in operator.get("/readyz")[1].lower()
        newest("upgrade", "modeltiers", str(CHART), "-n", NAMESPACE)
        operator.wait_ready(60)


@pytest.mark.slow
def test_rights_that_are_taken_under_the_operator_end_it(newest: Helm, installed: Installed, bare: Cluster) -> None:
    """A watch that fails for good ends the program at once, and the lease is given back: nobody leads blind."""
    newest("install", "modeltiers", str(CHART), "-n", NAMESPACE, "--create-namespace")
    established(bare)
    with contextlib.closing(installed.operator().start()) as operator:
        bare.kubectl("delete", "clusterrolebinding", "modeltiers-operator")
        # A watch is begun anew every 100 s, and a refusal is asked about again for a minute.
        until(lambda: "a watch failed" in operator.log.read_text(), operator.tail, timeout=200)
        until(lambda: operator.process.poll() is not None, operator.tail, timeout=5)
        assert operator.process.returncode == 0
        said = operator.log.read_text()
        assert "cannot watch resource" in said
        assert "gave the lease back" in said


def test_another_release_is_refused_and_may_take_over(helm: Helm) -> None:
    """CRDs of a release that is gone belong to its name: Helm says whose they are, and how to take them."""
    helm("install", "old", str(CHART), "-n", NAMESPACE, "--create-namespace")
    helm("uninstall", "old", "-n", NAMESPACE)
    said = helm("install", "new", str(CHART), "-n", NAMESPACE, refused=True)
    assert "modeltiers.dev" in said
    assert "invalid ownership metadata" in said
    helm("install", "new", str(CHART), "-n", NAMESPACE, "--take-ownership")


def test_a_second_operator_for_the_whole_cluster_is_refused(newest: Helm) -> None:
    newest("install", "one", str(CHART), "-n", NAMESPACE, "--create-namespace")
    other = ("-n", "elsewhere", "--create-namespace", "--set", "crds.enabled=false")
    said = newest("install", "two", str(CHART), *other, refused=True)
    assert 'ClusterRole "modeltiers-operator"' in said


def test_a_cluster_without_accelerators(newest: Helm, installed: Installed, bare: Cluster) -> None:
    """The tier says what no node has; nothing is stuck."""
    newest("install", "modeltiers", str(CHART), "-n", NAMESPACE, "--create-namespace")
    established(bare)
    tiers = Tiers(bare, bare.create_namespace("poor"))
    with installed.operator():
        tiers.apply("small")
        message = tiers.reasoned("small", "Ready", "Unknown", "Unschedulable", timeout=40)
        assert "no nodes" in message


def test_without_the_kinds_of_prometheus_it_says_what_is_left_out(helm: Helm, bare: Cluster) -> None:
    notes = helm("install", "modeltiers", str(CHART), "-n", NAMESPACE, "--create-namespace", "--set", "crds.keep=false")
    assert "does not serve Prometheus' kinds" in notes
    assert "crds.keep is false" in notes
    assert "which no registry has" in notes
    helm("uninstall", "modeltiers", "-n", NAMESPACE)
    stay = [crd for crd in CRDS if "deletionTimestamp" not in (bare.objects.get("crd", crd) or GOING)["metadata"]]
    assert stay == []
    without_crds(bare, *CRDS)
    always = ("--set", "monitoring.serviceMonitor=Always")
    said = helm("install", "modeltiers", str(CHART), "-n", NAMESPACE, *always, refused=True)
    assert "ServiceMonitor" in said
