"""Filter: which of the teacher's answers become training rows. What is dropped lies beside, each with its reason.

Verifiers and filters come first. Where there is a judge of training rows it is asked about what they keep, and an
answer that it gave no score, or a lower one than is wanted, is dropped like any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from modeltiers.api.distilljob import Filters
from modeltiers.distill.bench import Asked, Bench
from modeltiers.distill.faults import BadData
from modeltiers.distill.stage import Result, Work
from modeltiers.distill.store import line
from modeltiers.domain.distill.counts import by_slice
from modeltiers.domain.distill.filters import Drop, Reason, Sieve, without_trace
from modeltiers.domain.distill.patience import Patience
from modeltiers.domain.distill.stages import Stage
from modeltiers.domain.distill.verify import BadVerifier, text_of

ANSWERS: Final = "answers.jsonl"
ROWS: Final = "rows.jsonl"
REJECTS: Final = "rejects.jsonl"


@dataclass
class Tally:
    """What became of the answers."""

    asked: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    logprobs_lost: int = 0

    @property
    def reasons_said(self) -> str:
        """The reasons, the most frequent first."""
        return ", ".join(f"{count} {name}" for name, count in self.reasons.most_common())


def run(work: Work, patience: Patience | None = None) -> Result:
    """Write `rows.jsonl` and `rejects.jsonl`."""
    filters, tally = work.plan.spec.filters or Filters(), Tally()
    judge = work.plan.spec.judge
    bench = Bench.of(work) if judge and judge.min_score_permille else None
    try:
        if bench is not None:
            of = sum(1 for _ in _kept(work, filters))
            bench.ask(_kept(work, filters), of, patience or Patience())
        _write(work, filters, tally, bench)
    except BadVerifier as bad:
        raise BadData(f"{bad}. Create another DistillJob with one that can be run", field=bad.field) from None
    kept, asked = tally.kept.total(), tally.asked.total()
    if kept < filters.least_rows:
        raise BadData(
            f"{kept} of {asked} answers are kept, spec.filters.leastRows is {filters.least_rows}; dropped:"
            f" {tally.reasons_said or 'none'}. Look at {work.folder.at(REJECTS)}, then create another DistillJob with"
            f" other spec.filters, {'spec.judge, ' if bench else ''}spec.generation or rows",
            field="spec.filters",
        )
    said = f"; dropped: {tally.reasons_said}" if tally.reasons else ""
    facts = _facts(tally) | ({"judge": bench.facts()} if bench else {})
    spend = bench.inquiry.spend() if bench else {}
    return Result((ROWS, REJECTS), f"{kept} of {asked} answers kept{said}", facts, spend)


def _kept(work: Work, filters: Filters) -> Iterator[Asked]:
    """What verifiers and filters keep, which is what the judge is asked about."""
    sieve = Sieve(filters, work.plan.spec.workload.verifiers)
    for row in _answers(work, filters, Tally()):
        if sieve.drop(row) is None:
            yield row, text_of(row["answer"])


def _judged(bench: Bench, row: dict[str, Any]) -> Drop | None:
    """Why the judge's score drops an answer."""
    wanted = bench.judge.min_score_permille or 0
    score, why = bench.score(row, text_of(row["answer"]))
    if score is None:
        return Drop(Reason.NOT_SCORED, why)
    if score < wanted:
        said = f"the judge gives {score} ‰, spec.judge.minScorePermille is {wanted}"
        return Drop(Reason.LOW_SCORE, said, score)
    return None


def _write(work: Work, filters: Filters, tally: Tally, bench: Bench | None) -> None:
    sieve = Sieve(filters, work.plan.spec.workload.verifiers)
    with ExitStack() as stack:
        rows, rejects = (stack.enter_context(work.folder.writing(name)) for name in (ROWS, REJECTS))
        count = sum(1 for _ in work.inputs[Stage.GENERATE].rows(ANSWERS))
        for done, row in enumerate(_answers(work, filters, tally)):
            if done % 256 == 0:
                work.check()
                work.progress.at(done, count, "answers")
            name = row["slice"] or ""
            tally.asked[name] += 1
            dropped = sieve.drop(row) or (_judged(bench, row) if bench else None)
            if dropped is None:
                tally.kept[name] += 1
                rows.write(line(row))
            else:
                tally.reasons[dropped.reason.value] += 1
                why: dict[str, Any] = {"reason": dropped.reason.value, "detail": dropped.detail}
                why |= {} if dropped.score is None else {"scorePermille": dropped.score}
                rejects.write(line({"id": row["id"], "sample": row["sample"], **why, **row}))


def _answers(work: Work, filters: Filters, tally: Tally) -> Iterator[dict[str, Any]]:
    for row in work.inputs[Stage.GENERATE].rows(ANSWERS):
        if filters.reasoning == "Keep":
            yield row
            continue
        stripped, lost = without_trace(row)
        tally.logprobs_lost += lost
        yield stripped


def _facts(tally: Tally) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "answers": tally.asked.total(),
        "kept": tally.kept.total(),
        "keptPermille": round(1000 * tally.kept.total() / tally.asked.total()),
        "reasons": dict(sorted(tally.reasons.items())),
    }
    if slices := by_slice(tally.asked):
        facts["slices"] = slices
        facts["keptSlices"] = by_slice(Counter({name: tally.kept[name] for name in tally.asked}))
    return facts | ({"logprobsLost": tally.logprobs_lost} if tally.logprobs_lost else {})
