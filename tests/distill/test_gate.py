"""The gate's stage: scores of all models put together, the look entered, the decision for status and report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modeltiers.distill import gate
from modeltiers.distill.faults import BadData
from modeltiers.distill.stage import Result, Work
from modeltiers.domain.distill.stages import Outcome, Stage
from tests.distill.kit import Job, TeacherProcess, local

STAGES = (Stage.EVALUATE_STUDENT, Stage.EVALUATE_BASE, Stage.EVALUATE_TEACHER)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job whose teacher is not asked."""
    return Job(local(tmp_path / "store"), TeacherProcess(1, tmp_path))


def scored(job: Job, *, count: int = 400, student: int = 9, prefix: str = "row", red_team: int = 0) -> Work:
    """A gate to run: the student answers so many of ten, the teacher nine, the base three."""
    work = job.work(Stage.GATE)
    for part in ("evaluation", "redTeam"):
        work.inputs[Stage.SPLIT].write_rows(f"{part}.jsonl", [])
    for stage, right in zip(STAGES, (student, 3, 9), strict=True):
        items = [
            {
                "item": f"{prefix}-{number}",
                "cluster": f"{prefix}-{number}",
                "slice": "even" if number % 2 else "odd",
                "part": "redTeam" if number < red_team else "evaluation",
                "score": 1000 * (number % 10 < right),
                "answers": [f"it is {number}" if number % 10 < right else "do not know"],
                "failed": [None if number % 10 < right else "right"],
            }
            for number in range(count)
        ]
        work.inputs[stage].write_rows("items.jsonl", items)
    return work


def told(work: Work) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(work.folder.read("decision.json"))
    return body


def test_a_good_student_passes(job: Job) -> None:
    work = scored(job)
    result = gate.run(work)
    assert isinstance(result, Result)
    assert result.facts["decision"] == "Pass"
    assert result.summary.startswith(
        "Pass: incumbent: not worse than the incumbent by more than 2 points: +60.0 points"
    )
    assert result.facts["items"] == 400
    assert result.facts["needed"] <= 400
    assert (result.facts["studentPermille"], result.facts["incumbentPermille"], result.facts["looks"]) == (900, 300, 1)
    assert [one["name"] for one in told(work)["comparisons"]] == ["incumbent", "base"]
    assert len(list(work.folder.rows("items.jsonl"))) == 400


def test_a_bad_student_fails_and_too_few_items_say_nothing(job: Job) -> None:
    assert gate.run(scored(job, student=2)).facts["decision"] == "Fail"
    assert gate.run(scored(job, count=100, prefix="few")).facts["decision"] == "Inconclusive"


def test_the_red_team_part_is_judged_where_there_is_one(job: Job) -> None:
    work = scored(job, count=800, red_team=200)
    gate.run(work)
    found = told(work)
    assert found["decision"] == "Pass"
    assert [one["name"] for one in found["comparisons"]] == ["incumbent", "base", "redTeam"]


def test_items_of_no_named_slice_and_the_gain_are_the_specs_to_set(job: Job) -> None:
    job.spec["gate"] = {"slices": [{"name": "even"}], "outOfSliceMarginPermille": 30}
    work = scored(job)
    gate.run(work)
    assert [one["name"] for one in told(work)["comparisons"]] == ["incumbent", "base", "outOfSlice", "slice even"]
    job.spec["gate"] = {"gainPermille": 10}
    less = scored(job, student=3, count=300, prefix="less")
    assert gate.run(less).facts["decision"] == "Inconclusive", "so few items do not show that there is no such gain"
    job.spec["gate"] = {"gainPermille": 500}
    more = scored(job, student=3, count=300, prefix="more")
    assert gate.run(more).facts["decision"] == "Fail"


def look(job: Job, seed: int, **how: Any) -> Result:
    """A gate of another student."""
    job.outcomes = {Stage.EVALUATE_STUDENT: Outcome(f"{seed}" * 32, f"{seed}" * 32)}
    return gate.run(scored(job, **how))


def test_looks_at_one_sealed_set_are_counted_over_jobs(job: Job, tmp_path: Path) -> None:
    job.spec = {"gate": {"looks": 2}}
    assert look(job, 0).facts["looks"] == 1
    assert look(job, 0).facts["looks"] == 1
    other = Job(local(tmp_path / "store"), job.teacher, {"gate": {"looks": 2}})
    assert look(other, 1, count=500).facts["looks"] == 2  # a set that grew
    refused = look(other, 2, student=8)
    assert refused.facts["decision"] == "Inconclusive"
    assert "rotate it" in refused.facts["why"]
    assert refused.facts["needed"] is None
    assert look(other, 2, prefix="new").facts["looks"] == 1


def test_a_ledger_that_is_damaged_stops_the_gate(job: Job) -> None:
    work = scored(job)
    gate.run(work)
    (name,) = work.sealed().names()
    work.sealed().write(name, b"{")
    with pytest.raises(BadData, match="store/sealed/") as refused:
        gate.run(work)
    assert refused.value.reason == "StoreChanged"
    work.sealed().write(name, b"{}")
    with pytest.raises(BadData, match="restore the file, or rotate the sealed set"):
        gate.run(work)


def test_a_model_that_missed_an_item_is_named(job: Job) -> None:
    work = scored(job)
    rows = list(work.inputs[Stage.EVALUATE_BASE].rows("items.jsonl"))
    work.inputs[Stage.EVALUATE_BASE].write_rows("items.jsonl", rows[1:])
    with pytest.raises(BadData, match=r"'row-0'.*has no base") as refused:
        gate.run(work)
    assert refused.value.field == "spec.gate"
