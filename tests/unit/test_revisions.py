"""The revisions of a tier: what each runs, and what stands in a candidate's way."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from modeltiers.api.modeltier import Candidate, ModelTierSpec
from modeltiers.domain.claims import ClaimView
from modeltiers.domain.engine_args import Refusal
from modeltiers.domain.facts import TierFacts
from modeltiers.domain.policy_table import TierView
from modeltiers.domain.record import inputs_of
from modeltiers.domain.revisions import refused_candidate, revisions_of, told_apart

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
CANDIDATE = {"model": {"source": "hf://org/better"}, "replicas": 2, "weightPermille": 100}


def spec(**fields: Any) -> ModelTierSpec:
    return ModelTierSpec.model_validate(
        {
            "model": {"source": "hf://org/name", "servedName": "chat"},
            "accelerators": [{"name": "a", "product": "A"}],
            "replicas": 3,
            **fields,
        }
    )


def test_without_a_candidate_there_is_one_revision_and_it_is_the_spec() -> None:
    (first,) = revisions_of(spec())
    assert (first.name, first.spec, first.weight_permille) == ("r1", spec(), 1000)


def test_a_candidate_runs_its_own_model_under_the_tier_s_name() -> None:
    first, second = revisions_of(spec(candidate=CANDIDATE, autoscaling={"max": 4}))
    assert (first.name, first.weight_permille, second.name, second.weight_permille) == ("r1", 900, "r2", 100)
    model = second.spec.model
    assert model is not None
    assert (model.source, model.served_name, second.spec.replicas) == ("hf://org/better", "chat", 2)
    assert second.spec.autoscaling is None
    assert second.spec.accelerators == spec().accelerators


def test_a_candidate_rolls_no_pod_of_the_first_revision_and_its_weight_none_at_all() -> None:
    assert inputs_of(spec(candidate=CANDIDATE)) == inputs_of(spec())
    heavier = {**CANDIDATE, "weightPermille": 500, "replicas": 1}
    one, other = (revisions_of(spec(candidate=each))[1].spec for each in (CANDIDATE, heavier))
    assert inputs_of(one) == inputs_of(other)


def test_one_from_elsewhere_counts_where_the_spec_has_none() -> None:
    job = Candidate.model_validate({**CANDIDATE, "weightPermille": 7})
    assert revisions_of(spec(), job)[1].weight_permille == 7
    assert revisions_of(spec(candidate=CANDIDATE), job)[1].weight_permille == 100


def test_an_external_tier_has_one_revision() -> None:
    external = ModelTierSpec.model_validate({"external": {"baseUrl": "https://a.b/v1", "model": "m"}})
    assert len(revisions_of(external, Candidate.model_validate(CANDIDATE))) == 1


def test_what_stands_in_its_way_is_told_in_the_tier_s_fields() -> None:
    refused = [Refusal("spec.replicas", "too many"), Refusal("spec.model.source", "no"), Refusal("spec.serving", "odd")]
    assert [one.path for one in refused_candidate(refused, {}, routed=True)] == [
        "spec.candidate.replicas",
        "spec.candidate.model.source",
        "spec.serving",
    ]
    (said,) = refused_candidate([], {}, routed=False)
    assert "router.image" in said.message
    (said,) = refused_candidate([], {"cache": ClaimView(("ReadWriteOnce",))}, routed=True)
    assert "ReadWriteMany" in said.message


def test_the_table_takes_what_fits_both() -> None:
    sizes = [{"name": "r1"}, {"name": "r2", "maxModelLen": 4096}]
    status = {"sizing": {"maxModelLen": 8192}, "revisions": sizes}
    view = TierView.of("small", spec(candidate=CANDIDATE), status)
    assert (view.context_tokens, view.candidate) == (4096, ("r2", 100))
    assert TierView.of("small", spec(), {"sizing": {"maxModelLen": 8192}}).context_tokens == 8192


def test_its_condition_says_what_ready_says_and_remembers_what_it_said() -> None:
    facts = TierFacts("ns", "small", 1, no_fit=("FitsNoAccelerator", "too large"))
    said, _ = told_apart(facts, [], NOW)
    assert (said.type, said.status, said.reason) == ("CandidateReady", "False", "FitsNoAccelerator")
    before = [{"type": "CandidateReady", "status": "False", "reason": said.reason, "observedGeneration": 1}]
    assert told_apart(facts, before, NOW)[0] == said
