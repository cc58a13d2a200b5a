"""A second revision of a tier beside the first, on a real API server; who gets it is shown with routers elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.kit import SPEC, Tiers, until
from tests.cluster.policies import table

CANDIDATE: dict[str, Any] = {
    "model": {"source": "hf://deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "maxModelLen": 16384},
    "replicas": 2,
    "weightPermille": 100,
}
TRIED: dict[str, Any] = {**SPEC, "candidate": CANDIDATE}


def pods(tiers: Tiers, revision: str) -> set[str]:
    """The uids of a revision's pods."""
    labels = f"modeltiers.dev/tier=small,modeltiers.dev/revision={revision}"
    return set(tiers.kubectl("get", "pods", "-l", labels, "-o", "jsonpath={.items[*].metadata.uid}").split())


def in_table(tiers: Tiers) -> dict[str, Any]:
    """The lower tier as the policy's table has it."""
    return dict((table(tiers, "large") or {"tiers": [{}]})["tiers"][0])


def test_a_candidate_runs_beside_the_first_gets_a_share_and_leaves_no_trace(ladder: Tiers) -> None:
    first = pods(ladder, "r1")
    ladder.apply("small", TRIED)
    ladder.reasoned("small", "CandidateReady", "True", "Serving")
    assert ladder.ready("small")["ready"] == "1/1"
    deployment = ladder.get("deployment", "small-r2") or {}
    router = deployment["spec"]["template"]["spec"]["initContainers"][0]
    assert "--revision=r2" in router["args"]
    assert any("Llama-8B" in one for one in deployment["spec"]["template"]["spec"]["containers"][0]["args"])
    assert "--served-model-name=small" in deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    for service, revision in (("small-pods", "r1"), ("small-r2-pods", "r2")):
        found = ladder.get("service", service) or {}
        assert found["spec"]["selector"]["modeltiers.dev/revision"] == revision
    assert (ladder.get("service", "small") or {})["spec"]["selector"] == {"modeltiers.dev/tier": "small"}
    status = ladder.status("small")
    assert [(one["name"], one["readyReplicas"]) for one in status["revisions"]] == [("r1", 1), ("r2", 2)]
    assert status["revisions"][1]["weightPermille"] == 100
    # What scales the tier sees the first revision alone.
    assert status["replicas"] == 1
    assert status["selector"] == "modeltiers.dev/revision=r1,modeltiers.dev/tier=small"
    expected = {"revision": "r2", "address": f"small-r2-pods.{ladder.namespace}.svc:8080", "hop": True}
    until(
        lambda: in_table(ladder).get("candidate") == {**expected, "sharePermille": 100}, lambda: str(in_table(ladder))
    )
    until(lambda: in_table(ladder).get("contextTokens") == 16384, lambda: str(in_table(ladder)))
    # Another weight is another table and no other pod.
    second = pods(ladder, "r2")
    ladder.apply("small", {**TRIED, "candidate": {**CANDIDATE, "weightPermille": 500}})
    until(lambda: in_table(ladder)["candidate"]["sharePermille"] == 500, lambda: str(in_table(ladder)))
    assert (pods(ladder, "r1"), pods(ladder, "r2")) == (first, second)
    ladder.apply("small")
    until(lambda: "candidate" not in in_table(ladder), lambda: str(in_table(ladder)))
    until(lambda: ladder.get("deployment", "small-r2") is None, "no Deployment of the candidate")
    until(lambda: ladder.get("service", "small-r2-pods") is None, "no Service of the candidate")
    until(lambda: not ladder.condition("small", "CandidateReady"), lambda: ladder.explain("small"))
    until(lambda: len(ladder.status("small")["revisions"]) == 1, lambda: ladder.explain("small"))
    assert pods(ladder, "r1") == first


def test_a_candidate_that_cannot_be_leaves_the_tier_as_it_is(ladder: Tiers) -> None:
    model = {"source": "hf://nobody/unknown"}
    ladder.apply("small", {**SPEC, "candidate": {"model": model, "weightPermille": 0}})
    ladder.reasoned("small", "CandidateReady", "False", "UnknownModel")
    assert ladder.ready("small")["ready"] == "1/1"
    ladder.apply("small", {**SPEC, "candidate": {**CANDIDATE, "replicas": 101}})
    message = ladder.reasoned("small", "CandidateReady", "False", "NotAllowed")
    assert "spec.candidate.replicas" in message
    assert ladder.ready("small")["ready"] == "1/1"
    assert ladder.get("deployment", "small-r2") is None


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        ({"model": {"source": "hf://a/b", "servedName": "x"}, "weightPermille": 1}, "candidate.model.servedName"),
        ({"model": {"source": "hf://a/b"}}, "weightPermille: Required value"),
        ({"model": {"source": "hf://a/b"}, "weightPermille": 1001}, "should be less than or equal to 1000"),
        ({"weightPermille": 1}, "model: Required value"),
    ],
)
def test_a_candidate_that_makes_no_sense_is_refused(tiers: Tiers, candidate: dict[str, Any], said: str) -> None:
    assert said in tiers.refused(candidate=candidate)
