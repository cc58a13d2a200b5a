"""What a person wants of a DistillJob (approve, roll back, retry, suspend, resume), and what to write for it. Pure.

Each wish is checked against the status first, so that what nobody would follow is refused with the reason, and not
written in silence. Approval, rollback and retry are annotations, each followed once (see `promotion`); the rest is a
field of the spec.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from modeltiers import names
from modeltiers.domain.conditions import by_type
from modeltiers.domain.distill.job import BUDGET
from modeltiers.domain.distill.promotion import APPROVED, TAKEN_BACK
from modeltiers.domain.distill.reasons import COMPLETE

UNDER_WAY: Final = ("Canary", "Settling", "Live")


class Refused(Exception):
    """A wish that nobody would follow; the text says why, and the way out."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What to write, and what comes of it."""

    says: str
    annotations: Mapping[str, str] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)

    def patch(self) -> dict[str, Any]:
        """As a merge patch of the DistillJob."""
        found: dict[str, Any] = {}
        if self.annotations:
            found["metadata"] = {"annotations": dict(self.annotations)}
        return {**found, **({"spec": dict(self.spec)} if self.spec else {})}


def approve(job: Mapping[str, Any], wanted: str | None) -> Wish:
    """Let the packaged student go live; `wanted` is the digest that the approver read, where one is given."""
    status, promotion = _status(job), _status(job).get("promotion") or {}
    digest = _artifact(job, wanted, "approve")
    state = promotion.get("state")
    if state in UNDER_WAY:
        raise Refused(f"{digest} is approved: its promotion is at {state}. Nothing is to be approved")
    tier = _tier(job)
    if state not in ("AwaitingApproval", "RolledBack"):
        said = by_type(status.get("conditions") or []).get("Ready", {}).get("message", "")
        raise Refused(f"nobody's approval is waited for now{f': {said}' if said else ''}")
    value = again(digest, promotion.get(APPROVED))
    how = "once more, after it was taken back, " if state == "RolledBack" else ""
    says = f"artifact {digest} may {how}go live in ModelTier {tier}"
    return Wish(says, {names.ANNOTATION_APPROVE: value})


def rollback(job: Mapping[str, Any], wanted: str | None) -> Wish:
    """Take the student back: the tier serves the incumbent again."""
    promotion = _status(job).get("promotion") or {}
    digest = _artifact(job, wanted, "roll back")
    state = promotion.get("state")
    if state == "RolledBack":
        raise Refused(f"{digest} was taken back already: {promotion.get('why', 'the tier serves the incumbent')}")
    if state not in UNDER_WAY:
        raise Refused(f"{digest} serves nobody yet: there is nothing to take back. Do not approve it")
    says = f"artifact {digest} is taken back from {state}: ModelTier {_tier(job)} serves the incumbent again"
    return Wish(says, {names.ANNOTATION_ROLLBACK: again(digest, promotion.get(TAKEN_BACK))})


def retry(job: Mapping[str, Any], wanted: str | None) -> Wish:
    """Run the stage that failed once more; `wanted` is its digest, where one is given."""
    complete = _complete(job)
    if complete.get("reason") == BUDGET:
        raise Refused("the budget is used up, and trying again changes nothing: raise spec.budget, and the job goes on")
    failed = next((one for one in _status(job).get("stages") or () if one.get("state") == "Failed"), None)
    if failed is None:
        stage = _status(job).get("stage")
        raise Refused(f"no stage has failed{f' (it is at {stage})' if stage else ''}: there is nothing to try again")
    digest = str(failed["digest"])
    if wanted not in (None, digest):
        raise Refused(f"stage {failed['name']} failed with digest {digest}, and not {wanted}: look at it again")
    said = (job["metadata"].get("annotations") or {}).get(names.ANNOTATION_RETRY)
    says = f"stage {failed['name']} runs once more; what it made durable is not done again"
    return Wish(says, {names.ANNOTATION_RETRY: again(digest, said)})


def suspend(job: Mapping[str, Any]) -> Wish:
    """Stop after what is durable."""
    if (job.get("spec") or {}).get("suspend"):
        raise Refused("it is suspended already (spec.suspend)")
    if _complete(job).get("status") == "True":
        raise Refused(f"it is at its end ({_complete(job).get('reason')}): nothing runs that could be suspended")
    if (state := (_status(job).get("promotion") or {}).get("state")) is not None:
        raise Refused(f"all its stages are done, and its promotion is at {state}: to take the student back, roll back")
    return Wish("it stops after what is durable; nothing is lost or paid for again", spec={"suspend": True})


def resume(job: Mapping[str, Any]) -> Wish:
    """Go on where it stopped."""
    if not (job.get("spec") or {}).get("suspend"):
        raise Refused("it is not suspended (spec.suspend)")
    return Wish("it goes on where it stopped", spec={"suspend": False})


def again(digest: str, followed: str | None) -> str:
    """The digest, said so that it is not what was followed before."""
    if not followed or followed.partition("@")[0] != digest:
        return digest
    number = followed.partition("@")[2]
    return f"{digest}@{int(number) + 1 if number.isdecimal() and len(number) < 9 else 2}"


def _artifact(job: Mapping[str, Any], wanted: str | None, verb: str) -> str:
    """The digest of the packaged student, which must be the one that the person means."""
    status = _status(job)
    digest = (status.get("artifact") or {}).get("digest")
    if not digest:
        decision = (status.get("gate") or {}).get("decision")
        if decision in ("Fail", "Inconclusive"):
            raise Refused(f"the gate said {decision}: there is no artifact to {verb}")
        stage = status.get("stage") or "its beginning"
        raise Refused(f"no student is packaged yet (it is at {stage}): there is nothing to {verb}")
    if wanted not in (None, digest):
        raise Refused(f"the job's artifact is {digest}, and not {wanted}: read the report of this one first")
    return str(digest)


def _tier(job: Mapping[str, Any]) -> str:
    tier = ((job.get("spec") or {}).get("promotion") or {}).get("tierRef") or {}
    if not tier.get("name"):
        raise Refused("the job promotes nothing: set spec.promotion.tierRef to the ModelTier that follows it")
    return str(tier["name"])


def _status(job: Mapping[str, Any]) -> Mapping[str, Any]:
    return job.get("status") or {}


def _complete(job: Mapping[str, Any]) -> Mapping[str, Any]:
    return by_type(_status(job).get("conditions") or []).get(COMPLETE, {})
