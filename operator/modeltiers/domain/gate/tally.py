"""Pairs of scores, counted by cluster: what the test of `paired` needs to know of them.

A cluster's difference is taken for an event of a certain size: won, lost or neither. The size is the ratio of squares
to sums over the clusters, with one cluster added that disagrees altogether, so that a size is not believed before it
was seen; the design effect likewise. Clusters weigh by their items, and their effective number is 1 / sum of the
squared weights (Kish).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from modeltiers.domain.gate.items import FULL, GateError, Pair

Parts = list[tuple[int, float, float]]
"""Clusters by kind: how many, weight of one, mean difference in it."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Pairs, counted. Scores, differences and margins here and below lie between 0 and 1."""

    items: int
    clusters: int
    difference: float
    """Mean of candidate less reference."""
    discordance: float
    """Mean square of the differences: where scores are 0 or 1, the share of items on which the two differ."""
    design_effect: float
    """By how much clusters raise the variance; 1 at least."""
    won: float
    """Clusters that the candidate won, in events of `size`; `lost` likewise."""
    lost: float
    effective: float
    """Number of equal clusters that would weigh the same."""
    size: float
    df: float
    """Degrees of freedom; infinite for the plain score test."""


def of_counts(won: int, lost: int, items: int) -> Tally:
    """Items that stand alone, with scores of 0 or 1: so many won, so many lost, of so many."""
    if items < 1 or min(won, lost) < 0 or won + lost > items:
        raise GateError(f"{won} won and {lost} lost of {items} items do not add up")
    share = (won + lost) / items
    return Tally(items, items, (won - lost) / items, share, 1.0, won, lost, items, 1.0, inf)


def tally(pairs: Iterable[Pair]) -> Tally:
    """Count pairs. Neither their order nor the clusters' names matter."""
    sums: dict[str, list[int]] = {}
    squares, whole = 0, True
    for cluster, candidate, reference in pairs:
        if not (0 <= candidate <= FULL and 0 <= reference <= FULL):
            raise GateError(f"scores {candidate} and {reference} in cluster {cluster!r}: give permille, 0 to {FULL}")
        one = sums.setdefault(cluster, [0, 0])
        one[0] += 1
        one[1] += candidate - reference
        squares += (candidate - reference) ** 2
        whole = whole and candidate in (0, FULL) and reference in (0, FULL)
    if not sums:
        raise GateError("there are no items to compare")
    # Equal clusters together and in one order, so that sums of fractions come out the same however rows came.
    kinds = sorted(Counter((size, total) for size, total in sums.values()).items())
    if whole and all(size == 1 for (size, _), _ in kinds):
        won = sum(times for (_, total), times in kinds if total > 0)
        lost = sum(times for (_, total), times in kinds if total < 0)
        return of_counts(won, lost, len(sums))
    return _clustered(kinds, len(sums), squares / FULL**2)


def _clustered(kinds: list[tuple[tuple[int, int], int]], clusters: int, squares: float) -> Tally:
    items = sum(size * times for (size, _), times in kinds)
    # (how many, weight, mean difference) of each kind of cluster
    parts = [(times, size / items, total / (FULL * size)) for (size, total), times in kinds]
    difference = sum(times * weight * mean for times, weight, mean in parts)
    effective = 1 / sum(times * weight * weight for times, weight, _ in parts)
    moved = sum(times * weight * abs(mean) for times, weight, mean in parts)
    spread = sum(times * (weight * mean) ** 2 for times, weight, mean in parts)
    events = effective * sum(times * weight for times, weight, mean in parts if mean)
    seen = effective * spread / moved if moved else 0.0
    size = max((events * seen + 1) / (events + 1), moved)
    return Tally(
        items,
        clusters,
        difference,
        squares / items,
        _design_effect(parts, items, difference, squares, effective, events),
        effective * sum(times * weight * mean for times, weight, mean in parts if mean > 0) / size,
        -effective * sum(times * weight * mean for times, weight, mean in parts if mean < 0) / size,
        effective,
        size,
        _degrees_of_freedom(parts),
    )


def _design_effect(
    parts: Parts, items: int, difference: float, squares: float, effective: float, events: float
) -> float:
    """Variance of the mean with clusters over that without; one cluster that disagrees as a whole is added to those
    seen, as for the size of an event."""
    whole = items / effective
    alone = (squares / items - difference**2) / items
    among = sum(times * (weight * (mean - difference)) ** 2 for times, weight, mean in parts)
    correction = effective / (effective - 1) if effective > 1 else 1.0
    seen = among * correction / alone if alone > 1e-15 else whole
    return max(1.0, (events * min(seen, whole) + whole) / (events + 1))


def _degrees_of_freedom(parts: Parts) -> float:
    """Bell and McCaffrey's for a mean over clusters: their number less one where they are equal, fewer where not."""
    plain = linear = square = 0.0
    for times, weight, _ in parts:
        if weight >= 1:
            return 0.0
        leverage = weight * weight / (1 - weight)
        plain += times * weight * weight
        linear += times * leverage
        square += times * leverage * leverage
    return 1 / (plain + linear * linear - square)
