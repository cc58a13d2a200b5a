"""Runs the operator as a Pod of the real node: the manifests that administrators apply, with an image made here.

It reaches the API server by its Service with its ServiceAccount's token, and routers at their pods' addresses.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

import yaml

from e2e.ask import ask
from e2e.cluster import Cluster, HarnessError, recipes
from e2e.cluster.process import wait_until
from e2e.operator_process import NAMESPACE, ROOT, install

MANIFEST = ROOT / "manifests/operator.yaml"
DEPLOYMENT = "deployment/modeltiers-operator"
PORT = 8080
READY_SECONDS = 60


class OperatorPod:
    """The operator's Deployment. Its pod goes with the cluster, or when it is closed.

    `image`: what runs, where it is already on the node; else one is made of this checkout.
    """

    def __init__(self, cluster: Cluster, settings: Mapping[str, Any], image: str = "") -> None:
        self._cluster, self._settings, self._image = cluster, settings, image

    def start(self) -> OperatorPod:
        """Apply rights, settings and Deployment and wait until the pod has the whole picture."""
        if not self._image:
            made = recipes.operator()
            self._cluster.load_image(made.archive)
            self._image = made.reference
        install(self._cluster)
        items = self.manifests(self._image)
        self._kubectl(
            "apply", "--server-side", "-f", "-", input=json.dumps({"kind": "List", "apiVersion": "v1", "items": items})
        )
        self.wait_ready()
        return self

    def manifests(self, image: str) -> list[dict[str, Any]]:
        """The objects of the manifest, with this image and our settings; other settings are another pod."""
        found = {body["kind"]: body for body in yaml.safe_load_all(MANIFEST.read_text())}
        config, deployment = found["ConfigMap"], found["Deployment"]
        (file,) = config["data"]
        config["data"][file] = text = yaml.safe_dump(dict(self._settings))
        deployment["spec"]["replicas"] = 1  # what a test does to the pod, no other pod makes good
        template = deployment["spec"]["template"]
        template["metadata"]["annotations"] = {
            "modeltiers.dev/settings": hashlib.sha256(text.encode()).hexdigest()[:12]
        }
        # Fake nodes run nothing.
        assert self._cluster.node, "the operator's pod takes a real node"
        template["spec"]["nodeSelector"] = {"kubernetes.io/hostname": self._cluster.node.name}
        template["spec"]["containers"][0]["image"] = image
        return [config, deployment]

    def wait_ready(self, timeout: int = READY_SECONDS) -> None:
        """Wait until the present pod is ready."""
        waited = self._kubectl("rollout", "status", DEPLOYMENT, f"--timeout={timeout}s", check=False)
        if "successfully rolled out" not in waited:
            described = self._kubectl("describe", "pods", "-l", "app.kubernetes.io/name=modeltiers-operator")
            raise HarnessError(f"the operator's pod is not ready:\n{waited}\n{self.tail()}\n{described[-2000:]}")

    def pods(self) -> list[dict[str, Any]]:
        """Its pods, those that are ending included."""
        said = self._kubectl("get", "pods", "-l", "app.kubernetes.io/name=modeltiers-operator", "-o", "json")
        found: list[dict[str, Any]] = json.loads(said)["items"]
        return found

    def kill(self) -> None:
        """Let it vanish as with a node that dies: nothing is told to it, and its lease is not released."""
        names = [pod["metadata"]["name"] for pod in self.pods()]
        self._kubectl("delete", "pod", "--grace-period=0", "--force", *names)

    def get(self, path: str) -> tuple[int, str]:
        """Ask the health server of the pod; status 0 when it does not answer."""
        address = next(
            (pod["status"].get("podIP") for pod in self.pods() if "deletionTimestamp" not in pod["metadata"]), None
        )
        if address is None:
            return 0, ""
        with self._cluster.gate(f"{address}:{PORT}") as gate:
            return ask(f"http://{gate.address}{path}", timeout=5)

    def wait_leading(self, timeout: float = 30) -> float:
        """Wait until it may write; returns the seconds it took."""
        began = time.monotonic()
        wait_until(lambda: "modeltiers_leading 1.0" in self.get("/metrics")[1], "the operator to lead", timeout)
        return time.monotonic() - began

    def tail(self, lines: int = 40) -> str:
        """The end of its log."""
        return self._kubectl("logs", DEPLOYMENT, f"--tail={lines}", check=False)

    def close(self) -> None:
        """Take it away."""
        self._kubectl("delete", DEPLOYMENT, "--ignore-not-found", "--wait=false")

    def __enter__(self) -> OperatorPod:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _kubectl(self, *args: str, input: str | None = None, check: bool = True) -> str:  # noqa: A002  as in subprocess.run
        return self._cluster.kubectl("-n", NAMESPACE, *args, input=input, check=check).stdout
