"""Each model's mean score with an interval, by slice and part: what a report shows beside the gate's comparisons.

The interval is Wilson's for a share, at 95 %. Items that hang together (turns of one conversation, near-duplicates)
tell less than as many that stand alone, so their number is divided by the design effect that the gate counts with. A
mean of graded scores varies less than a share does: for it the interval is wider than it had to be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Any, Final

from modeltiers.domain.gate.items import FULL, Pair
from modeltiers.domain.gate.tally import tally

CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Score:
    """A mean and its interval, from 0 to 1."""

    mean: float
    low: float
    high: float
    items: int


def wilson(share: float, number: float) -> tuple[float, float]:
    """Wilson's interval of a share that was seen in `number` cases; all of it where there are none."""
    if number <= 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    middle = (share + z * z / (2 * number)) / (1 + z * z / number)
    half = z / (1 + z * z / number) * sqrt(share * (1 - share) / number + z * z / (4 * number * number))
    return max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share))


def score(rows: Iterable[Mapping[str, Any]], target: str) -> Score | None:
    """The mean of a model's scores on the gate's items; None where it has none."""
    pairs = [Pair(str(row["cluster"]), row["scores"][target], 0) for row in rows if target in row["scores"]]
    if not pairs:
        return None
    mean = sum(pair.candidate for pair in pairs) / (FULL * len(pairs))
    low, high = wilson(mean, len(pairs) / tally(pairs).design_effect)
    return Score(mean, low, high, len(pairs))


def by_slice(rows: Iterable[Mapping[str, Any]], most: int) -> tuple[dict[str, list[Mapping[str, Any]]], int]:
    """The rows of the slices that have most of them, by name, and how many slices are left out.

    Rows without a slice are in none; where no row has one there is nothing to tell apart.
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row.get("slice"):
            found.setdefault(str(row["slice"]), []).append(row)
    largest = sorted(found, key=lambda name: (-len(found[name]), name))[:most]
    return {name: found[name] for name in sorted(largest)}, len(found) - len(largest)
