"""What the chart renders, case by case, by real Helm 3 and 4: no cluster is asked."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import pytest
import yaml

from e2e.cluster import binaries
from modeltiers.api.settings import EngineDefaults, Settings
from modeltiers.api.values import Values
from modeltiers.cli.images import images_of, merged
from modeltiers.kube.access import rbac_manifests
from tests.cluster.charts import CHART, FIRST, MAJORS, NAMESPACE, ROOT, Helm, Manifest, documents, one

ABSENT = object()
DIGEST = "sha256:" + "0" * 64
PROMETHEUS = [f"monitoring.coreos.com/v1/{kind}" for kind in ("ServiceMonitor", "PodMonitor", "PrometheusRule")]
GRAFANA = "grafana.integreatly.org/v1beta1/GrafanaDashboard"

POD = "Deployment/modeltiers-operator spec.template.spec"
CONTAINER = f"{POD}.containers.0"
LABELS = "Deployment/modeltiers-operator spec.template.metadata.labels"
SETTINGS = "ConfigMap/modeltiers-settings data"
NETWORK = "NetworkPolicy/modeltiers-operator spec"

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # name: (values, what is at a path of an object)
    "two replicas": ({}, {"Deployment/modeltiers-operator spec.replicas": 2}),
    "one replica": (
        {"operator.replicas": 1},
        {"Deployment/modeltiers-operator spec.replicas": 1, "PodDisruptionBudget/modeltiers-operator": ABSENT},
    ),
    "no replica": ({"operator.replicas": 0}, {"Deployment/modeltiers-operator spec.replicas": 0}),
    "a budget": ({}, {"PodDisruptionBudget/modeltiers-operator spec.maxUnavailable": 1}),
    "a budget lets broken pods go": (
        {},
        {"PodDisruptionBudget/modeltiers-operator spec.unhealthyPodEvictionPolicy": "AlwaysAllow"},
    ),
    "no budget": ({"operator.disruptionBudget": False}, {"PodDisruptionBudget/modeltiers-operator": ABSENT}),
    "spread preferred": ({}, {f"{POD}.topologySpreadConstraints.0.whenUnsatisfiable": "ScheduleAnyway"}),
    "spread required": (
        {"operator.spread": "Require"},
        {f"{POD}.topologySpreadConstraints.0.whenUnsatisfiable": "DoNotSchedule"},
    ),
    "no spread": ({"operator.spread": "Off"}, {f"{POD}.topologySpreadConstraints": ABSENT}),
    "resources": (
        {"operator.resources.requests.memory": "1Gi"},
        {f"{CONTAINER}.resources.requests": {"cpu": "100m", "memory": "1Gi"}},
    ),
    "limits": ({"operator.resources.limits.cpu": "2"}, {f"{CONTAINER}.resources.limits.cpu": "2"}),
    "an environment variable": (
        {"operator.env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]},
        {f"{CONTAINER}.env.5": {"name": "HTTPS_PROXY", "value": "http://proxy:3128"}},
    ),
    "an environment variable of a Secret": (
        {"operator.env": [{"name": "TOKEN", "secretKeyRef": {"name": "a", "key": "b"}}]},
        {f"{CONTAINER}.env.5": {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}},
    ),
    "a number is no environment variable's value but a text": (
        {"operator.env": [{"name": "A", "value": "1"}]},
        {f"{CONTAINER}.env.5.value": "1"},
    ),
    "labels of pods": (
        {"operator.podLabels": {"team": "platform"}},
        {f"{LABELS}.team": "platform"},
    ),
    "our own labels of pods win": (
        {"operator.podLabels": {"app.kubernetes.io/name": "x"}},
        {f"{LABELS}.app\\.kubernetes\\.io/name": "modeltiers-operator"},
    ),
    "annotations of pods": (
        {"operator.podAnnotations": {"a.example/b": "c"}},
        {"Deployment/modeltiers-operator spec.template.metadata.annotations.a\\.example/b": "c"},
    ),
    "nodes": ({"operator.nodeSelector": {"pool": "system"}}, {f"{POD}.nodeSelector": {"pool": "system"}}),
    "tolerations": (
        {"operator.tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}]},
        {f"{POD}.tolerations.0": {"key": "a", "operator": "Exists", "effect": "NoSchedule"}},
    ),
    "a toleration for a while": (
        {"operator.tolerations": [{"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}]},
        {f"{POD}.tolerations.0.tolerationSeconds": 30},
    ),
    "affinity": (
        {"operator.affinity": {"podAntiAffinity": {"x": [1]}}},
        {f"{POD}.affinity": {"podAntiAffinity": {"x": [1]}}},
    ),
    "priority": ({"operator.priorityClassName": "high"}, {f"{POD}.priorityClassName": "high"}),
    "no priority": ({}, {f"{POD}.priorityClassName": ABSENT}),
    # images
    "the tag is the app's version": ({}, {f"{CONTAINER}.image": "localhost/modeltiers/operator:0.2.0"}),
    "a tag": ({"images.operator.tag": "1"}, {f"{CONTAINER}.image": "localhost/modeltiers/operator:1"}),
    "a digest": (
        {"images.operator.digest": DIGEST, "images.operator.tag": "1"},
        {f"{CONTAINER}.image": f"localhost/modeltiers/operator@{DIGEST}"},
    ),
    "a registry with a port": (
        {"images.operator.registry": "r.example:5000"},
        {f"{CONTAINER}.image": "r.example:5000/modeltiers/operator:0.2.0"},
    ),
    "no registry": ({"images.operator.registry": ""}, {f"{CONTAINER}.image": "modeltiers/operator:0.2.0"}),
    "a mirror is for all": (
        {"images.registry": "r.example/mirror"},
        {
            f"{CONTAINER}.image": "r.example/mirror/modeltiers/operator:0.2.0",
            f"{SETTINGS} router.image": "r.example/mirror/modeltiers/router:0.2.0",
            f"{SETTINGS} distill.image": "r.example/mirror/modeltiers/distill:0.2.0",
            f"{SETTINGS} distill.trainImage": "r.example/mirror/modeltiers/train:0.2.0",
            f"{SETTINGS} engine.image": "r.example/mirror/vllm/vllm-openai:v0.32.0",
            "Pod/modeltiers-operator-test spec.containers.0.image": "r.example/mirror/modeltiers/operator:0.2.0",
        },
    ),
    "an engine by digest": (
        {"images.engine.digest": DIGEST},
        {f"{SETTINGS} engine.image": f"docker.io/vllm/vllm-openai@{DIGEST}"},
    ),
    "no router": ({"images.router.repository": ""}, {f"{SETTINGS} router": ABSENT}),
    "no training": ({"images.train.repository": ""}, {f"{SETTINGS} distill.trainImage": ABSENT}),
    "pull secrets": (
        {"images.pullSecrets": ["a", "b"]},
        {
            f"{POD}.imagePullSecrets": [{"name": "a"}, {"name": "b"}],
            "Pod/modeltiers-operator-test spec.imagePullSecrets": [{"name": "a"}, {"name": "b"}],
            f"{SETTINGS} engine.pullSecrets": ["a", "b"],
        },
    ),
    "no pull secrets": ({}, {f"{POD}.imagePullSecrets": ABSENT, f"{SETTINGS} engine.pullSecrets": ABSENT}),
    "when to pull": ({"images.pullPolicy": "Always"}, {f"{CONTAINER}.imagePullPolicy": "Always"}),
    # settings
    "settings win over the block of images": (
        {"settings.engine.image": "r.example/vllm:1", "settings.router.image": "r.example/router:1"},
        {f"{SETTINGS} engine.image": "r.example/vllm:1", f"{SETTINGS} router.image": "r.example/router:1"},
    ),
    "settings as they are": (
        {"settings.limits.maxGpusPerReplica": 16, "settings.gateways.public": {"name": "edge"}},
        {f"{SETTINGS} limits": {"maxGpusPerReplica": 16}, f"{SETTINGS} gateways.public.name": "edge"},
    ),
    "a large number stays whole": (
        {"settings.engine.runAsUser": 2_000_000_000},
        {f"{SETTINGS} engine.runAsUser": 2_000_000_000},
    ),
    "a public key of several lines": (
        {"settings.distill.publicKeys": ["-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"]},
        {f"{SETTINGS} distill.publicKeys.0": "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"},
    ),
    "a text that looks like a template": (
        {"settings.engineProfiles.a.env": [{"name": "A", "value": "{{ .Values }}"}]},
        {f"{SETTINGS} engineProfiles.a.env.0.value": "{{ .Values }}"},
    ),
    # where it works
    "the whole cluster": (
        {},
        {
            "ClusterRole/modeltiers-operator roleRef": ABSENT,
            "ClusterRoleBinding/modeltiers-operator subjects.0.namespace": NAMESPACE,
            "Role/modeltiers-operator-tiers": ABSENT,
        },
    ),
    "one namespace": (
        {"settings.watchNamespaces": ["team-a"]},
        {
            "ClusterRole/modeltiers-operator": ABSENT,
            "ClusterRoleBinding/modeltiers-operator": ABSENT,
            "Role/modeltiers-operator-tiers metadata.namespace": "team-a",
            "RoleBinding/modeltiers-operator-tiers subjects.0.namespace": NAMESPACE,
            f"{SETTINGS} watchNamespaces": ["team-a"],
        },
    ),
    "a token for the operator alone": (
        {},
        {
            "Pod/modeltiers-operator-test spec.automountServiceAccountToken": False,
            f"{POD}.serviceAccountName": "modeltiers-operator",
        },
    ),
    # networks
    "a network policy": ({}, {f"{NETWORK}.policyTypes": ["Ingress", "Egress"]}),
    "no network policy": ({"networkPolicy.enabled": False}, {"NetworkPolicy/modeltiers-operator": ABSENT}),
    "the test is let in, and nobody else": (
        {},
        {
            f"{NETWORK}.ingress.0.from": [
                {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "modeltiers-operator-test"}}}
            ]
        },
    ),
    "Prometheus is let in": (
        {"settings.network.monitoring": [{"namespace": "monitoring", "podLabels": {"app": "prometheus"}}]},
        {
            f"{NETWORK}.ingress.0.from.1.podSelector.matchLabels": {"app": "prometheus"},
            f"{NETWORK}.ingress.0.from.1.namespaceSelector.matchLabels.kubernetes\\.io/metadata\\.name": "monitoring",
        },
    ),
    "ports of API servers": (
        {"networkPolicy.apiServerPorts": [16443]},
        {f"{NETWORK}.egress.1.ports": [{"port": 16443, "protocol": "TCP"}]},
    ),
    "no way out but to what it needs": ({}, {f"{NETWORK}.egress.3": ABSENT}),
    "external APIs may be looked at": (
        {"settings.externalHosts": [{"host": "api.openai.com"}]},
        {
            f"{NETWORK}.egress.3.to.0.ipBlock.except.0": "169.254.0.0/16",
            f"{NETWORK}.egress.3.to.2": ABSENT,
        },
    ),
    "and Services of the cluster": (
        {"settings.externalHosts": [{"host": "large.team.svc", "private": True}]},
        {f"{NETWORK}.egress.3.to.2": {"namespaceSelector": {}}},
    ),
    # monitoring
    "no monitoring without its kinds": (
        {},
        {"ServiceMonitor/modeltiers-operator": ABSENT, "PodMonitor/modeltiers-routers": ABSENT},
    ),
    "monitoring when its kinds are there": (
        {"--api-versions": PROMETHEUS},
        {
            "ServiceMonitor/modeltiers-operator spec.endpoints.0.path": "/metrics",
            "ServiceMonitor/modeltiers-operator spec.endpoints.0.honorLabels": True,
            "PodMonitor/modeltiers-routers spec.podMetricsEndpoints.0.path": "/metrics",
            "PodMonitor/modeltiers-routers spec.namespaceSelector": {"any": True},
            "PodMonitor/modeltiers-engines spec.podMetricsEndpoints.0.path": "/engine/metrics",
        },
    ),
    "monitoring all the same": (
        {"monitoring.serviceMonitor": "Always"},
        {"ServiceMonitor/modeltiers-operator kind": "ServiceMonitor", "PodMonitor/modeltiers-routers": ABSENT},
    ),
    "monitoring never": (
        {"--api-versions": PROMETHEUS, "monitoring.serviceMonitor": "Never", "monitoring.podMonitor": "Never"},
        {"ServiceMonitor/modeltiers-operator": ABSENT, "PodMonitor/modeltiers-engines": ABSENT},
    ),
    "monitors of the namespaces that it works in": (
        {"monitoring.podMonitor": "Always", "settings.watchNamespaces": ["b", "a"]},
        {"PodMonitor/modeltiers-routers spec.namespaceSelector": {"matchNames": ["a", "b"]}},
    ),
    "labels that a Prometheus looks for": (
        {"monitoring.serviceMonitor": "Always", "monitoring.labels": {"release": "kps"}},
        {"ServiceMonitor/modeltiers-operator metadata.labels.release": "kps"},
    ),
    "how often": (
        {"monitoring.serviceMonitor": "Always", "monitoring.interval": "1m"},
        {"ServiceMonitor/modeltiers-operator spec.endpoints.0.interval": "1m"},
    ),
    "alerts and dashboards where they are known": (
        {"--api-versions": [*PROMETHEUS, GRAFANA]},
        {
            "PrometheusRule/modeltiers-tiers kind": "PrometheusRule",
            "ConfigMap/modeltiers-dashboard-tiers metadata.labels.grafana_dashboard": "1",
            "GrafanaDashboard/modeltiers-tiers spec.allowCrossNamespaceImport": True,
        },
    ),
    "no alerts": (
        {"--api-versions": PROMETHEUS, "monitoring.prometheusRule": "Never"},
        {"PrometheusRule/modeltiers-tiers": ABSENT},
    ),
    "dashboards alone": (
        {"monitoring.dashboards": "Always"},
        {"ConfigMap/modeltiers-dashboard-tiers kind": "ConfigMap", "PrometheusRule/modeltiers-tiers": ABSENT},
    ),
    "dashboards as another Grafana looks for them": (
        {
            "monitoring.dashboards": "Always",
            "monitoring.dashboardLabels": {"dash": "yes"},
            "monitoring.dashboardAnnotations": {"grafana_folder": "AI"},
        },
        {
            "ConfigMap/modeltiers-dashboard-tiers metadata.labels.dash": "yes",
            "ConfigMap/modeltiers-dashboard-tiers metadata.annotations": {"grafana_folder": "AI"},
        },
    ),
    # CRDs
    "CRDs that are kept": (
        {"crds.enabled": True},
        {"CustomResourceDefinition/modeltiers.modeltiers.dev metadata.annotations.helm\\.sh/resource-policy": "keep"},
    ),
    "CRDs that go": (
        {"crds.enabled": True, "crds.keep": False},
        {"CustomResourceDefinition/modeltiers.modeltiers.dev metadata.annotations": ABSENT},
    ),
    "no CRDs": ({"crds.enabled": False}, {"CustomResourceDefinition/modeltiers.modeltiers.dev": ABSENT}),
    # whole
    "a Service that shows what is not ready": (
        {},
        {"Service/modeltiers-operator spec.publishNotReadyAddresses": True},
    ),
    "values of a parent chart": (
        {"global.anything": "x"},
        {"Deployment/modeltiers-operator spec.replicas": 2},
    ),
}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    # name: (values, what the error names)
    "a typo at the top": ({"oprator.replicas": 2}, "'oprator' not allowed"),
    "a typo inside": ({"operator.replica": 2}, "at '/operator': additional properties 'replica' not allowed"),
    "a typo in settings": (
        {"settings.engine.imag": "x"},
        "at '/settings/engine': additional properties 'imag' not allowed",
    ),
    "a typo in a list": (
        {"settings.network.monitoring": [{"podlabels": {}}]},
        "at '/settings/network/monitoring/0': additional properties 'podlabels' not allowed",
    ),
    "a text for a number": ({"operator.replicas": "two"}, "at '/operator/replicas': got string, want integer"),
    "a number for a text": ({"images.operator.tag": 1.5}, "at '/images/operator/tag': got number, want string"),
    "too many": ({"operator.replicas": 100}, "at '/operator/replicas': maximum"),
    "a word for a switch": ({"crds.keep": "no"}, "at '/crds/keep': got string, want boolean"),
    "no such choice": ({"monitoring.podMonitor": "Sometimes"}, "at '/monitoring/podMonitor': value must be one of"),
    "a digest that is none": ({"images.router.digest": "sha256:abc"}, "at '/images/router/digest'"),
    "a tag in the repository": ({"images.router.repository": "a/b:1"}, "at '/images/router/repository'"),
    "a namespace that cannot be": ({"settings.watchNamespaces": ["Team_A"]}, "at '/settings/watchNamespaces/0'"),
    "a quantity that is none": (
        {"operator.resources.limits.memory": "512 MB"},
        "'/operator/resources/limits/memory'",
    ),
    "a label that cannot be": ({"operator.podLabels": {"a": "b c"}}, "at '/operator/podLabels/a'"),
    "no operator": (
        {"images.operator.repository": ""},
        "images.operator.repository is empty: name the operator's image",
    ),
}


# --- rendering --------------------------------------------------------------------------------------------------------


def values(given: Mapping[str, Any]) -> tuple[list[str], Manifest]:
    """The arguments for Helm and the values, from keys with dots; CRDs are left out unless they are asked for."""
    found: Manifest = {}
    arguments: list[str] = []
    for key, value in {"crds.enabled": False, **given}.items():
        if key.startswith("--"):
            arguments += [part for one in value for part in (key, one)]
            continue
        *above, last = key.split(".")
        place = found
        for name in above:
            place = place.setdefault(name, {})
        place[last] = value
    return arguments, found


def template(major: int, given: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run `helm template` with these values."""
    arguments, found = values(given)
    command = [binaries.helm(major), "template", "modeltiers", CHART, "-n", NAMESPACE, "-f", "-", *arguments]
    return subprocess.run(command, input=json.dumps(found), capture_output=True, text=True, check=False, timeout=120)


@cache
def rendered() -> dict[tuple[str, int], subprocess.CompletedProcess[str]]:
    """Every case by every Helm: they do not depend on each other, so they run side by side."""
    wanted = [(name, major) for name in (*CASES, *REFUSED) for major in MAJORS]
    given = {name: case[0] for name, case in (*CASES.items(), *REFUSED.items())}
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(wanted, pool.map(lambda which: template(which[1], given[which[0]]), wanted), strict=True))


def lines(text: str) -> list[str]:
    """The lines of a rendered text; the two Helms end documents with one empty line more or less."""
    return [line for line in text.splitlines() if line]


def look(objects: list[Manifest], where: str) -> Any:
    """What is at `Kind/name path.to.it`, or ABSENT; the settings are looked into."""
    which, _, path = where.partition(" ")
    kind, _, name = which.partition("/")
    found = [body for body in objects if (body["kind"], body["metadata"]["name"]) == (kind, name)]
    if not found:
        return ABSENT
    if where.startswith(SETTINGS):
        found, path = [yaml.safe_load(found[0]["data"]["settings.yaml"])], path.partition(" ")[2]
    place: Any = found[0]
    for part in re.split(r"(?<!\\)\.", path) if path else ():
        key: Any = int(part) if isinstance(place, list) else part.replace("\\.", ".")
        if (key >= len(place)) if isinstance(place, list) else key not in place:
            return ABSENT
        place = place[key]
    return place


@pytest.mark.parametrize("name", CASES)
def test_a_case_renders_alike_by_both_helms_and_as_said(name: str) -> None:
    first, second = (rendered()[name, major] for major in MAJORS)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert lines(first.stdout) == lines(second.stdout)
    objects = documents(second.stdout)
    for where, expected in CASES[name][1].items():
        assert look(objects, where) == expected, where


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("major", MAJORS)
def test_a_wrong_value_is_refused_by_its_name(name: str, major: int) -> None:
    done = rendered()[name, major]
    assert done.returncode
    assert REFUSED[name][1] in done.stderr


# --- the whole --------------------------------------------------------------------------------------------------------


def test_there_are_enough_cases() -> None:
    assert len(CASES) + len(REFUSED) >= 60


@pytest.mark.parametrize("major", MAJORS)
def test_a_render_is_the_same_every_time(major: int) -> None:
    everything = {"crds.enabled": True, "--api-versions": [*PROMETHEUS, GRAFANA]}
    assert template(major, everything).stdout == template(major, everything).stdout


def test_what_the_cluster_serves_changes_monitoring_alone() -> None:
    without = documents(template(4, {}).stdout)
    found = documents(template(4, {"--api-versions": [*PROMETHEUS, GRAFANA]}).stdout)
    assert [body for body in found if body in without] == without
    more = {body["kind"] for body in found if body not in without}
    assert more <= {"ServiceMonitor", "PodMonitor", "PrometheusRule", "ConfigMap", "GrafanaDashboard"}


def test_nothing_that_differs_from_time_to_time_is_in_the_templates() -> None:
    """Argo CD renders over and over, and without a cluster to look into."""
    text = "".join(path.read_text() for path in (CHART / "templates").rglob("*.*") if path.name != "NOTES.txt")
    for word in ("lookup", "randAlpha", "randNumeric", "randAscii", "randBytes", "uuidv4", "genCA", "genSelfSigned"):
        assert not re.search(rf"\b{word}", text), word
    assert not re.search(r"\{\{[^}]*\b(now|htpasswd|bcrypt|derivePassword|getHostByName)\b", text)


def test_dashboards_and_alerts_are_the_files_as_they_are() -> None:
    objects = documents(template(4, {"--api-versions": [*PROMETHEUS, GRAFANA]}).stdout)
    for path in (CHART / "files" / "dashboards").glob("*.json"):
        whole = json.loads(path.read_text())
        config = one(objects, "ConfigMap", f"modeltiers-dashboard-{path.stem}")
        assert json.loads(config["data"][path.name]) == whole
        assert json.loads(one(objects, "GrafanaDashboard", f"modeltiers-{path.stem}")["spec"]["json"]) == whole
    for path in (CHART / "files" / "rules").glob("*.yaml"):
        [rules] = documents(path.read_text())
        assert one(objects, "PrometheusRule", f"modeltiers-{path.stem}")["spec"] == rules


def bare(body: Manifest) -> Manifest:
    """An object without the labels that say who installed it."""
    found: Manifest = json.loads(json.dumps(body))
    for metadata in (found["metadata"], found["spec"].get("template", {}).get("metadata", {})):
        metadata.pop("labels", None)
        metadata.pop("annotations", None)
    return found


def test_the_chart_and_the_manifests_are_one_thing() -> None:
    """Who applies manifests gets what the chart makes of its defaults."""
    given = {f"images.{name}.repository": "" for name in ("engine", "distill", "train")}
    given |= {f"images.{name}.tag": "dev" for name in ("operator", "router")}
    chart = documents(template(4, given).stdout)
    plain = documents((ROOT / "manifests" / "operator.yaml").read_text())
    for body in plain:
        found = one(chart, body["kind"], body["metadata"]["name"])
        if body["kind"] == "ConfigMap":
            assert {name: yaml.safe_load(text) for name, text in found["data"].items()} == {
                name: yaml.safe_load(text) for name, text in body["data"].items()
            }
        else:
            assert bare(found) == bare(body)


@pytest.mark.parametrize("watched", [[], ["b", "a", "b"]], ids=["cluster", "namespaced"])
def test_the_rights_are_those_that_the_code_declares(watched: list[str]) -> None:
    chart = documents(template(4, {"settings.watchNamespaces": watched}).stdout)
    kinds = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")

    def seen(objects: list[Manifest]) -> list[Manifest]:
        found = [json.loads(json.dumps(body)) for body in objects if body["kind"] in kinds]
        for body in found:
            del body["metadata"]["labels"]
        return sorted(found, key=json.dumps)

    assert seen(chart) == seen(rbac_manifests(watched))


def test_defaults_are_those_of_the_model() -> None:
    text = yaml.safe_load((CHART / "values.yaml").read_text())
    assert Values.model_validate(text) == Values()
    engine = look(documents(template(4, {}).stdout), f"{SETTINGS} engine.image")
    assert engine == EngineDefaults().image


def test_the_example_of_settings_is_taken() -> None:
    """As values, and what comes out as the operator's file is read by the operator's model."""
    settings = yaml.safe_load((ROOT / "examples" / "settings.yaml").read_text())
    done = template(4, {"settings": settings})
    assert done.returncode == 0, done.stderr
    text = one(documents(done.stdout), "ConfigMap", "modeltiers-settings")["data"]["settings.yaml"]
    assert (
        Settings.model_validate(yaml.safe_load(text)).external_hosts == Settings.model_validate(settings).external_hosts
    )


@pytest.mark.parametrize("major", MAJORS)
def test_an_old_cluster_is_refused_by_its_version(major: int) -> None:
    said = Helm(major)("template", "x", str(CHART), "--kube-version", "1.32.9", refused=True)
    assert "requires kubeVersion: >=1.33.0-0" in said
    assert "v1.32.9" in said
    Helm(major)("template", "x", str(CHART), "--kube-version", "1.33.0")
    Helm(major)("template", "x", str(CHART), "--kube-version", "1.33.5-gke.100")


@pytest.mark.parametrize("major", MAJORS)
def test_the_first_chart_still_renders(major: int) -> None:
    assert one(Helm(major).render(chart=FIRST), "Deployment")["spec"]["replicas"] == 1


@pytest.mark.parametrize("name", ["a mirror is for all", "an engine by digest", "no training", "a tag"])
def test_the_list_of_images_is_what_the_chart_runs(name: str) -> None:
    found = images_of(merged(values(CASES[name][0])[1]))
    objects = documents(template(4, CASES[name][0]).stdout)
    settings = look(objects, SETTINGS)
    assert found == {
        "operator": look(objects, f"{CONTAINER}.image"),
        "router": settings["router"]["image"],
        "engine": settings["engine"]["image"],
        "distill": settings["distill"]["image"],
        **({"train": settings["distill"]["trainImage"]} if "trainImage" in settings["distill"] else {}),
    }
