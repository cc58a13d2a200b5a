"""Evaluate against a real server: who is asked, what is scored."""

from __future__ import annotations

import pytest

from modeltiers.distill.faults import BadData, TryAgain
from modeltiers.domain.distill.stages import Stage
from tests.distill.kit import Job, row
from tests.distill.teacher import MODEL


def sealed(job: Job) -> Job:
    """6 items, one with an expectation that nobody meets; 2 of the red team; 3 to calibrate on."""
    wrong = row(5, expected="nonsense")
    return job.split(
        [row(90)],
        evaluation=[*(row(number) for number in range(5)), wrong],
        redTeam=[row(50), row(51)],
        calibration=[row(number) for number in range(60, 63)],
    )


def engine(job: Job, **more: object) -> dict[str, object]:
    """The server as the engine beside the program."""
    return {"engine": {"baseUrl": job.teacher.base_url, "model": MODEL, **more}}


def test_the_teacher_is_scored_item_by_item(job: Job) -> None:
    """Every sealed item gets its score; means by part and slice."""
    job.spec["evaluation"] = {"samples": 2}
    result = sealed(job).evaluate(Stage.EVALUATE_TEACHER)
    items = job.rows("items.jsonl", Stage.EVALUATE_TEACHER)
    assert [one["item"] for one in items] == [f"row-{number}" for number in (0, 1, 2, 3, 4, 5, 50, 51)]
    assert items[0] == {
        "item": "row-0",
        "cluster": "c0",
        "slice": "even",
        "part": "evaluation",
        "score": 1000,
        "answers": ["0", "0"],
        "failed": [None, None],
        "finish": ["stop", "stop"],
    }
    assert items[5]["score"] == 0
    assert items[5]["failed"] == ["right", "right"]
    assert items[7]["part"] == "redTeam"
    assert result.facts["score"] == 833
    assert result.facts["n"] == 6
    assert result.facts["slices"]["evaluation"] == {"even": {"n": 3, "score": 1000}, "odd": {"n": 3, "score": 667}}
    assert result.facts["redTeamScore"] == 1000
    assert result.spend["answerTokens"] == 16
    assert result.outputs == ("items.jsonl",)


def test_the_student_is_asked_for_logprobs_to_calibrate_on(job: Job) -> None:
    """The calibration part, with what an acceptance threshold is fitted to; nothing of it counts as the teacher's."""
    job.plan_more = engine(job)
    result = sealed(job).evaluate(Stage.EVALUATE_STUDENT)
    assert result.outputs == ("items.jsonl", "calibration.jsonl")
    lines = job.rows("calibration.jsonl", Stage.EVALUATE_STUDENT)
    assert [one["item"] for one in lines] == ["row-60", "row-61", "row-62"]
    assert lines[0]["right"] is True
    assert lines[0]["logprobs"][0]["token"] == "480"
    assert len(lines[0]["logprobs"][0]["top"]) == 5
    assert result.spend == {}
    assert job.plan.spec.budget is None


def test_rows_without_a_slice_are_counted_together(job: Job) -> None:
    """A slice is the user's to give."""
    result = job.split([], evaluation=[row(1, slice=None), row(2)]).evaluate(Stage.EVALUATE_TEACHER)
    assert job.rows("items.jsonl", Stage.EVALUATE_TEACHER)[0]["slice"] is None
    assert result.facts["slices"]["evaluation"] == {"": {"n": 1, "score": 1000}, "even": {"n": 1, "score": 1000}}


def test_what_the_teacher_answered_before_is_not_asked_again(job: Job) -> None:
    """Generate and EvaluateTeacher keep one ledger."""
    job.split([row(1), row(2)], evaluation=[row(2)]).generate()
    result = job.evaluate(Stage.EVALUATE_TEACHER)
    assert len(job.teacher.asked()) == 2
    assert result.spend["answerTokens"] == 2


def test_an_engine_that_loads_is_waited_for(job: Job) -> None:
    """Up to a deadline."""
    job.plan_more = engine(job)
    job.teacher.misbehave(loading=True)
    with pytest.raises(TryAgain, match="not ready after 1 s") as caught:
        sealed(job).evaluate(Stage.EVALUATE_BASE, engine_seconds=1)
    assert caught.value.reason == "EngineNotReady"


def test_an_engine_with_another_model_is_refused(job: Job) -> None:
    """The wrong weights are not tested."""
    job.plan_more = engine(job)
    job.teacher.misbehave(serves="something-else")
    with pytest.raises(BadData, match="serves something-else, not teacher-1") as caught:
        sealed(job).evaluate(Stage.EVALUATE_BASE)
    assert caught.value.reason == "WrongModel"


def test_an_engine_that_has_the_weights_from_elsewhere_is_refused(job: Job) -> None:
    """vLLM says where it has a model from; one that does not say is believed."""
    job.plan_more = engine(job, root="/models/student")
    job.teacher.misbehave(root="/models/base")
    with pytest.raises(BadData, match="what lies at /models/base, not at /models/student") as caught:
        sealed(job).evaluate(Stage.EVALUATE_BASE)
    assert caught.value.reason == "WrongModel"
    job.teacher.misbehave(root="/models/student")
    assert job.evaluate(Stage.EVALUATE_BASE).facts["n"] == 6


def test_a_refused_item_counts_as_wrong(job: Job) -> None:
    """A model that cannot take an item has not answered it."""
    job.teacher.misbehave(status=400, message="context length exceeded", match="What is 3 +")
    result = sealed(job).evaluate(Stage.EVALUATE_TEACHER)
    item = job.rows("items.jsonl", Stage.EVALUATE_TEACHER)[3]
    assert (item["score"], item["failed"], item["answers"]) == (0, ["Refused"], [""])
    assert result.facts["refused"] == 1


def test_a_cut_answer_counts_as_it_stands(job: Job) -> None:
    """It is judged, and counted."""
    job.spec["evaluation"] = {"maxTokens": 2}
    job.teacher.misbehave(words=5, match="What is 3 +")
    result = sealed(job).evaluate(Stage.EVALUATE_TEACHER)
    assert job.rows("items.jsonl", Stage.EVALUATE_TEACHER)[3]["answers"] == ["w0 w1"]
    assert result.facts["truncated"] == 1


@pytest.mark.parametrize("own", [True, False])
def test_the_incumbent_is_asked_where_it_is_served(job: Job, own: bool) -> None:
    """At its tier, or at the engine where no tier serves it."""
    place = {"baseUrl": job.teacher.base_url, "model": MODEL}
    job.plan_more = {"incumbent": place} if own else {"engine": place}
    incumbent = {
        **job.plan.spec.student.base.model_dump(by_alias=True, exclude_none=True),
        "source": "pvc://models/old",
    }
    job.spec["promotion"] = {"incumbent": incumbent}
    assert sealed(job).evaluate(Stage.EVALUATE_INCUMBENT).facts["score"] == 833
