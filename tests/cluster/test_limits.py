"""The limits of a namespace, by the real API server: what its annotations do not allow is refused with the way out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import Cluster
from modeltiers.render.limits import ARGS, IMAGES, REPLICAS, SOURCES
from tests.cluster.kit import SPEC, Tiers, until

MANIFEST = Path(__file__).parents[2] / "manifests/limits.yaml"
ALLOWED = {
    IMAGES: "registry.example.com/, quay.example.com/vllm/",
    SOURCES: "hf://deepseek-ai/,pvc://",
    ARGS: "--max-num-seqs, --enable-prefix-caching",
    REPLICAS: "4",
}


@pytest.fixture(scope="module")
def enforced(installed: Cluster) -> Iterator[Cluster]:
    """The policy is in force; it is seen to be, since that takes the API server a moment."""
    installed.kubectl("apply", "-f", str(MANIFEST))
    probe = installed.create_namespace("limits-probe")
    installed.kubectl("annotate", "namespace", probe, f"{REPLICAS}=0")
    until(lambda: refusal(Tiers(installed, probe), replicas=1), "the policy in force", 60)
    yield installed
    installed.kubectl("delete", "-f", str(MANIFEST))
    installed.delete_namespace(probe)


@pytest.fixture
def limited(enforced: Cluster, namespace: str) -> Tiers:
    """A namespace with limits of every kind."""
    enforced.kubectl("annotate", "namespace", namespace, *(f"{name}={value}" for name, value in ALLOWED.items()))
    return Tiers(enforced, namespace)


def refusal(tiers: Tiers, **changes: Any) -> str:
    """What the API server says against a tier; nothing when it would take it."""
    body = {
        "apiVersion": "modeltiers.dev/v1alpha1",
        "kind": "ModelTier",
        "metadata": {"name": "x", "namespace": tiers.namespace},
        "spec": {**SPEC, **changes},
    }
    done = tiers.cluster.kubectl("create", "--dry-run=server", "-f", "-", input=json.dumps(body), check=False)
    return done.stderr if done.returncode else ""


CANDIDATE = {"replicas": 1, "weightPermille": 10}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        (
            {"serving": {"image": "docker.example.com/vllm:1"}},
            "the image docker.example.com/vllm:1; it allows registry",
        ),
        ({"serving": {"image": "registry.example.com.evil.test/vllm:1"}}, "does not allow the image"),
        ({"serving": {"router": {"image": "docker.example.com/router:1"}}}, "the image docker.example.com/router:1"),
        ({"model": {"source": "hf://someone/else"}}, "the model source hf://someone/else"),
        ({"candidate": {"model": {"source": "hf://someone/else"}, **CANDIDATE}}, "the model source hf://someone/else"),
        ({"serving": {"args": ["--max-num-seqs=8", "--max-logprobs=20"]}}, "the engine flag --max-logprobs; it allows"),
        ({"replicas": 5}, "at most 4 replicas"),
        ({"autoscaling": {"min": 1, "max": 5, "targetInFlight": 4}}, "at most 4 replicas"),
        (
            {"candidate": {"model": {"source": "hf://deepseek-ai/other"}, **CANDIDATE, "replicas": 9}},
            "at most 4 replicas",
        ),
    ],
)
def test_what_is_over_the_limits_is_refused_by_name(limited: Tiers, changes: dict[str, Any], word: str) -> None:
    assert word in refusal(limited, **changes)


def test_what_keeps_to_them_is_taken(limited: Tiers) -> None:
    serving = {"image": "quay.example.com/vllm/openai:v1", "args": ["--max-num-seqs=8", "--enable-prefix-caching"]}
    assert refusal(limited) == ""
    assert refusal(limited, serving=serving, replicas=4) == ""
    assert refusal(limited, candidate={"model": {"source": "hf://deepseek-ai/other"}, **CANDIDATE}) == ""


def test_limits_that_are_no_number_refuse_rather_than_allow(limited: Tiers) -> None:
    limited.cluster.kubectl("annotate", "--overwrite", "namespace", limited.namespace, f"{REPLICAS}=many")
    until(lambda: refusal(limited), "the refusal")


def test_a_namespace_without_limits_has_none(enforced: Cluster, namespace: str) -> None:
    serving = {"image": "docker.example.com/vllm:1", "args": ["--max-logprobs=20"]}
    assert refusal(Tiers(enforced, namespace), serving=serving, replicas=50) == ""


def test_the_status_is_not_held_up_by_limits_that_came_later(enforced: Cluster, namespace: str) -> None:
    tiers = Tiers(enforced, namespace)
    tiers.apply("old", replicas=9)
    enforced.kubectl("annotate", "namespace", namespace, f"{REPLICAS}=4")
    until(lambda: refusal(tiers, replicas=9), "the refusal")
    status = {"status": {"replicas": 9}}
    patch = ("--subresource=status", "--dry-run=server", "--type=merge", "-p", json.dumps(status))
    tiers.kubectl("patch", "modeltier", "old", *patch)
