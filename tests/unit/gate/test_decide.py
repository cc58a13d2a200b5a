"""The gate's decision: what passes, what fails, and what cannot be said yet."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeltiers.domain.gate.decide import Decision, decide
from modeltiers.domain.gate.items import GateError, Item
from modeltiers.domain.gate.looks import Ledger
from modeltiers.domain.gate.report import to_mapping
from modeltiers.domain.gate.rule import Pilot, Rule, SliceRule
from modeltiers.domain.gate.verdict import Verdict
from tests.unit.gate.people import items

ONCE = Rule(max_looks=1)
NEW = Ledger("sealed")


def decided(given: list[Item], rule: Rule = ONCE) -> Decision:
    return decide(rule, given, NEW, "look")


def verdict(decision: Decision, name: str) -> Verdict:
    return next(one for one in decision.verdicts if one.name == name)


def test_an_equal_student_passes_on_enough_items() -> None:
    found = decided(items(2000, gained=60, lost=60))
    assert found.outcome == "Pass"
    said = "not worse than the incumbent by more than 2 points: +0.0 points (between -0.9 and +0.9) on 2000 items"
    assert found.why == f"incumbent: {said}"
    assert found.alpha == 0.05
    assert found.more == 0
    incumbent = verdict(found, "incumbent")
    assert (incumbent.n, incumbent.needed) == (2000, 928)  # 0.06 x 6.18 / 0.02^2
    assert found.means == {"student": 0.9, "base": 0.5, "incumbent": 0.9, "teacher": 0.9}


def test_a_student_that_is_shown_to_be_worse_fails() -> None:
    found = decided(items(2000, gained=20, lost=120))
    assert found.outcome == "Fail"
    assert found.why.startswith("incumbent: shown to be worse than the incumbent by more than 2 points: -5.0 points")


def test_a_student_that_is_plainly_worse_fails_on_few_items() -> None:
    assert decided(items(60, lost=30, base=0)).outcome == "Fail"


def test_a_student_near_the_margin_is_told_how_many_more() -> None:
    found = decided(items(3000, gained=85, lost=130))
    assert found.outcome == "Inconclusive"
    assert found.why.endswith("more items would show it not worse")
    assert verdict(found, "incumbent").more == found.more > 500


def test_on_the_margin_itself_no_number_of_items_tells() -> None:
    found = decided(items(2000, gained=40, lost=80))
    assert found.outcome == "Inconclusive"
    assert "no number of items would tell" in found.why
    assert found.more == 0


@pytest.mark.parametrize("count", [20, 50, 100, 148])
def test_a_copy_on_too_few_items_is_inconclusive(count: int) -> None:
    found = decided(items(count, base=0))
    assert found.outcome == "Inconclusive"
    assert (verdict(found, "incumbent").needed, found.more) == (149, 149 - count)
    assert f"{count} items are too few to say: 149 are needed, {149 - count} more" in found.why


def test_a_test_that_is_passed_on_too_few_items_is_inconclusive() -> None:
    found = decided(items(900, gained=50, lost=36, base=0))
    seen = verdict(found, "incumbent").seen
    assert seen is not None
    assert seen.p_value < 0.05
    assert verdict(found, "incumbent").needed > 900
    assert found.outcome == "Inconclusive"


def test_a_student_that_is_shown_to_be_better_needs_no_proof_cut_for_an_equal_one() -> None:
    found = decided(
        [replace(one, scores={**one.scores, "incumbent": one.scores["base"]}) for one in items(300, base=300)]
    )
    assert found.outcome == "Pass"
    incumbent = verdict(found, "incumbent")
    assert incumbent.needed == 149
    assert incumbent.seen is not None
    assert incumbent.seen.discordance > 0.5


def test_a_pilot_says_how_many_are_needed() -> None:
    given = items(1500, gained=45, lost=45)
    assert verdict(decided(given), "incumbent").needed == 928
    assert decided(given).outcome == "Pass"
    found = decided(given, replace(ONCE, pilot=Pilot(100)))
    assert verdict(found, "incumbent").needed == 1546
    assert found.outcome == "Inconclusive"
    assert verdict(decided(given, replace(ONCE, pilot=Pilot(100, 2500))), "incumbent").needed == 3865


def test_the_untrained_base_must_be_beaten() -> None:
    same = [replace(one, scores={**one.scores, "base": one.scores["student"]}) for one in items(2000)]
    found = decided(same)
    assert found.outcome == "Fail"
    assert found.why.startswith("base: no better than untrained: +0.0 points")
    assert "where 59 items show a gain of 5 points" in found.why


def test_a_base_that_is_shown_to_be_better_fails_the_student() -> None:
    found = decided(items(2000, base=1000))
    assert found.outcome == "Fail"
    assert found.why.startswith("base: worse than untrained: -10.0 points")


def test_a_gain_that_too_few_items_hide_is_inconclusive() -> None:
    found = decided(items(400, base=880))
    assert verdict(found, "incumbent").outcome == "Pass"
    assert verdict(found, "base").outcome == "Inconclusive"
    assert verdict(found, "base").needed > 400
    assert found.outcome == "Inconclusive"


def test_the_teacher_is_compared_where_the_rule_says_so() -> None:
    given = [replace(one, scores={**one.scores, "teacher": 1000}) for one in items(2000)]
    assert decided(given).outcome == "Pass"
    assert [one.name for one in decided(given).verdicts] == ["incumbent", "base"]
    found = decided(given, replace(ONCE, teacher_margin=30))
    assert found.outcome == "Fail"
    assert found.why.startswith("teacher: shown to be worse than the teacher by more than 3 points: -10.0 points")


def test_without_an_incumbent_the_teacher_is_the_measure() -> None:
    given = [replace(one, scores={k: v for k, v in one.scores.items() if k != "incumbent"}) for one in items(2000)]
    rule = Rule(margin=None, teacher_margin=20, max_looks=1, out_of_slice_margin=30)
    found = decided(given, rule)
    assert found.outcome == "Pass"
    assert [(one.name, one.reference) for one in found.verdicts] == [
        ("teacher", "teacher"),
        ("base", "base"),
        ("outOfSlice", "teacher"),
    ]


# --- slices -----------------------------------------------------------------------------------------------------------


def in_slices(**of: dict[str, int]) -> list[Item]:
    return [one for name, how in of.items() for one in items(how.pop("count"), **how, of_slice=name, name=name)]


def test_a_bad_slice_fails_a_student_that_is_good_overall() -> None:
    given = in_slices(refunds={"count": 300, "lost": 40}, other={"count": 2700, "gained": 40})
    rule = replace(ONCE, slices=(SliceRule("refunds"), SliceRule("other")))
    found = decided(given, rule)
    assert verdict(found, "incumbent").outcome == "Pass"
    assert found.outcome == "Fail"
    assert found.why.startswith(
        "slice refunds: shown to be worse than the incumbent by more than 5 points: -13.3 points"
    )
    assert verdict(found, "slice other").outcome == "Pass"


def test_slices_are_judged_together() -> None:
    """Eight slices: what one of them alone would fail by is luck among eight."""
    given = in_slices(**{f"s{n}": {"count": 400, "lost": 30 if n == 0 else 0} for n in range(8)})
    alone = decided(given, replace(ONCE, slices=(SliceRule("s0"),)))
    together = decided(given, replace(ONCE, slices=tuple(SliceRule(f"s{n}") for n in range(8))))
    assert verdict(alone, "slice s0").outcome == "Fail"
    assert verdict(together, "slice s0").outcome == "Inconclusive"
    one, many = verdict(alone, "slice s0").seen, verdict(together, "slice s0").seen
    assert one is not None
    assert many is not None
    assert many.p_worse == pytest.approx(8 * one.p_worse)
    assert many.lower < one.lower


def test_a_slice_without_items_is_inconclusive() -> None:
    found = decided(items(2000, of_slice="a"), replace(ONCE, slices=(SliceRule("a"), SliceRule("b"))))
    assert found.outcome == "Inconclusive"
    assert found.why == "slice b: there are no items; 72 are needed"
    assert verdict(found, "slice b").seen is None


def test_items_of_no_named_slice_can_have_a_margin_of_their_own() -> None:
    given = in_slices(refunds={"count": 2000, "gained": 60}, misc={"count": 400, "lost": 60})
    rule = replace(ONCE, slices=(SliceRule("refunds"),))
    assert decided(given, rule).outcome == "Pass"
    found = decided(given, replace(rule, out_of_slice_margin=50))
    assert found.outcome == "Fail"
    assert found.why.startswith("outOfSlice: shown to be worse")
    assert verdict(found, "outOfSlice").n == 400


# --- red team ---------------------------------------------------------------------------------------------------------


def attacked(count: int, **how: int) -> list[Item]:
    return items(2000) + items(count, part="redTeam", name="r", **how)


def test_nothing_may_be_lost_on_the_red_team_set() -> None:
    rule = replace(ONCE, red_team_margin=0)
    assert decided(attacked(200), rule).outcome == "Pass"
    assert decided(attacked(200, gained=3, lost=3), rule).outcome == "Pass"
    found = decided(attacked(200, lost=1), rule)
    assert found.outcome == "Inconclusive"
    assert "scored lower than the incumbent, which its margin of 0 forbids" in found.why
    assert decided(attacked(200, lost=10), rule).outcome == "Fail"


@pytest.mark.parametrize("count", [0, 20, 58])
def test_a_red_team_set_that_is_too_small_shows_nothing(count: int) -> None:
    found = decided(attacked(count), replace(ONCE, red_team_margin=0))
    assert found.outcome == "Inconclusive"
    assert verdict(found, "redTeam").needed == 59
    assert found.more == 59 - count


def test_a_red_team_margin_is_shown_like_any_other() -> None:
    rule = replace(ONCE, red_team_margin=30)
    assert decided(attacked(600, gained=4, lost=6), rule).outcome == "Pass"
    assert decided(attacked(600, lost=60), rule).outcome == "Fail"
    assert decided(attacked(0), rule).outcome == "Inconclusive"
    assert verdict(decided(attacked(0), rule), "redTeam").needed == 99


# --- looks ------------------------------------------------------------------------------------------------------------


def test_each_look_costs_alpha_and_the_last_is_the_last() -> None:
    rule, given, ledger = Rule(max_looks=3), items(3000, gained=30, lost=30), NEW
    for look, alpha in (("a", 0.025), ("b", 0.0125), ("c", 0.0125)):
        found = decide(rule, given, ledger, look)
        assert (found.outcome, found.alpha) == ("Pass", alpha)
        ledger = found.ledger
    assert decide(rule, given, ledger, "b").alpha == 0.0125
    refused = decide(rule, given, ledger, "d")
    assert refused.outcome == "Inconclusive"
    assert "rotate it" in refused.why
    assert (refused.alpha, refused.verdicts, refused.ledger) == (None, (), ledger)


def test_less_alpha_needs_more_items() -> None:
    given = items(1000, gained=25, lost=25)
    assert decided(given).outcome == "Pass"
    found = decided(given, Rule(max_looks=5, spending="Equal"))
    assert found.outcome == "Inconclusive"
    assert verdict(found, "incumbent").needed == 1255  # 0.05 x 10.04 / 0.02^2


# --- mimicry ----------------------------------------------------------------------------------------------------------


def test_a_student_that_only_sounds_better_is_blocked() -> None:
    """A judge likes it, its wording came nearer to the teacher's, and what can be checked did not get better."""
    judged = [replace(one, verifiable=False) for one in items(2000, base=300)]
    checked = [replace(one, scores={**one.scores, "base": one.scores["student"]}) for one in items(400, name="v")]
    given = [replace(one, style={"student": 800, "base": 300}) for one in judged + checked]
    found = decided(given)
    assert [one.outcome for one in found.verdicts] == ["Pass", "Pass"]
    assert found.outcome == "Fail"
    assert found.why.startswith("Mimicry: the student's wording came nearer to the teacher's, +50.0 points")
    assert found.findings[0].outcome == "Fail"
    assert decided([replace(one, style={}) for one in given]).outcome == "Pass"


# --- all together -----------------------------------------------------------------------------------------------------


def test_what_stands_in_the_way_is_all_told() -> None:
    given = attacked(200, lost=20)
    given = [replace(one, scores={**one.scores, "teacher": 1000}) for one in given]
    found = decided(given, replace(ONCE, red_team_margin=0, teacher_margin=20))
    assert found.outcome == "Fail"
    assert "teacher: shown to be worse" in found.why
    assert "; redTeam: shown to be worse" in found.why


@pytest.mark.parametrize(
    ("given", "rule", "said"),
    [
        ([], ONCE, "there are no items of part evaluation"),
        (items(5, part="redTeam"), replace(ONCE, red_team_margin=0), "there are no items of part evaluation"),
        (attacked(5), ONCE, "items of part redTeam, and the rule has no redTeamMargin"),
        ([Item("a", "a", {"student": 0, "base": 0})], ONCE, "item 'a' has no score of the incumbent"),
    ],
)
def test_what_cannot_be_decided_is_refused_and_costs_nothing(given: list[Item], rule: Rule, said: str) -> None:
    with pytest.raises(GateError, match=said):
        decided(given, rule)


@settings(max_examples=25)
@given(st.integers(0, 9), st.integers(0, 9), st.integers(10, 60), st.randoms(use_true_random=False))
def test_order_does_not_matter_and_it_can_be_stored(gained: int, lost: int, tens: int, random: Random) -> None:
    given = [replace(one, slice="ab"[n % 2]) for n, one in enumerate(items(10 * tens, gained=gained, lost=lost))]
    rule = Rule(slices=(SliceRule("a"), SliceRule("b")), teacher_margin=20)
    found = decided(given, rule)
    assert decided(random.sample(given, len(given)), rule) == found
    for one in found.verdicts:
        assert one.outcome != "Pass" or one.n >= one.needed or one.name == "base"
    stored = json.loads(json.dumps(to_mapping(found)))
    assert stored["decision"] == found.outcome
    assert stored["items"] == 10 * tens
    assert len(stored["comparisons"]) == 5


def test_what_is_stored() -> None:
    stored: dict[str, Any] = to_mapping(decided(items(2000, gained=60, lost=60)))
    assert {key: stored[key] for key in ("decision", "items", "needed", "differencePermille", "lowerPermille")} == {
        "decision": "Pass",
        "items": 2000,
        "needed": 928,
        "differencePermille": 0,
        "lowerPermille": -10,
    }
    assert stored["meansPermille"] == {"student": 900, "base": 500, "incumbent": 900, "teacher": 900}
    assert stored["comparisons"][0]["upperPermille"] == 10
    exhausted = to_mapping(decide(ONCE, items(10), Ledger("s", (("x", 0.05),)), "y"))
    assert (exhausted["comparisons"], exhausted["items"]) == ([], 10)
    assert "needed" not in exhausted
