"""The ledger of a sealed set: what each look costs, and when there is none left."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.domain.gate.items import GateError
from modeltiers.domain.gate.looks import Exhausted, Ledger, Spending, alpha_of, open_ledger, read_ledger, spend


def test_halving_and_equal() -> None:
    assert [alpha_of(look, 0.05, 5) for look in range(1, 6)] == [0.025, 0.0125, 0.00625, 0.003125, 0.003125]
    assert [alpha_of(look, 0.05, 5, "Equal") for look in range(1, 6)] == [0.01] * 5
    assert alpha_of(1, 0.05, 1) == 0.05


@given(st.floats(0.001, 0.4), st.integers(1, 40), st.sampled_from(["Halving", "Equal"]))
def test_looks_add_up_to_all_and_no_more(total: float, most: int, spending: Spending) -> None:
    ledger = Ledger("sealed")
    for look in range(most):
        ledger, _ = spend(ledger, str(look), total, most, spending)
    assert sum(alpha for _, alpha in ledger.spent) == pytest.approx(total)
    with pytest.raises(Exhausted, match="rotate it"):
        spend(ledger, "one more", total, most, spending)


def test_the_same_look_again_costs_nothing() -> None:
    once, alpha = spend(Ledger("sealed"), "student-1", 0.05, 2)
    assert spend(once, "student-1", 0.05, 2) == (once, alpha)
    twice, _ = spend(once, "student-2", 0.05, 2)
    assert spend(twice, "student-1", 0.05, 2) == (twice, alpha)
    with pytest.raises(Exhausted, match="looked at 2 times"):
        spend(twice, "student-3", 0.05, 2)


def test_a_rule_made_stricter_binds_at_once() -> None:
    ledger, _ = spend(Ledger("sealed"), "student-1", 0.20, 5)
    with pytest.raises(Exhausted, match=r"spent its alpha of 0\.05 in 1 looks: rotate it"):
        spend(ledger, "student-2", 0.05, 5)


def test_it_is_stored_and_read_again() -> None:
    ledger, _ = spend(open_ledger("sealed", ["b", "a"], ()), "student-1", 0.05, 5)
    assert ledger.items == ("a", "b")
    assert read_ledger(json.loads(json.dumps(ledger.to_mapping()))) == ledger


def test_a_set_that_grew_or_was_drawn_anew_is_no_new_one() -> None:
    first, _ = spend(open_ledger("one", ["a", "b"], ()), "student-1", 0.05, 2)
    other, _ = spend(open_ledger("two", ["c"], [first]), "student-2", 0.05, 2)
    assert len(other.spent) == 1
    grown = open_ledger("three", ["b", "c", "d"], [first, other])
    assert [look for look, _ in grown.spent] == ["student-1", "student-2"]
    with pytest.raises(Exhausted):
        spend(grown, "student-3", 0.05, 2)
    assert open_ledger("four", ["d", "e"], [first, other]).spent == ()
    assert open_ledger("one", ["a", "b"], [first, other]) == first


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({}, "sealed, spent or items are missing"),
        ({"sealed": "s", "spent": []}, "sealed, spent or items are missing"),
        ({"sealed": "s", "items": [], "spent": [{"look": "a"}]}, "look 1 is damaged"),
        ({"sealed": "s", "items": [], "spent": ["a"]}, "look 1 is damaged"),
        ({"sealed": "s", "items": [], "spent": [{"look": "a", "alpha": 0.0}]}, "look 1 is damaged"),
        ({"sealed": "s", "items": [], "spent": [{"look": "a", "alpha": 0.01}] * 2}, "there twice"),
    ],
)
def test_a_damaged_ledger_is_not_begun_anew(value: dict[str, object], said: str) -> None:
    with pytest.raises(GateError, match=said):
        read_ledger(value)


@pytest.mark.parametrize(("look", "most"), [(0, 5), (1, 0)])
def test_looks_count_from_one(look: int, most: int) -> None:
    with pytest.raises(GateError, match="count from 1"):
        alpha_of(look, 0.05, most)
