"""Which stage comes next: a pure function of what manifests say."""

from __future__ import annotations

from typing import Any

import pytest

from modeltiers.api.distilljob import DistillJobSpec
from modeltiers.domain.distill.stages import Next, Outcome, Stage, digest_of, next_stage, stages_of, walk

BASE = {
    "source": "pvc://models/base",
    "architecture": {
        "name": "LlamaForCausalLM",
        "hiddenSize": 64,
        "layers": 2,
        "attentionHeads": 2,
        "kvHeads": 2,
        "headDim": 32,
        "vocabSize": 512,
        "intermediateSize": 128,
        "maxPosition": 512,
    },
}
SPEC: dict[str, Any] = {
    "workload": {"verifiers": [{"name": "right", "type": "Numeric"}]},
    "teacher": {"tierRef": {"name": "large"}},
    "student": {"base": BASE},
    "data": {
        "sources": [{"name": "rows", "configMap": {"name": "rows", "key": "rows.jsonl"}}],
        "split": {"evaluation": 100, "calibration": 50},
    },
    "store": {"claimName": "artifacts"},
}


def spec(**changes: Any) -> DistillJobSpec:
    """A job's spec with some fields changed."""
    return DistillJobSpec.model_validate({**SPEC, **changes})


def done(wanted: DistillJobSpec, *, decision: str = "Pass") -> dict[Stage, Outcome]:
    """Outcomes of a job whose stages all ran."""
    found: dict[Stage, Outcome] = {}
    while (step := next_stage(wanted, found)) is not None:
        found[step.stage] = Outcome(step.digest, step.digest[::-1], decision if step.stage is Stage.GATE else None)
    return found


def test_a_job_goes_through_its_stages_in_order() -> None:
    assert list(done(spec())) == [stage for stage in Stage if stage is not Stage.EVALUATE_INCUMBENT]


def test_the_digest_of_a_spec_stays_what_it_is() -> None:
    """Another one would do paid work again in every store: raise FORMAT where that is meant."""
    found = digest_of(Stage.SNAPSHOT, spec(data={**SPEC["data"], "scrub": {"kinds": ["Email"]}}), {})
    assert found == "b12e419947b9b4668fc702d9d77e3314"


def test_a_student_tuned_elsewhere_enters_at_the_tests() -> None:
    tuned = spec(student={"base": BASE, "trained": {**BASE, "source": "pvc://models/tuned"}})
    assert Stage.TRAIN not in stages_of(tuned)
    assert Stage.EVALUATE_STUDENT in done(tuned)


def test_without_a_calibration_part_nothing_is_calibrated() -> None:
    assert Stage.CALIBRATE not in done(spec(data={**SPEC["data"], "split": {"evaluation": 100}}))


@pytest.mark.parametrize("decision", ["Fail", "Inconclusive"])
def test_nothing_follows_a_gate_that_was_not_passed(decision: str) -> None:
    found = done(spec(), decision=decision)
    assert list(found)[-1] is Stage.GATE


@pytest.mark.parametrize("lost", list(Stage))
def test_what_is_lost_is_asked_for_again_and_nothing_else(lost: Stage) -> None:
    found = done(spec())
    kept = {stage: outcome for stage, outcome in found.items() if stage is not lost}
    step = next_stage(spec(), kept)
    if lost in found:
        assert step == Next(lost, found[lost].digest)
    else:
        assert step is None


def test_an_outcome_that_rests_on_something_else_does_not_count() -> None:
    found = done(spec())
    other = spec(training={"epochs": 3})
    step = next_stage(other, found)
    assert step is not None
    assert step.stage is Stage.TRAIN
    assert [one for one in walk(other, found) if isinstance(one, Outcome)] == list(found.values())[
        : list(found).index(Stage.TRAIN)
    ]


def test_a_changed_output_changes_the_digests_after_it() -> None:
    found = done(spec())
    changed = {**found, Stage.SPLIT: Outcome(found[Stage.SPLIT].digest, "f" * 32)}
    step = next_stage(spec(), changed)
    assert step is not None
    assert step.stage is Stage.GENERATE


def test_budget_and_suspension_change_no_digest() -> None:
    cheap = spec(budget={"teacherTokens": 10}, suspend=True, scheduling={"retries": 1})
    assert digest_of(Stage.SNAPSHOT, cheap, {}) == digest_of(Stage.SNAPSHOT, spec(), {})
    assert done(cheap) == done(spec())


def test_promotion_changes_only_what_rests_on_it() -> None:
    promoted = spec(promotion={"tierRef": {"name": "small"}, "approval": "Manual"})
    assert done(promoted) == done(spec())
