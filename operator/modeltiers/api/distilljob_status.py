"""Status of a DistillJob: which stage it is at, what was spent, what the gate said, and what is live.

Large things (rows, curves, reports) lie beside the artifact; here are their digests and the last figures.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from modeltiers.api.base import Model, listed_by
from modeltiers.api.modeltier_status import Condition, Generation, ShortText, Text

Digest = Annotated[str, Field(max_length=64, pattern=r"^[a-f0-9]+$")]
Count = Annotated[int, Field(ge=0, le=10**15)]
Signed = Annotated[int, Field(ge=-1000, le=1000)]
Time = Annotated[str, Field(max_length=32, json_schema_extra={"format": "date-time"})]


class Progress(Model):
    """How far a running stage is, by its own count."""

    done: Count
    """Steps, rows or items done."""
    of: Count
    """Of how many."""
    unit: str = Field(max_length=16)
    """What is counted."""
    eta_seconds: Count | None = None
    """Time left at the rate so far; absent while that is not known."""
    loss_milli: Annotated[int, Field(ge=-(10**12), le=10**12)] | None = None
    """Training: thousandths of the loss over the last steps."""


class Stage(Model):
    """One stage of the job."""

    name: str = Field(max_length=32)
    """Name of the stage."""
    state: Literal["Waiting", "Running", "Complete", "Failed"]
    """Waiting (queued, suspended or not scheduled), Running, Complete, or Failed."""
    digest: Digest
    """Hash of its inputs: what it is known by in the store."""
    output: Digest | None = None
    """Hash of what came out of it."""
    attempts: Annotated[int, Field(ge=0, le=10**6)] = 0
    """Pods that ran it."""
    started: Time | None = None
    """When its first pod started."""
    ended: Time | None = None
    """When it was complete."""
    reused: bool = False
    """Whether its outcome lay in the store already."""
    summary: Text | None = None
    """What came of it, in one line."""


class Spent(Model):
    """What a model was asked for, as its own answers counted it."""

    prompt_tokens: Count = 0
    """Tokens of prompts."""
    answer_tokens: Count = 0
    """Tokens of answers."""
    cost_micros: Count | None = None
    """What they cost, in millionths of the currency; absent where no price is known."""
    currency: str | None = Field(default=None, max_length=3)
    """ISO 4217 code."""
    in_doubt: Count = 0
    """Requests of which it is not known whether they were answered: each may have been paid for."""


class Spend(Spent):
    """What the teacher was asked for, as its own answers counted it, and the judge apart."""

    judge: Spent | None = None
    """What the judge was asked for, which is not in the figures above; absent without a judge."""


class PaybackStatus(Model):
    """When the student will have earned what the teacher was paid for it, as far as prices are known."""

    days: Count | None = None
    """Days; absent where it never does, or where that is not known."""
    how: Text
    """The arithmetic, or what is missing."""


class GateStatus(Model):
    """What the gate said. All in thousandths of the score."""

    decision: Literal["Pass", "Fail", "Inconclusive"]
    """Pass, Fail, or Inconclusive: too few items to say."""
    items: Count
    """Sealed items compared."""
    needed: Count | None = None
    """Items that the wanted power takes; absent where the sealed set had no alpha left, and nothing was compared."""
    difference_permille: Signed | None = None
    """Student less incumbent."""
    lower_permille: Signed | None = None
    """Lower confidence bound of that."""
    student_permille: Annotated[int, Field(ge=0, le=1000)] | None = None
    """The student's mean score."""
    teacher_permille: Annotated[int, Field(ge=0, le=1000)] | None = None
    """The teacher's."""
    base_permille: Annotated[int, Field(ge=0, le=1000)] | None = None
    """The untrained base's."""
    incumbent_permille: Annotated[int, Field(ge=0, le=1000)] | None = None
    """The incumbent's."""
    why: Text | None = None
    """The comparison that decided."""


class Artifact(Model):
    """A student that passed the gate."""

    digest: Digest
    """Hash of its files. Approval names it."""
    source: ShortText | None = None
    """Where its weights are, as a ModelTier would name them; absent where no tier can mount them."""
    threshold_permille: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Confidence from which a route may accept its answers; absent when nothing was calibrated."""
    report: Text | None = None
    """Where its report is in the store."""


class PromotionStatus(Model):
    """Where the student stands in its tier."""

    state: Literal["AwaitingApproval", "Canary", "Settling", "Live", "RolledBack"]
    """AwaitingApproval, Canary (both serve), Settling (the tier takes the student over), Live or RolledBack."""
    weight_permille: Annotated[int, Field(ge=0, le=1000)] = 0
    """Its share of conversations."""
    step: Annotated[int, Field(ge=0, le=100)] = 0
    """Step of the canary, from 1."""
    since: Time | None = None
    """When this step began."""
    approved: str | None = Field(default=None, max_length=256)
    """The last approval that was followed; each is followed once."""
    taken_back: str | None = Field(default=None, max_length=256)
    """The last rollback that a person asked for and that was followed."""
    why: Text | None = None
    """Why it was taken back."""


class DistillJobStatus(Model):
    """What the operator sees."""

    observed_generation: Generation | None = None
    """Generation of the spec that this is about."""
    conditions: list[Condition] = Field(default=[], max_length=16, json_schema_extra=listed_by("type"))
    """Complete, AwaitingApproval, Stalled, Reconciling, Ready."""
    stage: str | None = Field(default=None, max_length=32)
    """The stage it is at."""
    progress: str | None = Field(default=None, max_length=64)
    """How far that is."""
    decision: str | None = Field(default=None, max_length=32)
    """What the gate said."""
    spent: str | None = Field(default=None, max_length=64)
    """What was spent, in short."""
    stages: list[Stage] = Field(default=[], max_length=24, json_schema_extra=listed_by("name"))
    """The stages begun."""
    running: Progress | None = None
    """How far the running one is."""
    spend: Spend | None = None
    """What the teacher was asked for."""
    payback: PaybackStatus | None = None
    """When the student will have paid for itself, estimated before it is trained; needs `budget.traffic`."""
    gate: GateStatus | None = None
    """What the gate said."""
    artifact: Artifact | None = None
    """The packaged student."""
    promotion: PromotionStatus | None = None
    """Where it stands in its tier."""
