"""Counts by slice, small enough for a status."""

from __future__ import annotations

from collections import Counter
from typing import Final

MOST: Final = 16
"""Slices that are told apart."""
NONE: Final = "(none)"
OTHERS: Final = "(others)"


def by_slice(counts: Counter[str]) -> dict[str, int]:
    """Counts by slice: the most frequent by name, the rest together; empty where no row names one."""
    if set(counts) <= {""}:
        return {}
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    found = {name or NONE: count for name, count in sorted(ordered[:MOST])}
    rest = sum(count for _, count in ordered[MOST:])
    return {**found, OTHERS: rest} if rest else found
