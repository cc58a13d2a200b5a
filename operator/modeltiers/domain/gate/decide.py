"""The decision of the gate: every comparison that the rule asks for, and what follows from them together.

Pass: every comparison passes and nothing blocks. Each is tested at the look's full alpha: a bad student passes only if
the very comparison that it is bad in errs, so several do not add up (an intersection-union test).
Fail: any comparison is shown to be worse than its margin allows, or the student does not beat the untrained base on as
many items as would have shown a gain worth seeing. Named slices are judged together by Holm, both ways, so that many of
them do not fail a good student by luck, and each slice's own verdict holds beside the others'.
Inconclusive: neither. It says how many items are missing, and for what.

An equal student must come through several comparisons, each with the wanted power: the chance of all is lower.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from modeltiers.domain.gate import looks as ledgers
from modeltiers.domain.gate.items import TARGETS, GateError, Item, Pair, Target, mean, pairs_of
from modeltiers.domain.gate.looks import Exhausted, Ledger
from modeltiers.domain.gate.mimicry import Finding, mimicry
from modeltiers.domain.gate.paired import compare
from modeltiers.domain.gate.power import holm
from modeltiers.domain.gate.rule import Rule
from modeltiers.domain.gate.tally import tally
from modeltiers.domain.gate.verdict import Outcome, Verdict, absent, better_than_base, judged, no_regression, not_worse

_GRAVEST: Final[tuple[Outcome, ...]] = ("Fail", "Inconclusive", "Pass")


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gate says, and everything that it rests on."""

    outcome: Outcome
    why: str
    """What decided it, first."""
    items: int
    """Items of the evaluation part."""
    verdicts: tuple[Verdict, ...]
    """The first is of the reference: the incumbent, or the teacher where there is none."""
    findings: tuple[Finding, ...]
    alpha: float | None
    """What this look may err by; None where the sealed set had none left, and nothing was looked at."""
    ledger: Ledger
    """To be stored before the decision is told."""
    means: Mapping[Target, float]
    """Mean score on the evaluation part by model, from 0 to 1."""

    @property
    def more(self) -> int:
        """Items that are missing for the comparison that misses most."""
        return max((one.more for one in self.verdicts if one.outcome == "Inconclusive"), default=0)


def decide(rule: Rule, items: Sequence[Item], looks: Ledger, look: str) -> Decision:
    """Decide on the student, and enter the look in the ledger.

    `look` names what is looked at, by a digest over student, items and rule: asked again, it costs no alpha. Raises
    GateError where nothing can be decided from the items; no alpha is spent then.
    """
    evaluation = tuple(item for item in items if item.part == "evaluation")
    red_team = tuple(item for item in items if item.part == "redTeam")
    _refuse(rule, evaluation, red_team)
    means = {target: value for target in TARGETS if (value := mean(evaluation, target)) is not None}
    try:
        ledger, alpha = ledgers.spend(looks, look, rule.alpha / 1000, rule.max_looks, rule.spending)
    except Exhausted as error:
        return Decision("Inconclusive", str(error), len(evaluation), (), (), None, looks, means)
    verdicts = _verdicts(rule, evaluation, red_team, alpha)
    found = _mimicry(rule, evaluation, alpha)
    findings = (found,) if found else ()
    outcome, why = _together(verdicts, findings)
    return Decision(outcome, why, len(evaluation), verdicts, findings, alpha, ledger, means)


def _refuse(rule: Rule, evaluation: Sequence[Item], red_team: Sequence[Item]) -> None:
    if not evaluation:
        raise GateError("there are no items of part evaluation: nothing can be compared; seal some")
    if red_team and rule.red_team_margin is None:
        raise GateError(
            "there are items of part redTeam, and the rule has no redTeamMargin: give it, or leave them out"
        )


def _verdicts(rule: Rule, evaluation: Sequence[Item], red_team: Sequence[Item], alpha: float) -> tuple[Verdict, ...]:
    pairs = {target: pairs_of(evaluation, "student", target) for target in _compared(rule)}
    verdicts = []
    if rule.margin is not None:
        verdicts.append(not_worse(rule, "incumbent", pairs["incumbent"], "incumbent", rule.margin, alpha))
    if rule.teacher_margin is not None:
        verdicts.append(not_worse(rule, "teacher", pairs["teacher"], "teacher", rule.teacher_margin, alpha))
    verdicts.append(better_than_base(rule, pairs["base"], alpha))
    reference = rule.reference
    if rule.red_team_margin is not None:
        attacks = pairs_of(red_team, "student", reference)
        if rule.red_team_margin:
            verdicts.append(not_worse(rule, "redTeam", attacks, reference, rule.red_team_margin, alpha))
        else:
            verdicts.append(no_regression(rule, "redTeam", attacks, reference, alpha))
    if rule.out_of_slice_margin is not None:
        named = {one.name for one in rule.slices}
        everybody = zip(evaluation, pairs[reference], strict=True)
        outside = [pair for item, pair in everybody if item.slice not in named]
        verdicts.append(not_worse(rule, "outOfSlice", outside, reference, rule.out_of_slice_margin, alpha))
    return (*verdicts, *_slices(rule, evaluation, pairs[reference], alpha))


def _compared(rule: Rule) -> list[Target]:
    asked: list[Target] = ["base"]
    asked += ["incumbent"] if rule.margin is not None else []
    asked += ["teacher"] if rule.teacher_margin is not None else []
    return asked


def _slices(rule: Rule, items: Sequence[Item], pairs: Sequence[Pair], alpha: float) -> tuple[Verdict, ...]:
    if not rule.slices:
        return ()
    share = alpha / len(rule.slices)
    overall = compare(tally(pairs), 0.0, alpha)
    seen = []
    for one in rule.slices:
        inside = [pair for item, pair in zip(items, pairs, strict=True) if item.slice == one.name]
        seen.append(compare(tally(inside), one.margin / 1000, share) if inside else None)
    better = holm([one.p_value if one else 1.0 for one in seen])
    worse = holm([one.p_worse if one else 1.0 for one in seen])
    found = []
    for one, said, p_value, p_worse in zip(rule.slices, seen, better, worse, strict=True):
        name, reference = f"slice {one.name}", rule.reference
        if said is None:
            found.append(absent(rule, name, reference, one.margin, share, overall))
        else:
            adjusted = replace(said, p_value=p_value, p_worse=p_worse)
            found.append(judged(rule, name, adjusted, reference, one.margin, share, level=alpha))
    return tuple(found)


def _mimicry(rule: Rule, items: Sequence[Item], alpha: float) -> Finding | None:
    style = [
        Pair(item.cluster, item.style["student"], item.style["base"])
        for item in items
        if "student" in item.style and "base" in item.style
    ]
    accuracy = pairs_of([item for item in items if item.verifiable], "student", "base")
    return mimicry(style, accuracy, alpha, rule.power / 1000, rule.gain / 1000)


def _together(verdicts: Sequence[Verdict], findings: Sequence[Finding]) -> tuple[Outcome, str]:
    said = [(one.outcome, one.why) for one in verdicts]
    said += [(one.outcome, f"{one.reason}: {one.message}") for one in findings]
    outcome = min((one for one, _ in said), key=_GRAVEST.index)
    deciding = [why for one, why in said if one == outcome]
    # Of a Pass, the first comparison says it; of anything else, all that stand in the way.
    return outcome, deciding[0] if outcome == "Pass" else "; ".join(deciding)
