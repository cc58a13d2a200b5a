"""Rows that a program wrote become items, or a message that names the row and the way out."""

from __future__ import annotations

from typing import Any

import pytest

from modeltiers.domain.gate.items import GateError, Item, Pair, mean, pairs_of, read_items

SCORES = {"student": 1000, "base": 0, "incumbent": 667, "teacher": 1000}
ROW = {"item": "i1", "cluster": "c1", "slice": "refunds", "part": "redTeam", "scores": SCORES}


def test_a_row_as_it_is_written() -> None:
    assert read_items([ROW]) == (Item("i1", "c1", SCORES, "redTeam", "refunds"),)


def test_what_may_be_left_out() -> None:
    (item,) = read_items(
        [{"item": "i1", "cluster": None, "slice": None, "scores": {"student": 1, "base": 0}, "answer": "x"}]
    )
    assert item == Item("i1", "i1", {"student": 1, "base": 0}, "evaluation", None)
    assert item.verifiable


def test_pairs_and_means() -> None:
    items = read_items([ROW, {**ROW, "item": "i2", "scores": {**SCORES, "student": 500}}])
    assert pairs_of(items, "student", "incumbent") == (Pair("c1", 1000, 667), Pair("c1", 500, 667))
    assert mean(items, "student") == 0.75
    assert mean((), "student") is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"item": None}, "row 2: item is missing"),
        ({"item": 7}, "row 2: item is 7; give a text"),
        ({"item": "i1"}, "row 2: item 'i1' is there twice: write each item once, samples averaged"),
        ({"cluster": ""}, "cluster is ''; give a text, or leave it out"),
        ({"slice": ["a"]}, r"slice is \['a'\]; give a text"),
        ({"part": "calibration"}, "part is 'calibration'; give one of evaluation, redTeam"),
        ({"scores": None}, "scores is not an object"),
        ({"scores": {"student": 1000}}, "scores has no base: student and base are always compared"),
        ({"scores": {"base": 1000}}, "scores has no student"),
        ({"scores": {**SCORES, "judge": 1}}, "scores has 'judge'; models are student, base, incumbent, teacher"),
        ({"scores": {**SCORES, "base": 1001}}, "scores.base is 1001; give a whole number of permille, 0 to 1000"),
        ({"scores": {**SCORES, "base": -1}}, "scores.base is -1"),
        ({"scores": {**SCORES, "base": 0.5}}, "scores.base is 0.5"),
        ({"scores": {**SCORES, "base": True}}, "scores.base is True"),
        ({"scores": {**SCORES, "base": float("nan")}}, "scores.base is nan"),
        ({"style": {"student": 2000}}, "style.student is 2000"),
        ({"verifiable": "yes"}, "verifiable is 'yes'; give true or false"),
    ],
)
def test_a_row_that_is_wrong_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(GateError, match=said) as refused:
        read_items([ROW, {**ROW, "item": "i2", **change}])
    assert "row 2" in str(refused.value)


def test_a_row_that_is_no_object() -> None:
    with pytest.raises(GateError, match="row 1 is not an object"):
        read_items(["text"])


def test_a_model_that_was_not_asked() -> None:
    items = read_items([ROW, {"item": "i2", "scores": {"student": 1, "base": 0}}])
    with pytest.raises(GateError, match="item 'i2' has no score of the incumbent: evaluate every model on all items"):
        pairs_of(items, "student", "incumbent")
