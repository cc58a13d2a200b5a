"""An API of another namespace behind egress routers and a gateway, on the real node: real pods, a real Secret, the
network's own word on where they may go.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.cluster import Cluster
from e2e.cluster.process import wait_until
from e2e.operator_pod import OperatorPod
from tests.node.kit import Pods

pytestmark = pytest.mark.slow

FIRST, SECOND = "sk-first-0123456789", "sk-second-0123456789"
API = """
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def say(self, status, body):
        said = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
    def do_GET(self):
        self.say(200, {"data": [{"id": "echo"}]})
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        key = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        if key not in sys.argv[1:]:
            return self.say(401, {"error": {"message": "who are you?"}})
        message = {"role": "assistant", "content": "asked with key %d" % (sys.argv.index(key))}
        self.say(200, {"id": "1", "object": "chat.completion", "created": 1, "model": "echo", "choices": [
            {"index": 0, "message": message, "finish_reason": "stop"}], "usage": {
            "prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""
ASK = """
import json, sys, urllib.request
body = json.dumps({"model": "drafts", "messages": [{"role": "user", "content": "hi"}]}).encode()
asked = urllib.request.Request(sys.argv[1] + "/chat/completions", body, {"Content-Type": "application/json"})
with urllib.request.urlopen(asked, timeout=10) as reply:
    print(reply.headers["x-modeltiers-tier"], json.load(reply)["choices"][0]["message"]["content"])
"""
REACHES = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close()
    print("open")
except OSError:
    print("closed")
"""


@pytest.fixture(scope="module")
def there(node_cluster: Cluster, operator: OperatorPod, router_image: str) -> Iterator[Pods]:
    """Another team's namespace: an API that asks for a key, and something that is no business of ours beside it."""
    name = node_cluster.create_namespace(f"there-{secrets.token_hex(4)}")
    found = Pods(node_cluster, name, router_image)
    api = found.pod("api", API, FIRST, SECOND)
    api["spec"]["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": 8000}, "periodSeconds": 1}
    found.create(api, found.service("api"))
    found.wait_ready("api", timeout=60)
    yield found
    node_cluster.delete_namespace(name)


def keyed(here: Pods, value: str) -> None:
    """Put the API's key into its Secret."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "api"}, "stringData": {"key": value}}
    here.kubectl("apply", "-f", "-", input=json.dumps(secret))


def tiers(here: Pods, there: Pods) -> None:
    """An external tier and a policy over it alone."""
    kind = {"apiVersion": "modeltiers.dev/v1alpha1"}
    external = {"baseUrl": f"http://api.{there.namespace}.svc/v1", "model": "echo"}
    external |= {"apiKeySecretRef": {"name": "api", "key": "key"}}
    tier = {**kind, "kind": "ModelTier", "metadata": {"name": "echo"}, "spec": {"external": external}}
    spec = {"model": "drafts", "tiers": [{"name": "echo"}], "placement": "Gateway"}
    here.create(tier, {**kind, "kind": "RoutingPolicy", "metadata": {"name": "drafts"}, "spec": spec})


def condition(here: Pods, kind: str, name: str, wanted: str) -> dict[str, Any]:
    found = here.get(kind, name).get("status", {}).get("conditions", [])
    return next((one for one in found if one["type"] == wanted), {})


def routers(here: Pods) -> dict[str, int]:
    """The pods of the egress and the gateway by name, with the restarts of each."""
    found = here.get("pods", "-l", "app.kubernetes.io/component in (egress,gateway)")["items"]
    return {
        one["metadata"]["name"]: sum(container["restartCount"] for container in one["status"]["containerStatuses"])
        for one in found
    }


def test_an_api_of_another_namespace_is_asked_with_a_key_that_rotates(pods: Pods, there: Pods) -> None:
    tiers(pods, there)

    def untold() -> bool:
        return "create Secret api" in condition(pods, "mt", "echo", "CredentialsFound").get("message", "")

    # The operator may not read the Secret: the routers, which run, say that it is missing.
    wait_until(untold, "the missing Secret to be told", 90, poll=0.5)
    keyed(pods, FIRST)
    pods.kubectl("wait", "--for=condition=Ready", "mt/echo", "--timeout=150s")
    pods.kubectl("wait", "--for=condition=Ready", "rp/drafts", "--timeout=60s")
    # Two of the gateway, where the autoscaler makes two of one, and two before the API.
    wait_until(lambda: pods.get("rp", "drafts")["status"]["live"] == "4/4", "four routers with the table", 90, poll=1)
    assert condition(pods, "mt", "echo", "CredentialsFound")["status"] == "True"
    url = f"http://drafts-policy.{pods.namespace}.svc/v1"
    assert pods.run(ASK, url) == ("Succeeded", "echo asked with key 1")

    before = routers(pods)
    keyed(pods, SECOND)
    wait_until(lambda: pods.run(ASK, url)[1] == "echo asked with key 2", "the new key", 150, poll=3)
    assert routers(pods) == before
    said = pods.kubectl("logs", "-l", "modeltiers.dev/tier=echo", "--tail=-1")
    assert FIRST not in said
    assert SECOND not in said


def test_the_network_opens_the_api_and_no_more(pods: Pods, there: Pods, node_cluster: Cluster) -> None:
    keyed(pods, FIRST)
    tiers(pods, there)
    pods.kubectl("wait", "--for=condition=Ready", "rp/drafts", "--timeout=150s")
    beside = Pods(node_cluster, node_cluster.create_namespace(f"beside-{secrets.token_hex(4)}"), there.image)
    beside.create(beside.pod("other", API, FIRST), beside.service("other"))
    beside.wait_ready("other", timeout=60)

    def reach(deployment: str, host: str) -> str:
        return pods.kubectl("exec", f"deploy/{deployment}", "--", "/usr/bin/python3", "-c", REACHES, host, "80").strip()

    assert reach("echo", f"api.{there.namespace}.svc") == "open"
    assert reach("echo", f"other.{beside.namespace}.svc") == "closed"
    assert reach("drafts-gateway", f"api.{there.namespace}.svc") == "closed"  # only what has the key may go there
