"""The revisions of a tier: the first, which its spec describes, and a candidate beside it for a share of conversations.

What a revision runs is a spec of its own, so that sizing, records and pods need not know of revisions. The candidate
may come from the tier's spec or from elsewhere; a DistillJob that promotes a model never edits the spec.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from modeltiers import names
from modeltiers.api.model import ModelSource
from modeltiers.api.modeltier import Candidate, ModelTierSpec
from modeltiers.domain import conditions
from modeltiers.domain.claims import ClaimView
from modeltiers.domain.conditions import Observation
from modeltiers.domain.engine_args import Refusal
from modeltiers.domain.facts import TierFacts
from modeltiers.domain.record import Record
from modeltiers.domain.verdict import Verdict, judge


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision: its name, what it runs, and its share of conversations."""

    name: str
    spec: ModelTierSpec
    weight_permille: int


@dataclass(frozen=True, slots=True)
class Second:
    """What is known of a candidate."""

    revision: Revision
    record: Record | None
    facts: TierFacts


def revisions_of(spec: ModelTierSpec, candidate: Candidate | None = None) -> tuple[Revision, ...]:
    """The revisions of a tier; `candidate` is one from elsewhere, which counts where the spec has none."""
    wanted = spec.candidate or candidate
    if spec.model is None or wanted is None:
        return (Revision(names.FIRST_REVISION, spec, 1000),)
    model = ModelSource(**dict(wanted.model), served_name=spec.model.served_name)
    own = {"model": model, "replicas": wanted.replicas, "autoscaling": None, "candidate": None}
    return (
        Revision(names.FIRST_REVISION, spec, 1000 - wanted.weight_permille),
        Revision(names.SECOND_REVISION, spec.model_copy(update=own), wanted.weight_permille),
    )


def refused_candidate(
    refused: Sequence[Refusal], claims: Mapping[str, ClaimView | None], *, routed: bool
) -> tuple[Refusal, ...]:
    """What stands in a candidate's way, in the fields of the tier's spec; `refused` is what does in its own.

    `routed` says that the first revision's pods have routers.
    """
    found = [
        replace(one, path=one.path.replace(f"spec.{field}", f"spec.candidate.{field}"))
        for one in refused
        for field in ("model" if one.path.startswith("spec.model") else "replicas",)
    ]
    if not routed:
        said = "routers share the requests out, and the tier's pods have none: have an administrator set router.image"
        said = f"{said}, then change spec.rolloutToken"
        found.append(Refusal("spec.candidate", said))
    for name, claim in claims.items():
        if claim is not None and claim.single_writer:
            said = f"volume claim {name} can be mounted by one node only: a candidate needs a ReadWriteMany claim"
            found.append(Refusal("spec.candidate", said))
    return tuple(found)


def told_apart(facts: TierFacts, previous: Sequence[Mapping[str, Any]], now: datetime) -> tuple[Observation, Verdict]:
    """The condition CandidateReady, which says of a candidate what Ready says of a tier."""
    said = conditions.by_type(previous).get(conditions.CANDIDATE_READY)
    before = [{**said, "type": conditions.READY}] if said else []
    if said and said.get("status") == "False":
        before.append({**said, "type": conditions.STALLED, "status": "True"})
    verdict = judge(facts, before, now)
    ready = conditions.by_type(verdict.conditions)[conditions.READY]
    return Observation(conditions.CANDIDATE_READY, ready["status"], ready["reason"], ready["message"]), verdict
