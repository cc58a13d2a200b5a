"""How many items a comparison takes, and which of several comparisons hold together."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from statistics import NormalDist
from typing import Final

from modeltiers.domain.gate.items import GateError
from modeltiers.domain.gate.paired import Comparison, fewest

_NORMAL: Final = NormalDist()


def items_needed(discordance: float, margin: float, alpha: float, power: float, design_effect: float = 1.0) -> int:
    """Items that show with chance `power` that an equal student is not worse than `margin`, one-sided at `alpha`.

    n = discordance x (z(alpha) + z(power))^2 / margin^2, and no fewer than would show one loss in `margin` where there
    is no discordance at all; times the design effect of clusters. The formula is the usual one, with the variance of
    equal models; the score test's is larger where the margin is wide against the discordance, and its power at this
    number then falls short: not at 2 points and 10 %, but by 9 points at 5 points and 5 %. Raises GateError for
    numbers out of range.
    """
    if not 0 <= discordance <= 1:
        raise GateError(f"discordance is {discordance:g}; it must be between 0 and 1")
    if not 0 < margin < 1:
        raise GateError(f"margin is {margin:g}; it must be above 0 and below 1: no number of items shows a margin of 0")
    if not 0 < alpha < 0.5 or not 0.5 <= power < 1:
        raise GateError(f"alpha {alpha:g} must be in (0, 0.5) and power {power:g} in [0.5, 1)")
    if design_effect < 1:
        raise GateError(f"design effect is {design_effect:g}; it must be at least 1")
    alone = max(discordance * _deviates(alpha, power) ** 2 / margin**2, fewest(margin, alpha))
    return ceil(round(alone * design_effect, 6))


def items_for(seen: Comparison, margin: float, alpha: float, power: float) -> int | None:
    """Items that would settle it, were the true difference the one that was seen; None where that is the margin."""
    distance = abs(seen.difference + margin)
    if distance < 1e-6:
        return None
    variance = max(seen.discordance - seen.difference**2, 0) * seen.design_effect
    return ceil(max(variance * _deviates(alpha, power) ** 2 / distance**2, seen.n + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted by Holm: those up to alpha hold together, with a chance of alpha that any is wrong."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _deviates(alpha: float, power: float) -> float:
    return _NORMAL.inv_cdf(1 - alpha) + _NORMAL.inv_cdf(power)
