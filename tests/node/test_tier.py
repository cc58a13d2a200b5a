"""A ModelTier on the real node: sized, scheduled and admitted by real parts, served by real vLLM on the CPU."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e import team as teams
from e2e.cluster import Cluster
from e2e.cluster.process import wait_until
from e2e.operator_pod import OperatorPod
from e2e.team import Team
from tests.node.load import EASY, TEXTS

pytestmark = pytest.mark.slow


@pytest.fixture
def team(node_cluster: Cluster, operator: OperatorPod, models: Path) -> Iterator[Team]:
    """A namespace with nothing in it but the volumes."""
    with teams.team(node_cluster, models) as made:
        yield made


def ask(url: str, model: str, question: str) -> dict[str, Any]:
    """Ask for a chat completion."""
    body = {"model": model, "messages": [{"role": "user", "content": question}]}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)  # noqa: S310  a URL of our own
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310  a URL of our own
        found: dict[str, Any] = json.loads(answer.read())
    return found


def reaches(address: str) -> bool:
    """Whether the Service leads to somebody who answers."""
    try:
        with urllib.request.urlopen(f"http://{address}/v1/models", timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_a_tier_serves_a_completion(team: Team) -> None:
    """From `kubectl apply` to an answer; its pod holds GPUs that were counted."""
    began = time.monotonic()
    team.apply(team.tier("small"), team.policy(tiers=[{"name": "small"}], mode="Upfront", accept=None))
    team.wait_ready("modeltier/small", "routingpolicy/support")
    ready = time.monotonic() - began
    with team.gate() as gate:
        wait_until(lambda: reaches(gate.address), "kube-proxy to write its rules, a moment after the pod is ready", 30)
        answer = ask(f"http://{gate.address}", "support", EASY)
    assert answer["choices"][0]["message"]["content"] == TEXTS["small"]
    (pod,) = team.pods("small")
    assert pod["spec"]["nodeName"] == "node1"
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    print(f"\napply to Ready {ready:.1f} s")


def test_what_keeps_a_pod_from_its_volumes_is_told_and_waited_for(team: Team) -> None:
    """A profile that brings a CA bundle, and a namespace that has none yet: in the kubelet's words, from its event."""
    team.apply(team.tier("small", serving={"profile": "trusting", "shutdownSeconds": 30}))
    wait_until(lambda: team.conditions("mt/small").get("Stalled", {}).get("status") == "True", "the tier to stall", 90)
    stalled = team.conditions("mt/small")["Stalled"]
    assert stalled["reason"] == "ConfigMapNotFound"
    assert "there is no ConfigMap ca-bundle" in stalled["message"]
    assert "MountVolume.SetUp failed for volume" in stalled["message"]
    team.kubectl("create", "configmap", "ca-bundle", "--from-literal=ca.crt=x")
    team.wait_ready("modeltier/small")
