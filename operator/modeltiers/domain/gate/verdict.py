"""One comparison of a student with another model, judged.

Fail says that the student is shown to be worse than its margin allows: the upper bound of the difference lies below it.
That needs no number of items, since the test keeps its error at any. Pass needs two things: the difference is shown to
lie above the margin, and the items are as many as the wanted power takes. The second adds nothing to the proof, and so
cannot make a wrong Pass likelier, wherever the needed number comes from; it is there because a set on which an equal
student would mostly not pass is passed by the lucky, and whoever tries often enough has one. Between the two lies
Inconclusive, which says how many items are missing.

The needed number follows from how often the two models differ. Taken from the same look, that is an estimate, and at
the very number half of all looks find themselves short: seal 15 % more, or give a pilot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from modeltiers.domain.gate.items import Pair, Target
from modeltiers.domain.gate.paired import Comparison, compare
from modeltiers.domain.gate.power import items_for, items_needed
from modeltiers.domain.gate.rule import Rule
from modeltiers.domain.gate.tally import tally

Outcome = Literal["Pass", "Fail", "Inconclusive"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one comparison says."""

    name: str
    """Whom or what it is about: incumbent, teacher, base, redTeam, outOfSlice, or `slice NAME`."""
    reference: Target
    outcome: Outcome
    why: str
    margin: int
    """Permille."""
    n: int
    needed: int
    seen: Comparison | None = None
    """None where there are no items. Of slices, bounds that hold together, and p-values adjusted by Holm."""
    more: int = 0
    """Items still missing; 0 where more would not help, or nothing is missing."""


def not_worse(rule: Rule, name: str, pairs: Sequence[Pair], reference: Target, margin: int, alpha: float) -> Verdict:
    """Judge whether the student is at most `margin` permille worse."""
    if not pairs:
        return absent(rule, name, reference, margin, alpha)
    seen = compare(tally(pairs), margin / 1000, alpha)
    return judged(rule, name, seen, reference, margin, alpha, level=alpha)


def judged(
    rule: Rule, name: str, seen: Comparison, reference: Target, margin: int, alpha: float, *, level: float
) -> Verdict:
    """Judge a comparison; `level` is the alpha of its p-values, `alpha` that of the number of items."""
    needed = needed_items(rule, seen, margin, alpha)
    than = f"than the {reference} by more than {points(margin)}" if margin else f"than the {reference}"
    if seen.p_worse <= level:
        why = f"{name}: shown to be worse {than}: {bounds(seen)}"
        return Verdict(name, reference, "Fail", why, margin, seen.n, needed, seen)
    if seen.n < needed:
        return _short(name, seen, reference, margin, needed)
    if seen.p_value <= level:
        shown = f"not worse {than}" if margin else f"better {than}"
        return Verdict(name, reference, "Pass", f"{name}: {shown}: {bounds(seen)}", margin, seen.n, needed, seen)
    enough = items_for(seen, margin / 1000, alpha, rule.power / 1000)
    more = enough - seen.n if enough is not None else 0
    why = f"{name}: neither shown to be worse {than} nor not to be: {bounds(seen)}; {_advice(seen, margin, more)}"
    return Verdict(name, reference, "Inconclusive", why, margin, seen.n, needed, seen, more)


def better_than_base(rule: Rule, pairs: Sequence[Pair], alpha: float) -> Verdict:
    """Judge whether training gained anything. A gain that is shown passes on any number of items; one that is not
    fails on as many as would have shown a gain worth seeing."""
    seen = compare(tally(pairs), 0.0, alpha)
    needed = items_needed(seen.discordance, rule.gain / 1000, alpha, rule.power / 1000, seen.design_effect)
    if seen.p_value <= alpha:
        return Verdict("base", "base", "Pass", f"base: better than untrained: {bounds(seen)}", 0, seen.n, needed, seen)
    if seen.p_worse <= alpha:
        return Verdict("base", "base", "Fail", f"base: worse than untrained: {bounds(seen)}", 0, seen.n, needed, seen)
    if seen.n >= needed:
        why = f"base: no better than untrained: {bounds(seen)}, where {needed} items show a gain of {points(rule.gain)}"
        return Verdict("base", "base", "Fail", why, 0, seen.n, needed, seen)
    return _short("base", seen, "base", 0, needed)


def no_regression(rule: Rule, name: str, pairs: Sequence[Pair], reference: Target, alpha: float) -> Verdict:
    """Judge a set on which nothing may be lost at all, as it was seen: no number of items proves a margin of 0.

    It needs as many items as would show one loss where losses are as frequent as a gain is worth seeing.
    """
    if not pairs:
        return absent(rule, name, reference, 0, alpha)
    seen = compare(tally(pairs), 0.0, alpha)
    needed = items_needed(0.0, rule.gain / 1000, alpha, rule.power / 1000, seen.design_effect)
    if seen.p_worse <= alpha:
        why = f"{name}: shown to be worse than the {reference}: {bounds(seen)}"
        return Verdict(name, reference, "Fail", why, 0, seen.n, needed, seen)
    if seen.n < needed:
        return _short(name, seen, reference, 0, needed)
    if seen.difference < 0:
        why = f"{name}: scored lower than the {reference}, which its margin of 0 forbids: {bounds(seen)}; look at those"
        why += " items, or allow a margin"
        return Verdict(name, reference, "Inconclusive", why, 0, seen.n, needed, seen)
    why = f"{name}: scored no lower than the {reference}: {bounds(seen)}"
    return Verdict(name, reference, "Pass", why, 0, seen.n, needed, seen)


def absent(
    rule: Rule, name: str, reference: Target, margin: int, alpha: float, like: Comparison | None = None
) -> Verdict:
    """A comparison without items; `like` is one that differs about as much."""
    needed = needed_items(rule, like, margin, alpha)
    why = f"{name}: there are no items; {needed} are needed"
    return Verdict(name, reference, "Inconclusive", why, margin, 0, needed, None, needed)


def needed_items(rule: Rule, seen: Comparison | None, margin: int, alpha: float) -> int:
    """Items that the wanted power takes for an equal student, by the rule's pilot, else by what was seen.

    A student that is shown to be better than its reference is taken for as much better as is shown: it needs no proof
    that is cut for an equal one. It needs as many items as show one loss in the margin, as everybody does. Where a
    margin of 0 asks for a gain, the gain worth seeing stands in its place.
    """
    discordance, effect, better = (seen.discordance, seen.design_effect, seen.lower) if seen else (0.0, 1.0, 0.0)
    if rule.pilot:
        discordance, effect = rule.pilot.discordance / 1000, rule.pilot.design_effect / 1000
    least = (margin or rule.gain) / 1000
    floor = items_needed(0.0, least, alpha, rule.power / 1000, effect)
    distance = min(least + max(0.0, better), 0.999)
    return max(floor, items_needed(discordance, distance, alpha, rule.power / 1000, effect))


def points(permille: int) -> str:
    """A margin in words."""
    return f"{permille / 10:g} point{'' if permille == 10 else 's'}"


def bounds(seen: Comparison) -> str:
    """A difference in words."""
    low, high = max(-100.0, 100 * seen.lower), min(100.0, 100 * seen.upper)
    return f"{100 * seen.difference:+.1f} points (between {low:+.1f} and {high:+.1f}) on {seen.n} items"


def _short(name: str, seen: Comparison, reference: Target, margin: int, needed: int) -> Verdict:
    more = needed - seen.n
    why = f"{name}: {seen.n} items are too few to say: {needed} are needed, {more} more; so far {bounds(seen)}"
    return Verdict(name, reference, "Inconclusive", why, margin, seen.n, needed, seen, more)


def _advice(seen: Comparison, margin: int, more: int) -> str:
    if not more:
        return "it lies on the margin, and no number of items would tell"
    likely = "not worse" if seen.difference > -margin / 1000 else "worse"
    return f"if that is the true difference, {more} more items would show it {likely}"
