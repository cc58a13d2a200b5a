"""Two revisions of one tier, side by side: which of them a conversation gets.

The share is of conversations, whatever the number of pods: a draw of its own, so that neither a policy's canary nor
another tier's candidate takes the same conversations; a growing share only adds to those that have it.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec.structs import replace

from modeltiers.domain.routing.see import DRAWS
from modeltiers.domain.routing.table import Tier

State = Literal["", "Ready", "NotReady", "Alone"]
"""Of a tier's candidate: there is none; it and the first revision take requests, or only the first, or only it."""
# Coprime to DRAWS, so that the draws are only put in another order; it leaves no trace of the order they had.
_STRIDE: Final = 611_953
_STEP: Final = 314_159


def chosen(tier: Tier, place: int, draw: int, state: State) -> bool:
    """Whether a conversation gets the candidate of a tier that stands so high on the ladder."""
    if tier.candidate is None or state in ("", "NotReady"):
        return False
    mixed = (draw * _STRIDE + place * _STEP) % DRAWS
    return state == "Alone" or mixed * 1000 < tier.candidate.share_permille * DRAWS


def first(tier: Tier) -> Tier:
    """The tier as its first revision alone: the same whether it has a candidate or not."""
    return tier if tier.candidate is None else replace(tier, candidate=None)


def second(tier: Tier) -> Tier | None:
    """The tier as its candidate alone, if it has one."""
    one = tier.candidate
    if one is None:
        return None
    return replace(tier, address=one.address, local=one.local, hop=one.hop and not one.local, candidate=None)


def beside(tier: Tier, address: str, revision: str) -> Tier:
    """The tier as the router beside one of its engines reads it: that engine is reached without a hop."""
    one = tier.candidate
    if one is not None and one.revision == revision:
        return replace(tier, local=False, candidate=replace(one, address=address, local=True))
    return replace(tier, address=address, local=True, hop=False)


def is_beside(tier: Tier) -> bool:
    """Whether one of its engines is beside this router."""
    return tier.local or (tier.candidate is not None and tier.candidate.local)


def revision_of(tier: Tier, *, candidate: bool) -> str | None:
    """The name of a revision, where a tier has two."""
    one = tier.candidate
    return None if one is None else one.revision if candidate else one.beside
