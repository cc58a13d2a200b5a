"""A student that sounds like its teacher and is no better for it.

Imitation carries over style before it carries over knowledge, and judges, human or model, take the one for the other.
So a gain in style without a gain in verifiable accuracy blocks promotion, whatever other scores say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modeltiers.domain.gate.items import Pair
from modeltiers.domain.gate.paired import non_inferiority
from modeltiers.domain.gate.power import items_needed
from modeltiers.domain.gate.verdict import Outcome, bounds


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that blocks a Pass beside the comparisons."""

    reason: str
    outcome: Outcome
    """Fail or Inconclusive."""
    message: str


def mimicry(style: Sequence[Pair], accuracy: Sequence[Pair], alpha: float, power: float, gain: float) -> Finding | None:
    """Find mimicry in two sets of pairs, student against untrained base; None where there is none.

    `style` holds how like the teacher's each answer is worded, `accuracy` what checks said of it. Found where style is
    shown to have risen and accuracy is not. It fails a student whose accuracy was measured on enough items to show a
    `gain` worth seeing; with fewer it is Inconclusive.
    """
    if not style:
        return None
    sounds = non_inferiority(style, 0.0, alpha)
    if sounds.p_value > alpha:
        return None
    said = f"the student's wording came nearer to the teacher's, {bounds(sounds)}"
    if not accuracy:
        return Finding("Mimicry", "Inconclusive", f"{said}; no item has a verifiable score: add some that have")
    right = non_inferiority(accuracy, 0.0, alpha)
    if right.p_value <= alpha:
        return None
    needed = items_needed(right.discordance, gain, alpha, power, right.design_effect)
    said += f"; its verifiable accuracy did not rise, {bounds(right)}"
    if right.n >= needed:
        return Finding("Mimicry", "Fail", said)
    return Finding("Mimicry", "Inconclusive", f"{said}: {needed} verifiable items are needed to tell")
