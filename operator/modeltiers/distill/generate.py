"""Generate: the teacher's answers to the training rows.

Writes `answers.jsonl`, an answer a line, in the order of rows and samples. A row keeps its own messages: the system
message of `generation.system` is how the teacher is asked, and no part of what the student learns to answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from modeltiers.api.distilljob import Generation
from modeltiers.distill.faults import BadData
from modeltiers.distill.inquiry import Inquiry, of_teacher
from modeltiers.distill.stage import Result, Work
from modeltiers.domain.distill.patience import Patience
from modeltiers.domain.distill.replies import TRUNCATED, WITHHELD, logprobs_of, message_of
from modeltiers.domain.distill.requests import Request, Sampling, requests_of
from modeltiers.domain.distill.stages import Stage

ROWS: Final = "train.jsonl"
ANSWERS: Final = "answers.jsonl"
REASONS: Final = 5
"""Most common reasons that are told."""
_KEPT: Final = ("id", "messages", "tools", "expected", "group", "slice", "cluster")
_BROKEN: Final = (WITHHELD, "abort", "error")
"""Ends that are none: the provider held the answer back, or its server gave up in the middle."""


def run(work: Work, patience: Patience | None = None) -> Result:
    """Ask, then write what the ledger has."""
    settings = work.plan.spec.generation or Generation()
    inquiry = of_teacher(work, concurrency=settings.concurrency, max_tokens=settings.max_tokens)
    rows = sum(1 for _ in _rows(work))
    requests = (request for row in _rows(work) for request in _requests(inquiry, settings, row))
    inquiry.ask(requests, rows * settings.samples, patience or Patience())
    tally = Tally(rows)
    work.folder.write_rows(ANSWERS, _answers(inquiry, settings, tally))
    if not tally.answered:
        raise BadData(
            f"none of {tally.asked} answers is whole: {tally.truncated} were cut at spec.generation.maxTokens"
            f" ({settings.max_tokens}), {tally.refused.total()} refused. Create another DistillJob with other settings",
            reason="NothingAnswered",
            field="spec.generation.maxTokens",
        )
    served = inquiry.ledger.served
    return Result((ANSWERS,), tally.summary(served.model if served else ""), _facts(inquiry, tally), inquiry.spend())


@dataclass
class Tally:
    """What became of the requests."""

    rows: int
    asked: int = 0
    answered: int = 0
    truncated: int = 0
    with_logprobs: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def summary(self, model: str) -> str:
        """In one line."""
        lost = [f"{self.truncated} truncated"] * bool(self.truncated)
        lost += [f"{self.refused.total()} refused"] * bool(self.refused)
        return f"{self.answered} answers to {self.rows} rows by {model}" + (f"; {', '.join(lost)}" if lost else "")


def _facts(inquiry: Inquiry, tally: Tally) -> dict[str, Any]:
    served = inquiry.ledger.served
    facts: dict[str, Any] = {
        "rows": tally.rows,
        "asked": tally.asked,
        "answered": tally.answered,
        "truncated": tally.truncated,
        "refused": tally.refused.total(),
        "logprobs": tally.with_logprobs == tally.answered,
        "teacher": inquiry.asked.target.model,
    }
    if served is not None:
        facts["teacher"] = served.model
        facts |= {"fingerprint": served.fingerprint} if served.fingerprint else {}
    if tally.refused:
        facts["reasons"] = dict(sorted(tally.refused.most_common(REASONS)))
    return facts


def _rows(work: Work) -> Iterator[dict[str, Any]]:
    return work.inputs[Stage.SPLIT].rows(ROWS)


def _requests(inquiry: Inquiry, settings: Generation, row: dict[str, Any]) -> list[Request]:
    sampling = Sampling(settings.temperature_milli, settings.max_tokens, settings.top_logprobs)
    return requests_of(inquiry.asked.target.model, row, sampling, settings.samples, settings.system)


def _answers(inquiry: Inquiry, settings: Generation, tally: Tally) -> Iterator[dict[str, Any]]:
    for row in _rows(inquiry.work):
        for request in _requests(inquiry, settings, row):
            tally.asked += 1
            found = inquiry.ledger.reply(request.key)
            if found is None:
                tally.refused[inquiry.ledger.refused.get(request.key, "not asked")] += 1
                continue
            finish = found["choice"]["finish_reason"]
            if finish == TRUNCATED:
                tally.truncated += 1
            elif finish in _BROKEN:
                tally.refused[f"finish_reason {finish}"] += 1
            else:
                answer = _answer(row, request.sample, found)
                tally.answered += 1
                tally.with_logprobs += "logprobs" in answer
                yield answer


def _answer(row: dict[str, Any], sample: int, found: dict[str, Any]) -> dict[str, Any]:
    choice = found["choice"]
    prompt, answer = found["took"]
    whole: dict[str, Any] = {name: row[name] for name in _KEPT if name in row}
    whole |= {"sample": sample, "answer": message_of(choice), "finishReason": choice["finish_reason"]}
    if (logprobs := logprobs_of(choice)) is not None:
        whole["logprobs"] = logprobs
    return {**whole, "usage": {"promptTokens": prompt, "answerTokens": answer}}
