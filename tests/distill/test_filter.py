"""Filter: answers in, training rows and rejects out, with counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modeltiers.distill.faults import BadData
from modeltiers.domain.distill.stages import Stage
from tests.distill.data import Job, answer_to, sums


def job_with_answers(folder: Path, **changes: Any) -> Job:
    """A job whose teacher answered all sorts of things."""
    job = Job(folder, [{**row, "slice": "sums"} for row in sums(30)], **changes)
    job.run(Stage.SNAPSHOT, Stage.SPLIT)
    rows = job.training()
    answers = [answer_to(row) for row in rows]
    answers[0] = answer_to(rows[0], "no idea")
    answers[1] = answer_to(rows[1], "15", finishReason="length")
    answers[2] = answer_to(rows[2], f"<think>hm</think>{rows[2]['expected']}")
    job.answer([*answers, {**answers[3], "sample": 1}])
    return job


def test_rejects_are_kept_with_their_reasons_and_counted(tmp_path: Path) -> None:
    job = job_with_answers(tmp_path)
    found = job.run(Stage.FILTER)
    assert found.facts == {
        "answers": 11,
        "kept": 8,
        "keptPermille": 727,
        "reasons": {"Duplicate": 1, "Truncated": 1, "WrongAnswer": 1},
        "slices": {"sums": 11},
        "keptSlices": {"sums": 8},
    }
    assert found.body["summary"] == "8 of 11 answers kept; dropped: 1 WrongAnswer, 1 Truncated, 1 Duplicate"
    rejects = job.rows(Stage.FILTER, "rejects.jsonl")
    assert [(row["reason"], row["detail"]) for row in rejects] == [
        ("WrongAnswer", "right: has no number"),
        ("Truncated", "it ended by length"),
        ("Duplicate", "the same answer to the same prompt is kept already"),
    ]
    assert list(rejects[0])[:5] == ["id", "sample", "reason", "detail", "messages"]
    kept = job.rows(Stage.FILTER, "rows.jsonl")
    assert kept[0]["answer"]["content"] == str(kept[0]["expected"])
    assert "<think>" not in str(kept)


def test_reasoning_is_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    job = job_with_answers(tmp_path, filters={"reasoning": "Keep"})
    assert job.run(Stage.FILTER).facts["kept"] == 8
    assert "<think>hm</think>" in str(job.rows(Stage.FILTER, "rows.jsonl"))


def test_too_few_rows_say_what_was_dropped_and_keep_the_rejects(tmp_path: Path) -> None:
    job = job_with_answers(tmp_path, filters={"leastRows": 9})
    with pytest.raises(BadData) as caught:
        job.run(Stage.FILTER)
    assert "8 of 11 answers are kept, spec.filters.leastRows is 9" in str(caught.value)
    assert "dropped: 1 WrongAnswer, 1 Truncated, 1 Duplicate" in str(caught.value)
    assert caught.value.field == "spec.filters"
    assert len(job.rows(Stage.FILTER, "rejects.jsonl")) == 3


def test_a_teacher_that_answers_rubbish_trains_nobody(tmp_path: Path) -> None:
    job = Job(tmp_path, sums(30))
    job.run(Stage.SNAPSHOT, Stage.SPLIT)
    job.answer([answer_to(row, "lorem ipsum") for row in job.training()])
    with pytest.raises(BadData, match=r"0 of 10 answers are kept, .*; dropped: 10 WrongAnswer"):
        job.run(Stage.FILTER)


def test_no_answer_at_all_is_a_fault(tmp_path: Path) -> None:
    job = Job(tmp_path, sums(30))
    job.run(Stage.SNAPSHOT, Stage.SPLIT)
    job.answer([])
    with pytest.raises(BadData, match=r"0 of 0 answers are kept, .*; dropped: none"):
        job.run(Stage.FILTER)
