"""What a DistillJob's conditions and columns say: one pure function from what was gathered to what is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from modeltiers import names
from modeltiers.api.distilljob import DistillJobSpec
from modeltiers.domain import causes, conditions, pod_causes
from modeltiers.domain.conditions import Observation
from modeltiers.domain.distill.following import TRIED
from modeltiers.domain.distill.job import BUDGET, MUTE_PAUSE, JobView, Known, Report, is_mute
from modeltiers.domain.distill.promotion import Step
from modeltiers.domain.distill.reasons import AWAITING_APPROVAL, COMPLETE, ORDER, STAGE_REASONS
from modeltiers.domain.distill.stages import Next, Stage, stages_of
from modeltiers.domain.engine_args import Refusal
from modeltiers.domain.engine_messages import quote
from modeltiers.domain.facts import WAITING, ApplyError, Cause, Scene, TierFacts, find
from modeltiers.domain.views import PodView

_WAYS_OUT: Final = {
    "NamespaceTerminating": "nothing new can be made in it; create the DistillJob in another namespace",
    "QuotaExceeded": "raise the quota, free some of it, or lower spec.scheduling.work or spec.scheduling.train",
    "LimitRangeViolated": "set spec.scheduling.work or spec.scheduling.train within it, or have the range changed",
    "PodSecurityViolation": "stages run under the restricted level: look for what a webhook adds to their pods",
    "AdmissionDenied": "change what the policy asks for in spec.scheduling, or have the policy's owner exempt it",
}
"""What to do where the pods of a stage are refused."""
_KNOWN: Final = frozenset(one.name for one in STAGE_REASONS)


@dataclass(frozen=True, slots=True)
class Hindrance:
    """Why the next stage cannot be begun; it passes by itself, or it does not."""

    reason: str
    message: str
    passes: bool
    wait: float | None = None
    """Seconds after which to look again by the clock; None where only events matter."""


@dataclass(frozen=True, slots=True)
class JobFacts:
    """Everything that a look at a DistillJob gathered."""

    namespace: str
    name: str
    generation: int
    fault: tuple[tuple[str, str], ...] = ()
    """Fields that cannot be read, and why."""
    refusals: Sequence[Refusal] = ()
    spec: DistillJobSpec | None = None
    known: Known = field(default_factory=Known)
    next: Next | None = None
    """The stage to run; None when all are done."""
    hindrance: Hindrance | None = None
    job: JobView | None = None
    """The Job of that stage, if there is one."""
    pods: tuple[PodView, ...] = ()
    refused: str = ""
    """Why that Job has no pod, in its controller's words."""
    report: Report | None = None
    """What the last pod of that stage said at its end."""
    progress: Mapping[str, Any] | None = None
    """What the running stage says of itself."""
    promotion: Step | None = None
    """What came of the last look at the tier; None where nothing is promoted."""
    apply_error: ApplyError | None = None
    unschedulable_deadline_seconds: int = 900


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How the job is, before it is told in conditions."""

    reason: str
    message: str
    complete: bool = False
    stalled: bool = False
    told: str = ""
    """What Complete says where that is another word."""


def judge(facts: JobFacts, previous: Sequence[Mapping[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """The conditions of a DistillJob, laid over the ones written last."""
    accepted = _accepted(facts)
    outcome = _refused(accepted) or _unwritten(facts) or _at_the_end(facts) or _on_the_way(facts, now)
    observed = [accepted, *_summary(outcome)]
    observed.append(_approval(facts))
    return conditions.merge(previous, observed, facts.generation, now, ORDER)


def _accepted(facts: JobFacts) -> Observation:
    if facts.fault:
        return Observation(conditions.ACCEPTED, "False", "InvalidSpec", "; ".join(text for _, text in facts.fault))
    if facts.refusals:
        said = "; ".join(f"{one.path}: {one.message}" for one in facts.refusals)
        return Observation(conditions.ACCEPTED, "False", "NotAllowed", said)
    return Observation(conditions.ACCEPTED, "True", "Valid", "the spec is valid and allowed")


def _refused(accepted: Observation) -> _Outcome | None:
    if accepted.status == "True":
        return None
    return _Outcome(accepted.reason, accepted.message, stalled=True, told="NotStarted")


def _unwritten(facts: JobFacts) -> _Outcome | None:
    if (error := facts.apply_error) is None:
        return None
    reason, message = error.told(facts.namespace)
    return _Outcome(reason, message, stalled=error.lasts)


def _at_the_end(facts: JobFacts) -> _Outcome | None:
    if facts.next is not None:
        return None
    gate = facts.known.stages.get(Stage.GATE, {})
    said = str(gate.get("summary", ""))
    if facts.known.decision == "Pass" and facts.promotion is not None:
        return _promoted(facts.promotion)
    if facts.known.decision == "Pass":
        package = facts.known.stages.get(Stage.PACKAGE, {})
        return _Outcome(
            "Packaged", str(package.get("summary", "")) or "the student passed and is packaged", complete=True
        )
    if facts.known.decision == "Inconclusive":
        return _Outcome("Inconclusive", said, complete=True)
    return _Outcome("Rejected", said, complete=True)


def _promoted(step: Step) -> _Outcome:
    """Where the student stands in its tier."""
    if step.hindrance is not None:
        reason, message = step.hindrance
        return _Outcome(reason, message, stalled=True)
    state, why = str(step.status.get("state")), str(step.status.get("why", ""))
    match state:
        case "Live":
            return _Outcome("Promoted", "the student passed and is live", complete=True)
        case "RolledBack":
            return _Outcome("RolledBack", why, complete=True)
        case "AwaitingApproval":
            return _Outcome("ApprovalWanted", step.message)
        case _:
            return _Outcome(f"{state}Running", step.message or f"{state} runs")


def _approval(facts: JobFacts) -> Observation:
    step = facts.promotion
    if step is not None and step.status.get("state") == "AwaitingApproval":
        return Observation(AWAITING_APPROVAL, "True", "ApprovalWanted", step.message)
    return Observation(AWAITING_APPROVAL, "False", "NotWanted", "nobody has to approve, or not yet")


def _on_the_way(facts: JobFacts, now: datetime) -> _Outcome:
    assert facts.next is not None
    stage = facts.next.stage.value
    if facts.spec and facts.spec.suspend:
        return _Outcome("Suspended", f"{stage} waits: spec.suspend is true")
    if facts.hindrance:
        return _Outcome(
            facts.hindrance.reason, f"{stage}: {facts.hindrance.message}", stalled=not facts.hindrance.passes
        )
    if facts.job and facts.job.failure:
        return _failed(facts, facts.job)
    if facts.job and is_mute(facts.job, facts.report, facts.pods):
        said = f"Job {facts.job.name} is complete, and no pod of it says what came of it"
        return _Outcome("ReportMissing", f"{stage}: {said}; it is run again {MUTE_PAUSE:.0f} s after its end")
    if facts.job and facts.job.suspended:
        return _Outcome("StageQueued", f"Job {facts.job.name} is suspended: its queue has not admitted it")
    if (cause := _cause(facts, now)) is not None:
        return _Outcome(cause.reason, f"{stage}: {cause.message}", stalled=cause.severity is not WAITING)
    if any(pod.phase == "Running" for pod in facts.pods):
        return _Outcome("StageRunning", f"{stage} runs: {shown(facts.progress) or 'it has not said how far it is'}")
    said = f"{stage}: its pod is on the way"
    if facts.job and facts.job.failed and facts.report:
        said = f"{said}, again after {facts.report.outcome}: {facts.report.message}"
    return _Outcome("StageStarting", said)


def _cause(facts: JobFacts, now: datetime) -> Cause | None:
    """What keeps the pod of the stage from being made, or from running."""
    if facts.job and facts.refused:
        where = f"pods of Job {facts.namespace}/{facts.job.name}"
        return causes.refused_by_server(where, facts.refused, "AdmissionDenied", _WAYS_OUT)
    return find(Scene.of(_pods(facts), (), now), pod_causes.CHECKS)


def _failed(facts: JobFacts, job: JobView) -> _Outcome:
    """The Job controller gave up: the program's own words, if it had any, say why."""
    report = facts.report
    if report and report.outcome == BUDGET:
        return _Outcome(BUDGET, report.message, complete=True)
    if report is None:
        last = next(
            (one.ended for pod in facts.pods for one in pod.containers if one.ended and one.ended.message), None
        )
        said = quote(last.message) if last else job.failure
        return _Outcome("StageFailed", f"Job {job.name}: “{said}”", stalled=True)
    where = f"{report.where}: " if report.where else ""
    known = report.outcome in _KNOWN
    said = f"{where}{report.message}" if known else f"{report.outcome}: {where}{report.message}"
    return _Outcome(report.outcome if known else "StageFailed", said, stalled=True)


def _pods(facts: JobFacts) -> TierFacts:
    """The stage's pods in the form that the checks of pods read; those that ended are the Job controller's business.

    So are those whose stage ended while the engine beside it still shuts down.
    """
    living = tuple(pod for pod in facts.pods if not pod.finished and not _over(pod))
    return TierFacts(
        namespace=facts.namespace,
        name=facts.name,
        generation=facts.generation,
        pods=tuple(replace(pod, template="") for pod in living),
        unschedulable_deadline_seconds=facts.unschedulable_deadline_seconds,
        claim_fields="spec.store.claimName, spec.student.base.source or spec.data.sources[].volume",
    )


def _over(pod: PodView) -> bool:
    return any(one.name == names.STAGE_CONTAINER and one.ended is not None for one in pod.containers)


def _summary(outcome: _Outcome) -> list[Observation]:
    moving = not outcome.complete and not outcome.stalled
    if outcome.complete:
        complete = Observation(COMPLETE, "True", outcome.reason, outcome.message)
        ready = Observation(conditions.READY, "True", "Done", "the job is at its end: see the condition Complete")
    else:
        word = outcome.told or ("Stopped" if outcome.stalled else "InProgress")
        complete = Observation(COMPLETE, "False", word, outcome.message)
        status: conditions.Status = "False" if outcome.stalled else "Unknown"
        ready = Observation(conditions.READY, status, outcome.reason, outcome.message)
    return [
        complete,
        ready,
        Observation(conditions.RECONCILING, "True", outcome.reason, outcome.message)
        if moving
        else Observation(conditions.RECONCILING, "False", "Settled", "nothing is left to do"),
        Observation(conditions.STALLED, "True", outcome.reason, outcome.message)
        if outcome.stalled
        else Observation(conditions.STALLED, "False", "NotStalled", "nothing stands in the way"),
    ]


# --- columns ----------------------------------------------------------------------------------------------------------


def shown(progress: Mapping[str, Any] | None) -> str:
    """`120/400 steps, 35 s left`; empty where nothing is known."""
    if not progress or not isinstance(progress.get("of"), int) or not progress["of"]:
        return ""
    said = f"{progress.get('done', 0)}/{progress['of']} {progress.get('unit', '')}".strip()
    left = progress.get("etaSeconds")
    return f"{said}, {left} s left" if isinstance(left, int) else said


def columns(facts: JobFacts, judged: Sequence[Mapping[str, Any]], spend: Mapping[str, Any] | None) -> dict[str, Any]:
    """What `kubectl get` shows."""
    found: dict[str, Any] = {}
    said = conditions.by_type(judged)[COMPLETE]
    if said["status"] == "True":
        found["stage"] = said["reason"]
    elif facts.next is not None:
        found["stage"] = facts.next.stage.value
    elif facts.promotion is not None:
        found["stage"] = str(facts.promotion.status.get("state", "Promote"))
    if facts.spec is not None:
        stages = stages_of(facts.spec)
        place = stages.index(facts.next.stage) if facts.next else len(facts.known.outcomes())
        found["progress"] = shown(facts.progress) or f"{place}/{len(stages)} stages"
        if facts.promotion is not None and facts.promotion.status.get("state") in TRIED:
            found["progress"] = f"{facts.promotion.status.get('weightPermille', 0)} ‰ of conversations"
    if facts.known.decision:
        found["decision"] = facts.known.decision
    if spend:
        found["spent"] = spent(together(spend))
    return found


def spent(spend: Mapping[str, Any]) -> str:
    """`12,345 tokens, 0.0123 USD`."""
    tokens = int(spend.get("promptTokens", 0)) + int(spend.get("answerTokens", 0))
    cost = spend.get("costMicros")
    money = f", {cost / 1_000_000:.4f} {spend.get('currency', '')}".rstrip() if isinstance(cost, int) else ""
    return f"{tokens:,} tokens{money}"


def together(spend: Mapping[str, Any]) -> dict[str, Any]:
    """What teacher and judge took in one; without its cost where their currencies differ."""
    judge = spend.get("judge") or {}
    fields = ("promptTokens", "answerTokens", "inDoubt")
    found: dict[str, Any] = {name: int(spend.get(name, 0)) + int(judge.get(name, 0)) for name in fields}
    paid = [one for one in (spend, judge) if isinstance(one.get("costMicros"), int)]
    if len({one.get("currency") for one in paid}) == 1:
        found |= {"costMicros": sum(one["costMicros"] for one in paid), "currency": paid[0].get("currency", "")}
    return found
