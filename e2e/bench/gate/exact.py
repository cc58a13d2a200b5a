"""Promotion among items that stand alone, to the last digit: every outcome weighed by its chance, nothing is drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from math import exp, lgamma, log, sqrt

from modeltiers.domain.gate.paired import compare, p_values
from modeltiers.domain.gate.power import items_needed
from modeltiers.domain.gate.rule import Rule
from modeltiers.domain.gate.tally import of_counts
from modeltiers.domain.gate.verdict import needed_items

Says = Callable[[int, int, int], bool]
"""Whether a rule says so of so many won and lost, of so many items: mostly, that the student is promoted."""

MARGIN, ALPHA, POWER = 0.02, 0.05, 0.8
RULE = Rule(margin=20, alpha=50, power=800, max_looks=1)
"""The same as a rule; one look, so that all of alpha is this one's."""


def within_points(won: int, lost: int, items: int) -> bool:
    """The rule of a point estimate: no more than the margin worse, as it was seen."""
    return won - lost >= -MARGIN * items


def not_significant(won: int, lost: int, items: int) -> bool:
    """The rule of a test that finds nothing: McNemar's at 5 %, two-sided."""
    del items
    return abs(won - lost) <= 1.959964 * sqrt(won + lost)


@cache
def shown(won: int, lost: int, items: int, margin: float = MARGIN) -> bool:
    """The gate's test alone, on any number of items."""
    return p_values(of_counts(won, lost, items), margin)[0] <= ALPHA


def gate(won: int, lost: int, items: int, margin: float = MARGIN) -> bool:
    """The gate: shown, on as many items as the power takes, worked out from the same look."""
    if not shown(won, lost, items, margin):
        return False
    if shown(won, lost, items, 0.0):
        seen = compare(of_counts(won, lost, items), margin, ALPHA)
        return items >= needed_items(RULE, seen, round(1000 * margin), ALPHA)
    return items >= items_needed((won + lost) / items, margin, ALPHA, POWER)


@cache
def fails(won: int, lost: int, items: int) -> bool:
    """The gate's other outcome: shown to be worse than the margin allows."""
    return p_values(of_counts(won, lost, items), MARGIN)[1] <= ALPHA


def chance(says: Says, items: int, discordance: float, worse: float) -> float:
    """Chance that a rule says so where the models differ on a share of items, and the student is `worse` by so much."""
    win, lose = (discordance - worse) / 2, (discordance + worse) / 2
    return sum(weight for won, lost, weight in outcomes(items, win, lose) if says(won, lost, items))


def outcomes(items: int, win: float, lose: float) -> Iterator[tuple[int, int, float]]:
    """Won, lost and the chance of that; what lies beyond six deviations is left out."""
    neither = log(1 - win - lose)
    for won in _likely(items, win):
        for lost in _likely(items, lose):
            rest = items - won - lost
            if rest < 0:
                continue
            ways = lgamma(items + 1) - lgamma(won + 1) - lgamma(lost + 1) - lgamma(rest + 1)
            yield won, lost, exp(ways + _times(won, win) + _times(lost, lose) + rest * neither)


def _likely(items: int, share: float) -> range:
    around, deviation = items * share, sqrt(items * share * (1 - share))
    return range(max(0, int(around - 6 * deviation - 3)), min(items, int(around + 6 * deviation + 3)) + 1)


def _times(count: int, share: float) -> float:
    if not count:
        return 0.0
    return count * log(share) if share > 0 else float("-inf")
