"""Whether two models are one, or of one family, as far as names say: a judge likes what sounds like itself. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from modeltiers.api.distilljob import DistillJobSpec
from modeltiers.api.distilljob_asked import Judge, Teacher
from modeltiers.api.modeltier import ModelTierSpec

_MAKERS: Final = frozenset({"meta", "google", "openai", "anthropic", "mistralai", "microsoft", "nvidia", "ibm"})
"""Words that names begin with and that say who made it."""
_WORD: Final = re.compile(r"[a-z]+")


@dataclass(frozen=True, slots=True)
class Doubt:
    """Something in a spec that is allowed and hardly meant: where, and what to do."""

    path: str
    problem: str


def family(name: str) -> str:
    """`qwen` of `hf://Qwen/Qwen3-32B` and of `qwen2.5-72b-instruct`; empty where a name begins with no word."""
    words = [word for word in _WORD.findall(name.rstrip("/").rpartition("/")[2].lower()) if word not in _MAKERS]
    return words[0] if words else ""


def alike(one: str, other: str) -> str:
    """How two models are alike: `the same model`, `of one family (qwen)`, or not, as far as names say."""
    if one and one.lower() == other.lower():
        return "the same model"
    return f"of one family ({family(one)})" if family(one) and family(one) == family(other) else ""


def doubts(spec: DistillJobSpec, tiers: Mapping[str, ModelTierSpec]) -> Iterator[Doubt]:
    """What is doubtful about a judge; `tiers` are those that are known, by name."""
    judge, teacher = spec.judge, spec.teacher
    if judge is None:
        return
    if judge.tier_ref is not None and teacher.tier_ref is not None and judge.tier_ref.name == teacher.tier_ref.name:
        said = "the same model"
    else:
        one, other = _name(judge, tiers), _name(teacher, tiers)
        said = alike(one, other) if one and other else ""
    if said:
        yield Doubt(
            "spec.judge",
            f"teacher and judge are {said}: a judge prefers answers that are like its own, so it tells little of a"
            " student that sounds like them; take one of another maker",
        )


def _name(asked: Judge | Teacher, tiers: Mapping[str, ModelTierSpec]) -> str:
    """What says which model it is; nothing where that is not known."""
    if asked.endpoint is not None:
        return asked.endpoint.model
    tier = tiers.get(asked.tier_ref.name) if asked.tier_ref else None
    if tier is None:
        return ""
    return tier.external.model if tier.external else tier.model.source if tier.model else ""
