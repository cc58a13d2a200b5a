"""What the operator sees of a stage: its Job, its pods, and what its program said at its end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from modeltiers import names
from modeltiers.domain.distill.stages import Outcome, Stage
from modeltiers.domain.views import PodView, instant

BUDGET: Final = "BudgetExhausted"
MUTE_PAUSE: Final = 60.0
"""Seconds from the end of a Job that left no word until it is run again."""
_ENDED: Final = ("Succeeded", "Failed")
_NAMES: Final = frozenset(stage.value for stage in Stage)


@dataclass(frozen=True, slots=True)
class JobView:
    """A batch/v1 Job: which stage it runs, with which plan, and how far its controller is."""

    name: str
    uid: str
    digest: str
    plan: str
    retry: str
    applied: str = ""
    """Hash of what it was made from; empty where it was not noted."""
    active: int = 0
    failed: int = 0
    suspended: bool = False
    complete: bool = False
    failure: str = ""
    """Why the Job controller gave up; empty while it has not."""
    started: str = ""
    ended: str = ""

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> JobView:
        """Read a batch/v1 Job of ours."""
        metadata, status = body["metadata"], body.get("status") or {}
        notes = metadata.get("annotations") or {}
        said = {one.get("type"): one for one in status.get("conditions") or () if one.get("status") == "True"}
        failure = said.get("Failed") or {}
        return cls(
            name=metadata["name"],
            uid=metadata.get("uid", ""),
            digest=notes.get(names.ANNOTATION_DIGEST, ""),
            plan=notes.get(names.ANNOTATION_PLAN, ""),
            retry=notes.get(names.ANNOTATION_RETRY, ""),
            applied=notes.get(names.ANNOTATION_APPLIED, ""),
            active=status.get("active") or 0,
            failed=status.get("failed") or 0,
            suspended="Suspended" in said,
            complete="Complete" in said,
            failure=f"{failure.get('reason', '')}: {failure.get('message', '')}" if failure else "",
            started=status.get("startTime") or "",
            ended=status.get("completionTime") or "",
        )

    @property
    def awaits_pods(self) -> bool:
        """Whether its controller has a pod to make for it, or has made one that is not over."""
        return not (self.complete or self.failure or self.suspended)

    @property
    def attempts(self) -> int:
        """Pods that ran it so far."""
        return self.failed + self.active + int(self.complete)


@dataclass(frozen=True, slots=True)
class Report:
    """What a stage's program wrote at its end."""

    outcome: str
    """`Complete`, or the reason of a fault."""
    body: Mapping[str, Any]

    @property
    def message(self) -> str:
        """What a fault says."""
        return str(self.body.get("message", ""))

    @property
    def where(self) -> str:
        """The field of the spec at fault, where one is."""
        return str(self.body.get("field", ""))


def report_of(pods: Sequence[PodView]) -> Report | None:
    """The report of the pod that ended last; None when none left one that can be read."""
    last: tuple[str, Report] | None = None
    for pod in pods:
        for container in pod.containers:
            end = container.ended if container.name == names.STAGE_CONTAINER else None
            said = _report(end.message) if end else None
            if end and said and (last is None or end.finished_at >= last[0]):
                last = (end.finished_at, said)
    return last[1] if last else None


def is_mute(job: JobView, report: Report | None, pods: Sequence[PodView]) -> bool:
    """Whether a Job is complete and nothing is left that says what came of it.

    A Job may be seen complete before its pod is: what the pod has to say then comes with it.
    """
    if not job.complete:
        return False
    if report is not None:
        return report.body.get("digest") != job.digest
    return all(pod.phase in _ENDED for pod in pods)


def is_over(
    job: JobView,
    report: Report | None,
    pods: Sequence[PodView],
    *,
    suspended: bool,
    plan: str,
    retry: str,
    wanted: str | None,
    now: datetime,
) -> bool:
    """Whether a Job has to go: suspended by the spec, to be tried again, not begun and outdated, or without a word.

    `wanted` is what `applied` would be of one made now; None where none can be. The last is not done at once: what
    hides the word of one pod may hide that of the next.
    """
    if job.complete:
        ended = instant(job.ended)
        rested = ended is None or now - ended >= timedelta(seconds=MUTE_PAUSE)
        return is_mute(job, report, pods) and rested
    if suspended:
        return not job.failure
    if job.failure:
        return job.plan != plan or job.retry != retry
    return bool(wanted and job.applied and job.applied != wanted) and not any(pod.has_begun for pod in pods)


def _report(text: str) -> Report | None:
    try:
        body = json.loads(text)
    except ValueError:
        return None  # the log's last lines, of a program that had no time for a report
    outcome = body.get("outcome") if isinstance(body, dict) else None
    return Report(outcome, body) if isinstance(outcome, str) else None


@dataclass(frozen=True, slots=True)
class Known:
    """What the job's status says of its stages and figures: the operator's memory, which may be lost."""

    stages: Mapping[Stage, Mapping[str, Any]] = field(default_factory=dict)
    decision: str | None = None

    @classmethod
    def of(cls, status: Mapping[str, Any]) -> Known:
        """Read a status that we wrote, or that somebody broke."""
        stages: dict[Stage, Mapping[str, Any]] = {}
        for one in status.get("stages") or ():
            name = one.get("name") if isinstance(one, Mapping) else None
            if isinstance(name, str) and name in _NAMES:
                stages[Stage(name)] = one
        return cls(stages, (status.get("gate") or {}).get("decision"))

    def outcomes(self) -> dict[Stage, Outcome]:
        """The stages that are complete."""
        return {
            stage: Outcome(str(one["digest"]), str(one["output"]), self.decision if stage is Stage.GATE else None)
            for stage, one in self.stages.items()
            if one.get("state") == "Complete" and one.get("digest") and one.get("output")
        }


def completed(report: Report, job: JobView) -> dict[str, Any]:
    """The entry of a complete stage in status."""
    body = report.body
    entry = {
        "name": str(body.get("stage", "")),
        "state": "Complete",
        "digest": str(body.get("digest", "")),
        "output": str(body.get("output", "")),
        "attempts": job.attempts,
        "reused": bool(body.get("reused")),
        "summary": str(body.get("summary", ""))[:1024],
    }
    return {**entry, **_times(job)}


def unfinished(stage: Stage, digest: str, job: JobView | None, *, running: bool, failed: bool) -> dict[str, Any]:
    """The entry of a stage that is not complete."""
    state = "Failed" if failed else "Running" if running else "Waiting"
    entry: dict[str, Any] = {"name": stage.value, "state": state, "digest": digest, "reused": False}
    return {**entry, "attempts": job.attempts if job else 0, **(_times(job) if job else {})}


def _times(job: JobView) -> dict[str, Any]:
    return {name: value for name, value in (("started", job.started), ("ended", job.ended)) if value}


def facts_of(report: Report) -> dict[str, Any]:
    """What a report adds to the status beside its stage: spend, the gate's decision, the artifact."""
    facts, spend = report.body.get("facts") or {}, report.body.get("spend") or {}
    found: dict[str, Any] = {}
    if spend:
        found["spend"] = {name: value for name, value in spend.items() if name in _SPEND and value is not None}
    if report.body.get("stage") == Stage.GATE.value:
        found["gate"] = {name: value for name, value in facts.items() if name in _GATE and value is not None}
    if report.body.get("stage") == Stage.PACKAGE.value:
        found["artifact"] = {name: value for name, value in facts.items() if name in _ARTIFACT and value is not None}
    return found


_SPEND: Final = frozenset({"promptTokens", "answerTokens", "costMicros", "currency", "inDoubt", "judge"})
_GATE: Final = frozenset(
    {
        "decision",
        "items",
        "needed",
        "differencePermille",
        "lowerPermille",
        "studentPermille",
        "teacherPermille",
        "basePermille",
        "incumbentPermille",
        "why",
    }
)
_ARTIFACT: Final = frozenset({"digest", "thresholdPermille", "report"})
