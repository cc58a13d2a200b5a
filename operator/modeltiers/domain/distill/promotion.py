"""How a packaged student goes live in its tier: approval, canary steps, settling, live; and back again. Pure.

Each look at the tier gives the next state. What a person says is an annotation that carries the artifact's digest, and
is followed once: `DIGEST`, or `DIGEST@ANYTHING` to say it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from modeltiers import names
from modeltiers.api.distilljob import Canary, Promotion
from modeltiers.domain.conditions import stamp
from modeltiers.domain.views import instant

FEWEST: Final = 20
"""Attempts on the student below which its share of failures says nothing."""
APPROVED, TAKEN_BACK = "approved", "takenBack"
LOOK: Final = 5.0
"""Seconds between two looks while traffic moves."""
NO_ROOM: Final = frozenset({"Unschedulable", "FitsNoAccelerator", "QuotaExceeded", "SchedulingGated"})
"""Reasons of a tier's candidate that say there is no room for it beside the incumbent."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Attempts on one revision since the step began."""

    attempts: int = 0
    failed: int = 0
    escalated: int = 0

    def share(self, what: int) -> int:
        """In permille."""
        return 1000 * what // self.attempts if self.attempts else 0


@dataclass(frozen=True, slots=True)
class TierSeen:
    """The tier that the student goes live in."""

    name: str
    job: str = ""
    """The DistillJob."""
    found: bool = True
    follows: bool = True
    """Whether its `model.source` names this job."""
    ready: bool = False
    """Ready, with its present spec."""
    model: str = ""
    """What its first revision serves."""
    candidate: bool | None = None
    """Whether the student's pods take requests; None while that is not known."""
    candidate_why: str = ""
    candidate_fits: bool = True
    """Whether there is room for both."""
    student: Counted = field(default_factory=Counted)
    incumbent: Counted = field(default_factory=Counted)


@dataclass(frozen=True, slots=True)
class Step:
    """What comes of one look."""

    status: Mapping[str, Any]
    """Of the promotion."""
    hindrance: tuple[str, str] | None = None
    """Reason and message of what stands in the way."""
    message: str = ""
    wait: float | None = None
    """Seconds after which to look again by the clock."""


def promote(
    wanted: Promotion,
    artifact: Mapping[str, Any],
    before: Mapping[str, Any] | None,
    tier: TierSeen,
    said: Mapping[str, str],
    now: datetime,
) -> Step:
    """The next state of a promotion; `said` are the annotations of the DistillJob."""
    status = dict(before or {})
    digest = str(artifact["digest"])
    back = _asked(said, names.ANNOTATION_ROLLBACK, digest, status.get(TAKEN_BACK))
    if back and status.get("state") in ("Canary", "Settling", "Live"):
        why = "the annotation modeltiers.dev/rollback asked for it"
        return _rolled_back({**status, TAKEN_BACK: back}, why, now)
    go = _asked(said, names.ANNOTATION_APPROVE, digest, status.get(APPROVED))
    if status.get("state") in (None, "AwaitingApproval") or (status.get("state") == "RolledBack" and go):
        return _begin(wanted, status, tier, go, digest, now)
    match status["state"]:
        case "Canary":
            return _canary(wanted.canary or Canary(), status, tier, now)
        case "Settling":
            return _settle(status, tier, str(artifact.get("source", "")), now)
        case _:
            return Step(status)


def _asked(said: Mapping[str, str], annotation: str, digest: str, followed: str | None) -> str:
    """What a person asks for and was not followed yet; empty when nothing."""
    text = said.get(annotation, "")
    return text if text.partition("@")[0] == digest and text != followed else ""


def _begin(wanted: Promotion, status: dict[str, Any], tier: TierSeen, go: str, digest: str, now: datetime) -> Step:
    if wanted.approval == "Manual" and not go:
        waiting = status if status.get("state") else {"state": "AwaitingApproval", "since": stamp(now)}
        message = f"read the report of {digest}, then `modeltiers approve`: it sets modeltiers.dev/approve={digest}"
        return Step(waiting, message=message)
    if (problem := _unfit(tier)) is not None:
        return Step(status, hindrance=problem, wait=LOOK)
    kept = {name: status[name] for name in (APPROVED, TAKEN_BACK) if name in status} | ({APPROVED: go} if go else {})
    if wanted.strategy == "Replace":
        return Step({"state": "Settling", "weightPermille": 1000, "step": 0, "since": stamp(now), **kept}, wait=LOOK)
    steps = (wanted.canary or Canary()).steps_permille
    begun = {"state": "Canary", "weightPermille": steps[0], "step": 1, **kept}
    return Step(begun, message="the student's pods are on the way", wait=LOOK)


def _unfit(tier: TierSeen) -> tuple[str, str] | None:
    if not tier.found:
        return "TierNotFound", f"there is no ModelTier {tier.name} (spec.promotion.tierRef): create it"
    if not tier.follows:
        return (
            "TierNotFollowing",
            f"ModelTier {tier.name} does not follow this job: set its spec.model.source to distill://{tier.job}",
        )
    return None


def _canary(canary: Canary, status: dict[str, Any], tier: TierSeen, now: datetime) -> Step:
    if (problem := _unfit(tier)) is not None:
        return Step(status, hindrance=problem, wait=LOOK)
    since = instant(str(status.get("since", "")))
    if since is None:
        return _wait_for_pods(status, tier, now)
    if (why := _breach(canary, tier)) is not None:
        return _rolled_back(status, why, now)
    if not tier.candidate:
        said = f"the student's pods take no requests now, and the canary waits: {tier.candidate_why}"
        return Step(status, message=said, wait=LOOK)
    weight, place = status["weightPermille"], int(status["step"])
    told = f"{weight} ‰ of conversations for the student; {_told(tier.student)}"
    left = since + timedelta(seconds=canary.hold_seconds) - now
    if left > timedelta(0):
        return Step(status, message=f"{told}; next in {left.seconds} s", wait=LOOK)
    if place < len(canary.steps_permille):
        following = {"weightPermille": canary.steps_permille[place], "step": place + 1, "since": stamp(now)}
        return Step({**status, **following}, message=told, wait=LOOK)
    settling = {"state": "Settling", "weightPermille": 1000, "since": stamp(now)}
    return Step({**status, **settling}, message="the canary held; the tier takes the student over", wait=LOOK)


def _wait_for_pods(status: dict[str, Any], tier: TierSeen, now: datetime) -> Step:
    """The first step is held from when the student takes requests."""
    if tier.candidate:
        return Step({**status, "since": stamp(now)}, message="the student takes requests", wait=LOOK)
    if not tier.candidate_fits:
        said = f"there is no room for the student beside the incumbent: {tier.candidate_why}. Free some, or set"
        return Step(status, ("CanaryDoesNotFit", f"{said} promotion.strategy to Replace"), wait=LOOK)
    return Step(status, message=f"the student's pods are on the way: {tier.candidate_why}", wait=LOOK)


def _breach(canary: Canary, tier: TierSeen) -> str | None:
    """Why the student has to go back at once; None when nothing is wrong."""
    if tier.candidate is False:
        return f"the student's pods stopped taking requests: {tier.candidate_why}"
    student, incumbent = tier.student, tier.incumbent
    if student.attempts < FEWEST:
        return None
    limits = (
        ("failed", student.failed, incumbent.failed, canary.max_error_permille),
        ("escalated", student.escalated, incumbent.escalated, canary.max_escalation_permille),
    )
    for word, mine, theirs, most in limits:
        more = student.share(mine) - incumbent.share(theirs)
        if more > most:
            return (
                f"{student.share(mine)} ‰ of {student.attempts} attempts {word}, and {incumbent.share(theirs)} ‰ of the"
                f" incumbent's {incumbent.attempts}: {more} ‰ more, allowed are {most}"
            )
    return None


def _settle(status: dict[str, Any], tier: TierSeen, source: str, now: datetime) -> Step:
    if (problem := _unfit(tier)) is not None:
        return Step(status, hindrance=problem, wait=LOOK)
    if tier.ready and tier.model == source:
        return Step(
            {**status, "state": "Live", "weightPermille": 1000, "since": stamp(now)}, message="the student is live"
        )
    return Step(status, message=f"ModelTier {tier.name} takes the student over", wait=LOOK)


def _rolled_back(status: Mapping[str, Any], why: str, now: datetime) -> Step:
    return Step({**status, "state": "RolledBack", "weightPermille": 0, "since": stamp(now), "why": why}, message=why)


def _told(counted: Counted) -> str:
    return f"{counted.attempts} attempts on it, {counted.failed} failed, {counted.escalated} escalated"
