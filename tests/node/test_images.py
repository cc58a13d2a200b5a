"""The images of this project, run by a real kubelet as nobody, on a root that cannot be written."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest

from e2e.cluster import Cluster
from e2e.cluster.process import wait_until
from e2e.operator_pod import OperatorPod
from e2e.operator_process import NAMESPACE
from tests.node import buildah
from tests.node.kit import RESTRICTED, Pods

pytestmark = pytest.mark.slow

TABLE = """\
formatVersion: 1
tiers:
- {name: small, address: "127.0.0.1:9", model: small}
policies:
- {name: support, model: support, tiers: [small], mode: Upfront}
"""


def container(image: str, port: int, *args: str, **more: Any) -> dict[str, Any]:
    """Return a container of an image as it is, ready when its health port says so."""
    return {
        "name": "main",
        "image": image,
        "args": args,
        "securityContext": RESTRICTED,
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": port}, "periodSeconds": 1},
        **more,
    }


@pytest.fixture(scope="module")
def built(node_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Both images as users build them, on the node."""
    home = tmp_path_factory.mktemp("buildah")
    made = {name: buildah.build(name, home) for name in ("router", "operator")}
    for one in made.values():
        node_cluster.load_image(one.archive)
    return {name: one.reference for name, one in made.items()}


def test_the_router_serves_from_its_image(pods: Pods) -> None:
    """The quick local way."""
    _serves(pods, pods.image)


def test_the_router_serves_from_the_image_of_its_containerfile(pods: Pods, built: dict[str, str]) -> None:
    """What buildah makes of it does the same."""
    _serves(pods, built["router"])


def _serves(pods: Pods, image: str) -> None:
    """With a table from a ConfigMap, as the sidecar has it."""
    table = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "table"}, "data": {"support.yaml": TABLE}}
    manifest = pods.pod("router", "")
    manifest["spec"]["volumes"] = [{"name": "table", "configMap": {"name": "table"}}]
    manifest["spec"]["containers"] = [
        container(
            image,
            8081,
            "--table=/tables",
            "--listen=0.0.0.0:8080",
            "--admin=0.0.0.0:8081",
            volumeMounts=[{"name": "table", "mountPath": "/tables"}],
        )
    ]
    pods.create(table, manifest, pods.service("router", target=8080))
    pods.wait_ready("router")
    with pods.cluster.gate_to(pods.namespace, "router", 80) as gate:
        wait_until(lambda: _models(gate.address) == ["support"], "the router to know its policy", timeout=15)


def _models(address: str) -> list[str]:
    try:
        with urllib.request.urlopen(f"http://{address}/v1/models", timeout=5) as answer:
            return [model["id"] for model in json.loads(answer.read())["data"]]
    except OSError:
        return []


def test_the_operator_runs_as_a_pod_under_its_own_account(operator: OperatorPod) -> None:
    """It reaches the API by its Service, with its ServiceAccount's token and no other right."""
    operator.wait_leading()
    (pod,) = operator.pods()
    assert pod["spec"]["serviceAccountName"] == "modeltiers-operator"
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    assert operator.get("/healthz")[0] == operator.get("/readyz")[0] == 200


def test_an_operator_of_the_containerfile_stands_by(
    node_cluster: Cluster, operator: OperatorPod, built: dict[str, str]
) -> None:
    """Beside the one that leads it has the whole picture and is ready."""
    _, deployment = operator.manifests(built["operator"])
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "standby", "namespace": NAMESPACE},
        "spec": deployment["spec"]["template"]["spec"],
    }
    node_cluster.kubectl("create", "-f", "-", input=json.dumps(pod))
    try:
        waited = node_cluster.kubectl(
            "wait", "-n", NAMESPACE, "--for=condition=Ready", "pod/standby", "--timeout=60s", check=False
        )
        said = node_cluster.kubectl("logs", "-n", NAMESPACE, "standby", check=False)
        assert waited.returncode == 0, said.stdout + said.stderr
    finally:
        node_cluster.kubectl("delete", "pod", "standby", "-n", NAMESPACE, "--wait=false")
