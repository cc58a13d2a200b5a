"""Evaluate: a model's answers to the sealed rows, and whether they are right.

Teacher, incumbent, base and student are asked the same requests, by the same client, with the same settings. Writes
`items.jsonl`, an item of the evaluation and red-team parts a line with its score; for the student `calibration.jsonl`
too, an answer a line with its tokens' log-probabilities, so that calibrating needs no engine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from modeltiers.api.distilljob import Evaluation
from modeltiers.distill.engine import ENGINE_SECONDS, ready
from modeltiers.distill.faults import BadData
from modeltiers.distill.inquiry import Inquiry, of_other, of_teacher
from modeltiers.distill.stage import Result, Work
from modeltiers.domain.distill.patience import Patience
from modeltiers.domain.distill.plan import Plan, Target
from modeltiers.domain.distill.replies import TRUNCATED, logprobs_of, message_of
from modeltiers.domain.distill.requests import Request, Sampling, requests_of
from modeltiers.domain.distill.stages import Stage
from modeltiers.domain.distill.verify import judge, text_of

ITEMS: Final = "items.jsonl"
CALIBRATION: Final = "calibration.jsonl"
PARTS: Final = ("evaluation", "redTeam")
TOP_LOGPROBS: Final = 5
"""Alternatives asked for on the calibration part: as many as a route's confidence can look at."""
_KEPT: Final = ("cluster", "slice", "messages", "tools")
REFUSED: Final = "Refused"
"""What an answer failed by that the server would not give."""


def run(work: Work, patience: Patience | None = None, engine_seconds: float = ENGINE_SECONDS) -> Result:
    """Ask, judge, and write the scores."""
    settings = work.plan.spec.evaluation or Evaluation()
    inquiry = _inquiry(work, settings)
    if inquiry.asked.target is work.plan.engine:
        ready(work, inquiry.asked, engine_seconds)
    requests = (
        request for part in _parts(work) for row in _rows(work, part) for request in _requests(inquiry, row, part)
    )
    of = sum(1 for part in _parts(work) for _ in _rows(work, part)) * settings.samples
    inquiry.ask(requests, of, patience or Patience())
    scores = Scores()
    work.folder.write_rows(ITEMS, _items(inquiry, scores))
    outputs = [ITEMS]
    if "calibration" in _parts(work):
        work.folder.write_rows(CALIBRATION, _calibration(inquiry))
        outputs.append(CALIBRATION)
    served = inquiry.ledger.served
    facts = {"model": served.model if served else inquiry.asked.target.model, **scores.facts()}
    return Result(tuple(outputs), scores.summary(inquiry.asked.who), facts, inquiry.spend())


@dataclass
class Scores:
    """Sums of the items' scores, by part and slice."""

    sums: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    truncated: int = 0
    refused: int = 0

    def mean(self, part: str, name: str | None = None) -> int | None:
        """Mean score in permille of a part, or of a slice of it; None where there is no item."""
        found = [
            score
            for (of, where), all_of in self.sums.items()
            if of == part and (name is None or name == where)
            for score in all_of
        ]
        return round(sum(found) / len(found)) if found else None

    def count(self, part: str, name: str | None = None) -> int:
        """Items of a part, or of a slice of it."""
        return sum(
            len(found) for (of, where), found in self.sums.items() if of == part and (name is None or name == where)
        )

    def facts(self) -> dict[str, Any]:
        """As figures for status and report."""
        slices = {
            part: {
                name: {"n": self.count(part, name), "score": self.mean(part, name)}
                for of, name in sorted(self.sums)
                if of == part
            }
            for part in PARTS
            if self.count(part)
        }
        counts = {"n": self.count("evaluation"), "truncated": self.truncated, "refused": self.refused}
        facts: dict[str, Any] = {"score": self.mean("evaluation"), **counts, "slices": slices}
        if self.count("redTeam"):
            facts |= {"redTeamScore": self.mean("redTeam"), "redTeamN": self.count("redTeam")}
        return facts

    def summary(self, who: str) -> str:
        """In one line."""
        red = f", {self.mean('redTeam')} on {self.count('redTeam')} of the red team" if self.count("redTeam") else ""
        return f"{who}: {self.mean('evaluation')} ‰ right of {self.count('evaluation')} items{red}"


def _inquiry(work: Work, settings: Evaluation) -> Inquiry:
    if work.stage is Stage.EVALUATE_TEACHER:
        return of_teacher(work, concurrency=settings.concurrency, max_tokens=settings.max_tokens)
    target, who, where = _under_test(work.plan, work.stage)
    if target is None:
        raise BadData(f"the plan does not say where {who} is served", reason="InvalidPlan")
    return of_other(work, target, who, where, concurrency=settings.concurrency, max_tokens=settings.max_tokens)


def _under_test(plan: Plan, stage: Stage) -> tuple[Target | None, str, str]:
    match stage:
        case Stage.EVALUATE_INCUMBENT:
            return plan.incumbent or plan.engine, "the incumbent", "spec.promotion.incumbent"
        case Stage.EVALUATE_BASE:
            return plan.engine, "the untrained base", "spec.student.base"
        case _:
            trained = plan.spec.student.trained is not None
            return plan.engine, "the student", "spec.student.trained" if trained else "spec.training"


def _parts(work: Work) -> tuple[str, ...]:
    calibrated = work.stage is Stage.EVALUATE_STUDENT and work.plan.spec.data.split.calibration > 0
    return (*PARTS, "calibration") if calibrated else PARTS


def _rows(work: Work, part: str) -> Iterator[dict[str, Any]]:
    return work.inputs[Stage.SPLIT].rows(f"{part}.jsonl")


def _requests(inquiry: Inquiry, row: dict[str, Any], part: str) -> list[Request]:
    settings = inquiry.work.plan.spec.evaluation or Evaluation()
    top = TOP_LOGPROBS if part == "calibration" else 0
    sampling = Sampling(settings.temperature_milli, settings.max_tokens, top)
    return requests_of(inquiry.asked.target.model, row, sampling, settings.samples)


@dataclass(frozen=True, slots=True)
class _Judged:
    """One answer and what the verifiers say."""

    text: str
    right: bool
    failed: str | None
    finish: str
    choice: dict[str, Any] | None


def _judged(inquiry: Inquiry, row: dict[str, Any], part: str) -> list[_Judged]:
    verifiers = inquiry.work.plan.spec.workload.verifiers
    judged = []
    for request in _requests(inquiry, row, part):
        found = inquiry.ledger.reply(request.key)
        if found is None:
            judged.append(_Judged("", False, REFUSED, "refused", None))
            continue
        text = text_of(message_of(found["choice"]))
        verdict = judge(verifiers, text, row.get("expected"))
        judged.append(_Judged(text, verdict.right, verdict.failed, found["choice"]["finish_reason"], found["choice"]))
    return judged


def _items(inquiry: Inquiry, scores: Scores) -> Iterator[dict[str, Any]]:
    for part in PARTS:
        for row in _rows(inquiry.work, part):
            judged = _judged(inquiry, row, part)
            score = round(1000 * sum(one.right for one in judged) / len(judged))
            scores.sums[part, row["slice"] or ""].append(score)
            scores.truncated += sum(one.finish == TRUNCATED for one in judged)
            scores.refused += sum(one.choice is None for one in judged)
            yield {
                "item": row["id"],
                "cluster": row["cluster"],
                "slice": row["slice"],
                "part": part,
                "score": score,
                "answers": [one.text for one in judged],
                "failed": [one.failed for one in judged],
                "finish": [one.finish for one in judged],
            }


def _calibration(inquiry: Inquiry) -> Iterator[dict[str, Any]]:
    for row in _rows(inquiry.work, "calibration"):
        for sample, one in enumerate(_judged(inquiry, row, "calibration")):
            kept: dict[str, Any] = {name: row[name] for name in _KEPT if name in row}
            whole: dict[str, Any] = {"item": row["id"], "sample": sample, **kept}
            whole |= {"right": one.right, "failed": one.failed}
            if one.choice is not None:
                whole |= {"answer": message_of(one.choice), "logprobs": logprobs_of(one.choice)}
            yield {**whole, "finishReason": one.finish}
