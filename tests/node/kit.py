"""What the tests on a real node share: pods that pass the strictest security, and waiting for them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from e2e.cluster import Cluster
from e2e.cluster.process import wait_until
from e2e.cluster.realnode import RealNode

PYTHON = "/usr/bin/python3"
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
SERVE = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = os.environ["HOSTNAME"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        print(self.path, flush=True)
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""


@dataclass(frozen=True)
class Pods:
    """Pods of one namespace on the real node."""

    cluster: Cluster
    namespace: str
    image: str

    @property
    def node(self) -> RealNode:
        """The real node."""
        assert self.cluster.node
        return self.cluster.node

    def kubectl(self, *args: str, input: str | None = None, check: bool = True) -> str:  # noqa: A002  as in subprocess.run
        """Run kubectl in this namespace and return what it says."""
        done = self.cluster.kubectl("-n", self.namespace, *args, input=input, check=check)
        return done.stdout + ("" if check else done.stderr)

    def create(self, *items: Mapping[str, Any]) -> None:
        """Create objects in one call."""
        self.kubectl("create", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))

    def pod(self, name: str, code: str, *arguments: str, gpus: int = 0, **spec: Any) -> dict[str, Any]:
        """Return a pod that runs a few lines of Python on the real node, labelled with its name."""
        limits = {self.node.resource: str(gpus)} if gpus else {}
        container = {
            "name": "main",
            "image": self.image,
            "command": [PYTHON, "-c", code, *arguments],
            "securityContext": RESTRICTED,
            "resources": {"limits": limits},
        }
        if code == SERVE:  # a Service sends nothing before the server listens
            container["readinessProbe"] = {"tcpSocket": {"port": 8000}, "periodSeconds": 1}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {
                "nodeSelector": {"kubernetes.io/hostname": self.node.name},
                "terminationGracePeriodSeconds": 1,
                "enableServiceLinks": False,
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [container],
                **spec,
            },
        }

    def service(self, name: str, port: int = 80, target: int = 8000) -> dict[str, Any]:
        """Return a Service in front of the pods labelled with its name."""
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"selector": {"app": name}, "ports": [{"port": port, "targetPort": target}]},
        }

    def get(self, *what: str) -> Any:
        """Read an object, or nothing if it is not there."""
        said = self.kubectl("get", *what, "-o", "json", "--ignore-not-found")
        return json.loads(said) if said.strip() else {}

    def free_gpus(self) -> int:
        """How many of the node's GPUs no pod has: other tests' tiers may be there."""
        said = self.cluster.kubectl(
            "get", "pods", "-A", f"--field-selector=spec.nodeName={self.node.name}", "-o", "json"
        )
        taken = sum(
            int(one.get("resources", {}).get("limits", {}).get(self.node.resource, 0))
            for pod in json.loads(said.stdout)["items"]
            if pod["status"].get("phase") not in ("Succeeded", "Failed")
            for one in pod["spec"]["containers"]
        )
        return self.node.gpus - taken

    def phase(self, name: str) -> str:
        """The phase of a pod."""
        return str(self.get("pod", name).get("status", {}).get("phase"))

    def wait_ready(self, *names: str, timeout: float = 30) -> None:
        """Wait until pods are ready."""
        self.kubectl("wait", "--for=condition=Ready", *(f"pod/{name}" for name in names), f"--timeout={timeout:.0f}s")

    def run(self, code: str, *arguments: str, name: str = "once", timeout: float = 30) -> tuple[str, str]:
        """Run a few lines of Python in a pod to their end; return its phase and its log."""
        self.create(self.pod(name, code, *arguments, restartPolicy="Never"))
        ended: Sequence[str] = ("Succeeded", "Failed")
        wait_until(lambda: self.phase(name) in ended, f"pod {name} to end", timeout, poll=0.1)
        phase, said = self.phase(name), self.kubectl("logs", name)
        self.kubectl("delete", "pod", name, "--grace-period=0", "--wait=false")
        return phase, said.strip()
