"""What the words in conditions mean: the tables that the reference pages are made of, by kind and word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from modeltiers.domain import conditions, policy_reasons
from modeltiers.domain.conditions import Reason
from modeltiers.domain.distill import reasons as distill_reasons
from modeltiers.domain.why.snapshot import JOB, POLICY, TIER

TABLES: Final[Mapping[str, tuple[Reason, ...]]] = {
    TIER: conditions.REASONS,
    POLICY: policy_reasons.REASONS,
    JOB: distill_reasons.REASONS,
}


def meanings(word: str) -> list[tuple[str, Reason]]:
    """What a word means, for each kind whose conditions say it; letters may be small or large."""
    wanted = word.lower()
    return [(kind, one) for kind, table in TABLES.items() for one in table if one.name.lower() == wanted]


def way_out(kind: str, word: str) -> str:
    """What the table says to do about a reason of a kind; pods of jobs have the reasons of tiers."""
    for table in (TABLES[kind], TABLES[TIER]):
        for one in table:
            if one.name == word and one.way_out:
                return (
                    one.way_out[:1].lower() + one.way_out[1:].rstrip(".") if one.way_out[1:2].islower() else one.way_out
                )
    return ""
