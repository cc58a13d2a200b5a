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
    beside = (Stage.EVALUATE_INCUMBENT, Stage.JUDGE)
    assert list(done(spec())) == [stage for stage in Stage if stage not in beside]


def test_the_digest_of_a_spec_stays_what_it_is() -> None:
    """Another one would do paid work again in every store: raise FORMAT where that is meant."""
    found = digest_of(Stage.SNAPSHOT, spec(data={**SPEC["data"], "scrub": {"kinds": ["Email"]}}), {})
    assert found == "b12e419947b9b4668fc702d9d77e3314"


WITHOUT_JUDGE = {
    Stage.SNAPSHOT: "5891d35f382c04fd066e505e48ab95b3",
    Stage.SPLIT: "00c7d2e1b01e3bca821bb19336853802",
    Stage.GENERATE: "4045eba1aa739ea0954089e073687477",
    Stage.FILTER: "2838de64f3612f911bef1a59b791cc0a",
    Stage.DECONTAMINATE: "20b6891ea438283d0d9f6f0e8e6120e1",
    Stage.TRAIN: "fc7ff03e40e5f7c7774407a41c3c91c3",
    Stage.EVALUATE_TEACHER: "9698792ff6f8e3aa1189bfa1c55d6dfe",
    Stage.EVALUATE_BASE: "0229c4b67c23b7f0bbb206fd8c5e9a96",
    Stage.EVALUATE_INCUMBENT: "ebca1f8358e41fa33697a84e0de7f8d8",
    Stage.EVALUATE_STUDENT: "4e65bdd5f177b80bb0cd1bb65a3d1585",
    Stage.GATE: "faf33eabc4f7a04dc10a2cabf92fd079",
    Stage.CALIBRATE: "7d156aed86b2a55ec9de66030a0feab7",
    Stage.PACKAGE: "c7d5ffabf9e46feaae10c10441ee3609",
}
"""Computed before there were judges."""


def whole(**more: Any) -> DistillJobSpec:
    """A job with every stage but the judge's."""
    promotion = {"tierRef": {"name": "small"}, "incumbent": {**BASE, "source": "pvc://models/old"}}
    return spec(promotion=promotion, filters={"shortest": 2}, evaluation={"samples": 2}, **more)


def test_a_job_without_a_judge_rests_on_what_it_did_before_there_were_any() -> None:
    assert {stage: one.digest for stage, one in done(whole()).items()} == WITHOUT_JUDGE


JUDGE = {"tierRef": {"name": "wise"}, "rubric": "r"}


def test_a_judge_of_sealed_items_changes_no_stage_before_its_own() -> None:
    """Neither what was generated and trained, nor the answers that the gate compares."""
    found = done(whole(judge=JUDGE))
    assert list(found) == list(Stage)
    before = {
        stage: one.digest for stage, one in found.items() if list(Stage).index(stage) < list(Stage).index(Stage.JUDGE)
    }
    assert before == {stage: WITHOUT_JUDGE[stage] for stage in before}
    assert found[Stage.GATE].digest != WITHOUT_JUDGE[Stage.GATE]  # its report is another


@pytest.mark.parametrize(
    "change",
    [
        {"rubric": "other"},
        {"tierRef": {"name": "wiser"}},
        {"minScorePermille": 800},
        {"maxTokens": 100},
        {"keyRef": {"name": "a", "key": "b"}},
    ],
    ids=str,
)
def test_a_judge_of_training_rows_is_part_of_what_filter_rests_on(change: dict[str, Any]) -> None:
    chosen = {**JUDGE, "minScorePermille": 700}
    one, other = done(whole(judge=chosen)), done(whole(judge={**chosen, **change}))
    assert one[Stage.GENERATE] == other[Stage.GENERATE]
    assert one[Stage.FILTER].digest not in (other[Stage.FILTER].digest, WITHOUT_JUDGE[Stage.FILTER])
    assert one[Stage.JUDGE].digest != other[Stage.JUDGE].digest


def test_a_judge_of_training_rows_alone_has_no_stage_of_its_own() -> None:
    alone = {**JUDGE, "minScorePermille": 700, "evaluation": False}
    found = done(whole(judge=alone))
    assert Stage.JUDGE not in found
    assert found[Stage.FILTER] == done(whole(judge={**alone, "evaluation": True}))[Stage.FILTER]


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
