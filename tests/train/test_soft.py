"""Soft targets from end to end: the teacher's stored probabilities against the student's own."""

from __future__ import annotations

import json
from pathlib import Path

from e2e.train.models import answered, make_base
from e2e.train.task import make_rows
from tests.train.conftest import MakeTrial, with_probabilities

ROWS = answered(make_rows(24, 1))


def test_a_student_that_is_its_own_teacher_has_nothing_to_learn(trial: MakeTrial, base: Path) -> None:
    one = trial(with_probabilities(ROWS, base), models={"teacher": base}, softWeightPermille=1000, epochs=1)
    facts = one.run().facts
    assert (facts["method"], facts["rowsWithSoftTargets"], facts["rowsUnaligned"]) == ("SoftTargets", 24, 0)
    first = json.loads(one.folder.read("loss.jsonl").splitlines()[0])
    assert first["soft"] < 1e-5
    assert first["ce"] > 5
    assert first["loss"] == first["soft"]


def test_both_terms_are_told_apart_and_fall(trial: MakeTrial, tmp_path: Path) -> None:
    teacher = make_base(tmp_path / "teacher", hidden=64, layers=1, seed=9)
    rows = with_probabilities(ROWS, teacher)
    one = trial(rows, models={"teacher": teacher}, epochs=10, softWeightPermille=250, softTemperatureMilli=2000)
    made = one.run()
    told = [json.loads(line) for line in one.folder.read("loss.jsonl").splitlines()]
    for step in told:
        assert step["loss"] == 0.75 * step["ce"] + 0.25 * step["soft"]
    assert told[-1]["ce"] < told[0]["ce"]
    assert made.facts["softMilli"] == round(told[-1]["soft"] * 1000)
    assert b"soft targets" in one.folder.read("loss.svg")


def test_without_the_teachers_weights_it_is_the_text_alone_and_it_says_why(trial: MakeTrial, base: Path) -> None:
    facts = trial(with_probabilities(ROWS, base), epochs=1).run().facts
    assert facts["method"] == "Sequence"
    assert "teacher's tokenizer is not known" in facts["why"]
    assert facts["softMilli"] == 0
