"""The images of this project, run by a real kubelet as nobody, on a root that cannot be written."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest

from e2e.cluster import Cluster, recipes
from e2e.cluster.process import wait_until
from e2e.operator_process import ACCOUNT, NAMESPACE, install
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


def status_of(address: str, path: str) -> int:
    """GET from this process."""
    with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
        return int(answer.status)


def test_the_router_serves_from_its_image(pods: Pods) -> None:
    """With a table from a ConfigMap, as the sidecar has it."""
    table = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "table"}, "data": {"support.yaml": TABLE}}
    manifest = pods.pod("router", "")
    manifest["spec"]["volumes"] = [{"name": "table", "configMap": {"name": "table"}}]
    manifest["spec"]["containers"] = [
        container(
            pods.image,
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


def test_the_operator_runs_as_a_pod_under_its_own_account(node_cluster: Cluster) -> None:
    """It reaches the API by its Service, with its ServiceAccount's token and no other right."""
    made = recipes.operator()
    node_cluster.load_image(made.archive)
    install(node_cluster)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "operator", "namespace": NAMESPACE},
        "spec": {
            "serviceAccountName": ACCOUNT,
            "nodeSelector": {"kubernetes.io/hostname": "node1"},
            "terminationGracePeriodSeconds": 5,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                container(
                    made.reference,
                    8080,
                    env=[
                        {"name": "MODELTIERS_NAMESPACE", "value": NAMESPACE},
                        {"name": "MODELTIERS_IDENTITY", "value": "operator"},
                        {"name": "MODELTIERS_HOST", "value": "0.0.0.0"},  # noqa: S104 - of the pod
                    ],
                    readinessProbe={"httpGet": {"path": "/readyz", "port": 8080}, "periodSeconds": 1},
                )
            ],
        },
    }
    node_cluster.kubectl("create", "-f", "-", input=json.dumps(pod))
    try:
        waited = node_cluster.kubectl(
            "wait", "-n", NAMESPACE, "--for=condition=Ready", "pod/operator", "--timeout=60s", check=False
        )
        said = node_cluster.kubectl("logs", "-n", NAMESPACE, "operator", check=False)
        assert waited.returncode == 0, said.stdout + said.stderr
        address = node_cluster.kubectl(
            "get", "pod", "operator", "-n", NAMESPACE, "-o", "jsonpath={.status.podIP}"
        ).stdout
        with node_cluster.gate(f"{address}:8080") as gate:
            assert status_of(gate.address, "/metrics") == 200
    finally:
        node_cluster.kubectl("delete", "pod", "operator", "-n", NAMESPACE, "--wait=false")
