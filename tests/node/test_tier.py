"""A ModelTier on the real node: sized, scheduled and admitted by real parts, served by real vLLM on the CPU."""

from __future__ import annotations

import json
import secrets
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import Cluster, volumes
from e2e.cluster.recipes import ENGINE_HOME
from e2e.engine import environment, tiny
from e2e.operator_process import OperatorProcess, install

pytestmark = pytest.mark.slow

FLAGS = ["--enforce-eager", "--dtype=float32", "--kv-cache-memory-bytes=64M"]
DEADLINE = 150  # seconds: 25 to 40 on two free cores


@pytest.fixture(scope="module")
def operator(node_cluster: Cluster, engine_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The operator, with a profile whose engine finds vLLM in a volume that the administrator mounts."""
    profile = {
        "image": engine_image,
        "runAsUser": 10001,
        "cpu": "500m",
        "memory": "4Gi",
        "args": FLAGS,
        "mounts": [{"name": "venv", "path": ENGINE_HOME, "claimName": "engine"}],
    }
    install(node_cluster)
    settings: dict[str, Any] = {"engineProfiles": {"cpu": profile}}
    with OperatorProcess(node_cluster, tmp_path_factory.mktemp("operator"), settings=settings):
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of models, as a volume of weights has them."""
    home = tmp_path_factory.mktemp("models")
    home.chmod(0o755)  # the engine is nobody that this machine knows
    tiny.write_scripted(home / "small", [tiny.Answer("The answer is 42.", certainty=0.95)])
    return home


@pytest.fixture
def team(node_cluster: Cluster, models: Path) -> Iterator[str]:
    """A team's namespace with the strictest pod security, the engine's environment and the models."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    name = node_cluster.create_namespace(f"team-{secrets.token_hex(4)}", labels)
    assert node_cluster.node
    items = volumes.local(node_cluster.node, name, "engine", environment.install())
    items += volumes.local(node_cluster.node, name, "models", models)
    node_cluster.kubectl("create", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    yield name
    node_cluster.delete_namespace(name)
    node_cluster.kubectl("delete", "pv", f"{name}-engine", f"{name}-models", "--wait=false")


def tier(models: Path, name: str) -> dict[str, Any]:
    """A tier whose model lies on a volume, for the GPU that the node claims."""
    shape = json.loads((models / name / "config.json").read_text())
    architecture = {
        "name": shape["architectures"][0],
        "hiddenSize": shape["hidden_size"],
        "layers": shape["num_hidden_layers"],
        "attentionHeads": shape["num_attention_heads"],
        "kvHeads": shape["num_key_value_heads"],
        "headDim": shape["head_dim"],
        "vocabSize": shape["vocab_size"],
        "intermediateSize": shape["intermediate_size"],
        "maxPosition": shape["max_position_embeddings"],
    }
    return {
        "apiVersion": "modeltiers.dev/v1alpha1",
        "kind": "ModelTier",
        "metadata": {"name": name},
        "spec": {
            "rank": 10,
            "model": {"source": f"pvc://models/{name}", "maxModelLen": 1024, "architecture": architecture},
            "accelerators": [{"name": "l40s", "product": "NVIDIA-L40S"}],
            "serving": {"profile": "cpu"},
        },
    }


def ask(url: str, model: str, question: str) -> dict[str, Any]:
    """Ask for a chat completion."""
    body = {"model": model, "messages": [{"role": "user", "content": question}]}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)  # noqa: S310  a URL of our own
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310  a URL of our own
        found: dict[str, Any] = json.loads(answer.read())
    return found


@pytest.mark.usefixtures("operator")
def test_a_tier_serves_a_completion(node_cluster: Cluster, team: str, models: Path) -> None:
    """From `kubectl apply` to an answer through the tier's Service; its pod holds GPUs that were counted."""
    began = time.monotonic()
    node_cluster.kubectl("apply", "-n", team, "-f", "-", input=json.dumps(tier(models, "small")))
    try:
        node_cluster.kubectl("wait", "-n", team, "--for=condition=Ready", "modeltier/small", f"--timeout={DEADLINE}s")
    except Exception:
        for what in (["get", "pods", "-o", "wide"], ["describe", "pods"], ["get", "mt", "-o", "yaml"]):
            print(node_cluster.kubectl(*what, "-n", team, check=False).stdout)
        print(node_cluster.kubectl("logs", "-n", team, "deploy/small", "--tail=60", check=False).stdout)
        raise
    ready = time.monotonic() - began
    port = json.loads(node_cluster.kubectl("get", "service", "small", "-n", team, "-o", "json").stdout)
    with node_cluster.gate_to(team, "small", port["spec"]["ports"][0]["port"]) as gate:
        answer = ask(f"http://{gate.address}", "small", "six times seven?")
    assert answer["choices"][0]["message"]["content"] == "The answer is 42."
    pod = json.loads(node_cluster.kubectl("get", "pods", "-n", team, "-o", "json").stdout)["items"][0]
    assert pod["spec"]["nodeName"] == "node1"
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    print(f"\napply to Ready {ready:.1f} s")
