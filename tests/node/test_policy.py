"""Two tiers with their routers and a policy over them, on the real node: asked as a client does, answered by vLLM."""

from __future__ import annotations

import base64
import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.cluster import Cluster, volumes
from e2e.cluster.recipes import ENGINE_HOME
from e2e.engine import environment, tiny
from e2e.operator_process import OperatorProcess, install
from tests.node.test_tier import DEADLINE, FLAGS, tier

pytestmark = pytest.mark.slow

EASY, HARD = "The answer is 42.", "I do not know, perhaps 17 or so."


@pytest.fixture(scope="module")
def team(
    node_cluster: Cluster, engine_image: str, router_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A namespace with the strictest pod security, models that are sure and unsure, and the operator at work."""
    home = tmp_path_factory.mktemp("models")
    home.chmod(0o755)
    unsure = tiny.Answer(HARD, certainty=0.08, asked="hard", rivals=3)
    tiny.write_scripted(home / "small", [unsure, tiny.Answer(EASY, certainty=0.95)])
    tiny.write_scripted(home / "large", [tiny.Answer("Large says so.", certainty=0.95)])
    name = node_cluster.create_namespace(
        f"policy-{secrets.token_hex(4)}", {"pod-security.kubernetes.io/enforce": "restricted"}
    )
    assert node_cluster.node
    items = volumes.local(node_cluster.node, name, "engine", environment.install())
    items += volumes.local(node_cluster.node, name, "models", home)
    items += [_secret(), _policy(), tier(home, "small"), tier(home, "large")]
    profile = {
        "image": engine_image,
        "runAsUser": 10001,
        "cpu": "300m",
        "memory": "4Gi",
        "args": FLAGS,
        # The image has no compiler, with which torch on the CPU would compile what counts logprobs.
        "env": [{"name": "TORCHDYNAMO_DISABLE", "value": "1"}],
        "mounts": [{"name": "venv", "path": ENGINE_HOME, "claimName": "engine"}],
    }
    install(node_cluster)
    settings: dict[str, Any] = {"engineProfiles": {"cpu": profile}, "router": {"image": router_image}}
    with OperatorProcess(node_cluster, tmp_path_factory.mktemp("operator"), settings=settings):
        for item in items:
            node_cluster.kubectl("apply", "-n", name, "-f", "-", input=json.dumps(item))
        _wait(node_cluster, name)
        time.sleep(11)  # routers look each other's names up every 5 s
        yield name
        node_cluster.delete_namespace(name)
    node_cluster.kubectl("delete", "pv", f"{name}-engine", f"{name}-models", "--wait=false")


def _secret() -> dict[str, Any]:
    """The key with which the routers of a namespace sign what they forward to each other."""
    key = base64.b64encode(secrets.token_bytes(48)).decode()
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "modeltiers-router"},
        "data": {"hop.key": key},
    }


def _policy() -> dict[str, Any]:
    spec = {
        "model": "support",
        "tiers": [{"name": "small"}, {"name": "large"}],
        "mode": "Cascade",
        "accept": {"thresholdPermille": 600, "confidence": {}},
    }
    return {
        "apiVersion": "modeltiers.dev/v1alpha1",
        "kind": "RoutingPolicy",
        "metadata": {"name": "support"},
        "spec": spec,
    }


def _wait(cluster: Cluster, namespace: str) -> None:
    try:
        for what in ("modeltier/small", "modeltier/large"):
            cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", what, f"--timeout={DEADLINE}s")
    except Exception:
        for told in (["get", "pods", "-o", "wide"], ["describe", "pods"], ["get", "mt,rp", "-o", "yaml"]):
            print(cluster.kubectl(*told, "-n", namespace, check=False).stdout)
        for name in ("small", "large"):
            logs = ("logs", "-n", namespace, f"deploy/{name}", "--all-containers", "--tail=40")
            print(cluster.kubectl(*logs, check=False).stdout)
        raise


def ask(url: str, question: str, *, stream: bool = False) -> tuple[dict[str, str], bytes]:
    """Ask the policy; returns the headers of the reply and its body."""
    body = {"model": "support", "messages": [{"role": "user", "content": question}], "stream": stream}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)  # noqa: S310  a URL of our own
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310  a URL of our own
            return {name.lower(): value for name, value in answer.headers.items()}, answer.read()
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{error.code}: {error.read().decode()}") from error


def status(cluster: Cluster, namespace: str) -> dict[str, Any]:
    found = json.loads(cluster.kubectl("get", "rp", "support", "-n", namespace, "-o", "json").stdout)
    return dict(found["status"])


def test_the_small_tier_answers_what_it_is_sure_of(node_cluster: Cluster, team: str) -> None:
    with node_cluster.gate_to(team, "support-policy", 80) as gate:
        headers, body = ask(f"http://{gate.address}", "six times seven?")
    assert json.loads(body)["choices"][0]["message"]["content"] == EASY
    assert (headers["x-modeltiers-tier"], headers["x-modeltiers-decision"]) == ("small", "Accepted")


@pytest.mark.parametrize("stream", [False, True])
def test_what_it_is_not_sure_of_the_large_tier_answers(node_cluster: Cluster, team: str, stream: bool) -> None:
    """Over a signed hop to the router of the large tier's pod."""
    with node_cluster.gate_to(team, "support-policy", 80) as gate:
        headers, body = ask(f"http://{gate.address}", "a hard one", stream=stream)
    assert (headers["x-modeltiers-tier"], headers["x-modeltiers-decision"]) == ("large", "Escalated")
    assert b"perhaps" not in body
    assert b"[DONE]" in body if stream else b"Large says so." in body


def test_status_does_not_claim_what_the_operator_cannot_see(node_cluster: Cluster, team: str) -> None:
    """Here the operator runs outside the node's network: it cannot ask the routers, and says so."""
    found = {one["type"]: one for one in status(node_cluster, team)["conditions"]}
    assert (found["Live"]["status"], found["Live"]["reason"]) == ("Unknown", "RoutersUnreachable")
    assert found["Compiled"]["status"] == "True"
