"""Two models on the same items: how far apart, how sure, and whether the one is shown not to be worse than a margin.

Scores of 0 or 1 on items that stand alone: the score test of Tango (Statistics in Medicine 17, 1998, 891-908), whose
variance is that of the hypothesis. At few items it keeps its error where Wald's and the t-test do not: a sample without
a single loss has no variance to estimate, and they take its student for perfect.

Graded scores, or items in clusters: the same test with clusters for items and events of the tally's size, so that rare
losses of whole conversations are as dear as they are. The tail is Student's t with the degrees of freedom of Bell and
McCaffrey, which fall when clusters are unequal. With clusters of one and scores of 0 or 1 it is Tango's test again.

Simulated (`tests/unit/gate`, `e2e/bench/gate.py`) at 20 to 800 clusters of 1 to 20 items, the error at the margin is
near or below alpha. Where losses are rare and whole (a conversation in a hundred fails altogether) it can be up to 1.7
times alpha: against losses that a sample need not show, only more clusters help.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, inf, log, sqrt
from typing import Final

from modeltiers.domain.gate.items import GateError, Pair
from modeltiers.domain.gate.student_t import critical, upper_tail
from modeltiers.domain.gate.tally import Tally, tally

_HALVINGS: Final = 60


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the test says."""

    difference: float
    lower: float
    """Bound that the true difference is above with confidence 1 - alpha; `upper` is the one it is below."""
    upper: float
    p_value: float
    """Of the hypothesis that the candidate is worse than the margin or as bad."""
    p_worse: float
    """Of the hypothesis that it is better than the margin or as good."""
    n: int
    clusters: int
    discordance: float
    design_effect: float


def non_inferiority(pairs: Iterable[Pair], margin: float, alpha: float) -> Comparison:
    """Test whether the candidate is worse than the reference by less than `margin`, one-sided at `alpha`.

    Shown when `p_value <= alpha`, which is when `lower > -margin`. Margin 0 tests whether it is better. Raises
    GateError where there is nothing to compare, and for a margin outside [0, 1) or an alpha outside (0, 0.5).
    """
    return compare(tally(pairs), margin, alpha)


def compare(counted: Tally, margin: float, alpha: float) -> Comparison:
    """The same, from pairs already counted."""
    if not 0 <= margin < 1:
        raise GateError(f"margin is {margin:g}; it must be at least 0 and below 1")
    if not 0 < alpha < 0.5:
        raise GateError(f"alpha is {alpha:g}; it must be above 0 and below 0.5")
    lower, upper = _bounds(counted, alpha)
    p_value, p_worse = p_values(counted, margin)
    return Comparison(
        counted.difference,
        lower,
        upper,
        p_value,
        p_worse,
        counted.items,
        counted.clusters,
        counted.discordance,
        counted.design_effect,
    )


def p_values(counted: Tally, margin: float) -> tuple[float, float]:
    """Of the hypotheses that the candidate is at least `margin` worse, and that it is at most `margin` worse."""
    score = _score(counted, -margin)
    return upper_tail(score, counted.df), upper_tail(-score, counted.df)


def fewest(margin: float, alpha: float) -> int:
    """Items without a single difference that it takes: with fewer, one loss in `margin` might not have shown up."""
    return ceil(log(alpha) / log(1 - margin)) if margin > 0 else 1


def _score(counted: Tally, null: float) -> float:
    """How many standard deviations the tally lies above what a true difference of `null` would bring."""
    if counted.df == 0:
        return 0.0  # one cluster says nothing of others
    number, shift = counted.effective, null / counted.size
    excess = counted.won - counted.lost - number * shift
    if abs(shift) >= 1:
        return -inf if shift > 0 else inf
    # Share of losses that is likeliest given the difference: the root of Tango's quadratic.
    half = counted.won + counted.lost - (2 * number - counted.won + counted.lost) * shift
    root = sqrt(max(0.0, half * half + 8 * number * counted.lost * shift * (1 - shift)))
    variance = number * (2 * (half + root) / (4 * number) + shift * (1 - shift))
    if variance <= 0:
        return inf if excess > 0 else -inf if excess < 0 else 0.0
    score = excess / sqrt(variance)
    return score if counted.df == inf else score * sqrt(max(0.0, 1 - 1 / number))


def _bounds(counted: Tally, alpha: float) -> tuple[float, float]:
    """Differences at which the test would just reject, on both sides."""
    if counted.df == 0:
        return -1.0, 1.0
    limit = critical(alpha, counted.df)
    lower, inside = -1.0, counted.difference
    for _ in range(_HALVINGS):
        middle = (lower + inside) / 2
        lower, inside = (middle, inside) if _score(counted, middle) >= limit else (lower, middle)
    inside, upper = counted.difference, 1.0
    for _ in range(_HALVINGS):
        middle = (inside + upper) / 2
        inside, upper = (inside, middle) if _score(counted, middle) <= -limit else (middle, upper)
    return lower, upper
