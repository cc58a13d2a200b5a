"""Generate against a real server: what it asks, what it writes, what it does not ask again."""

from __future__ import annotations

import json
from pathlib import Path

from tests.distill.kit import Job, row


def test_rows_are_answered_in_order_and_kept_as_they_are(job: Job) -> None:
    """One line for each sample, rows as they came, the system message only on the wire."""
    job.spec["generation"] = {"samples": 2, "system": "Be brief.", "topLogprobs": 2, "temperatureMilli": 700}
    rows = [row(number) for number in range(20)]
    result = job.split(rows).generate()
    answers = job.rows("answers.jsonl")
    assert [(one["id"], one["sample"]) for one in answers] == [(one["id"], n) for one in rows for n in (0, 1)]
    first = answers[2]
    assert first["messages"] == rows[1]["messages"]
    assert {name: first[name] for name in ("expected", "group", "slice", "cluster")} == {
        name: rows[1][name] for name in ("expected", "group", "slice", "cluster")
    }
    assert first["answer"] == {"role": "assistant", "content": "8"}
    assert first["finishReason"] == "stop"
    assert first["logprobs"] == [{"token": "8", "logprob": -0.25, "top": [["8", -0.25], ["o0", -2.0]]}]
    assert result.facts["answered"] == 40
    assert result.facts["logprobs"] is True
    assert result.facts["teacher"] == "teacher-1"
    assert result.spend["answerTokens"] == 40
    assert result.spend["promptTokens"] == sum(one["usage"]["promptTokens"] for one in answers)
    assert result.spend["inDoubt"] == 0
    assert len(job.teacher.asked()) == 40


def test_what_is_in_the_ledger_is_not_asked_again(job: Job) -> None:
    """Another digest of the stage, the same requests: nothing is asked."""
    rows = [row(number) for number in range(10)]
    job.split(rows).generate()
    first = job.sha256()
    job.split([*rows, row(10)]).generate()
    assert len(job.teacher.asked()) == 11
    job.split(rows).generate()
    assert len(job.teacher.asked()) == 11
    assert job.sha256() == first


def test_the_program_says_what_came_of_it(job: Job, tmp_path: Path) -> None:
    """The stage as it runs in a pod."""
    job.split([row(number) for number in range(5)])
    assert job.start(tmp_path).wait(60) == 0
    said = json.loads((tmp_path / "result.json").read_text())
    assert said["outcome"] == "Complete"
    assert said["facts"]["answered"] == 5
    assert said["spend"]["answerTokens"] == 5


def test_equal_rows_are_asked_once(job: Job) -> None:
    """Two rows with the same conversation share a reply."""
    job.split([row(1), {**row(1), "id": "other"}]).generate()
    assert len(job.teacher.asked()) == 1
    assert len(job.rows("answers.jsonl")) == 2
