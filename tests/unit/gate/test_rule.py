"""A rule that demands nothing, or nonsense, is refused with the field's name."""

from __future__ import annotations

from typing import Any

import pytest

from modeltiers.domain.gate.items import GateError
from modeltiers.domain.gate.rule import Pilot, Rule, SliceRule


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"margin": None}, "compares with nobody"),
        ({"margin": -1}, "margin is -1; give a whole number from 0 to 999"),
        ({"margin": 0.02}, "margin is 0.02"),
        ({"margin": True}, "margin is True"),
        ({"teacher_margin": 1000}, "teacher_margin is 1000"),
        ({"red_team_margin": -5}, "red_team_margin is -5"),
        ({"out_of_slice_margin": 1000}, "out_of_slice_margin is 1000"),
        ({"alpha": 0}, "alpha is 0; give a whole number from 1 to 499"),
        ({"power": 1000}, "power is 1000"),
        ({"gain": 0}, "gain is 0"),
        ({"max_looks": 0}, "maxLooks is 0"),
        ({"spending": "All"}, "spending is 'All'; give one of Halving, Equal"),
        ({"slices": (SliceRule("a"), SliceRule("a"))}, "a name is there twice"),
        ({"slices": (SliceRule("a", 1000),)}, r"slices\[a\].margin is 1000"),
        ({"pilot": Pilot(1001)}, "pilot.discordance is 1001"),
        ({"pilot": Pilot(100, 900)}, "pilot.design_effect is 900"),
    ],
)
def test_a_rule_that_makes_no_sense(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(GateError, match=said):
        Rule(**fields)


def test_without_an_incumbent_the_teacher_is_the_measure() -> None:
    assert Rule().reference == "incumbent"
    assert Rule(margin=None, teacher_margin=30).reference == "teacher"
